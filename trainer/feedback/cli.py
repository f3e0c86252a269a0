"""`trainer plan`: what the feedback at hand supports, what is missing, what a round would take, and how to run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer import config
from trainer.config import RunSettings
from trainer.errors import InvalidConfig
from trainer.feedback import rounds
from trainer.feedback.machines import Shape, machine
from trainer.feedback.plan import plan as planned

_UNKNOWN = "unknown/base"


def plan(  # long because: the flags are the interface, one line each
    config_file: Annotated[Path | None, typer.Argument(help="a YAML file, such as trainer/configs/sft.yaml")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="key=value, over the file; repeat it")] = None,
    gateway: Annotated[str | None, typer.Option(help="the gateway's address; its key is GATEWAY_KEY")] = None,
    tenant: Annotated[str | None, typer.Option(help="whose alias this is")] = None,
    alias: Annotated[str | None, typer.Option(help="the alias whose answers were judged")] = None,
    metric: Annotated[str | None, typer.Option(help="by this metric only")] = None,
    name: Annotated[str | None, typer.Option(help="the adapter's name; the alias's, if unset")] = None,
    base_model: Annotated[str | None, typer.Option(help="the engine's, if unset")] = None,
    model_path: Annotated[str | None, typer.Option(help="a local directory that holds it")] = None,
    run_dir: Annotated[str | None, typer.Option(help="of the round; runs/ALIAS, if unset")] = None,
    hardware: Annotated[str, typer.Option(help="cpu (this machine), or a GPU such as H100")] = "cpu",
    price: Annotated[float | None, typer.Option(help="of an hour; for a GPU ours, if unset")] = None,
    parameters: Annotated[float | None, typer.Option(help="of the base model, such as 8e9")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the plan as a JSON object")] = False,
) -> None:
    """Say what the feedback at hand supports now, what is missing, and what the round would take."""
    flags = {
        "gateway.url": gateway,
        "publish.tenant": tenant,
        "data.gateway.alias": alias,
        "data.gateway.metric": metric,
        "publish.name": name,
        "base_model": base_model,
        "model_path": model_path,
        "run_dir": run_dir,
    }
    settings = settings_of(config_file, assignments, flags)
    on = machine(hardware, price=price)
    compiled = rounds.required(rounds.gather(settings))
    found = planned(
        compiled,
        settings,
        incumbent=rounds.incumbent(settings),
        machine=on,
        shape=Shape.of(settings.base_model, settings.model_path, parameters),
        given=words(config_file, assignments, settings),
    )
    lines = [json.dumps(rounds.told(found, compiled))] if as_json else rounds.lines(found, compiled)
    print("\n".join(lines))  # noqa: T201  # the result


def words(config_file: Path | None, assignments: list[str] | None, settings: RunSettings) -> list[str]:
    """What the round's command needs of this command line, without keys: they stay where nobody reads over."""
    judge = settings.gate.judge if settings.gate is not None else None
    keys = [key.get_secret_value() for key in (settings.gateway.key, judge and judge.key) if key]
    told = [text for text in assignments or [] if not any(key in text for key in keys)]
    named = [str(config_file)] if config_file is not None else []
    return named + [word for text in told for word in ("--set", text)]


def settings_of(config_file: Path | None, assignments: list[str] | None, flags: dict[str, Any]) -> RunSettings:
    """A round's settings: what the file and the flags leave open is named after the alias, or asked of the engine.

    Raises `TrainerError`s.
    """
    given = [(key, value) for key, value in flags.items() if value]
    given += [config.assignment(text) for text in assignments or []]
    alias = flags.get("data.gateway.alias")
    if alias is None and config_file is None:
        raise InvalidConfig("a round needs live feedback", "name a config file, or --gateway, --tenant and --alias")
    usual = {"base_model": _UNKNOWN, "run_dir": f"runs/{alias}" if alias else None, "publish.name": alias}
    settings = config.load(config_file, given, usual={key: value for key, value in usual.items() if value})
    return rounds.engines_base(settings) if settings.base_model == _UNKNOWN else settings
