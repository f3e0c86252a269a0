"""The trainer's commands. Progress goes to standard error; the result is standard output.

torch is imported only once there is something to train.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.errors import ContractError
from trainer import config, launch, progress
from trainer.config import RunSettings
from trainer.data import cli as data_cli
from trainer.errors import TrainerError
from trainer.feedback import cli as feedback_cli
from trainer.gate import cli as gate_cli
from trainer.lineage import cli as lineage_cli
from trainer.run import check_engine, read, run_all

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From rows and live feedback to an adapter that is served. Progress goes to standard error, the result to "
    "standard output.",
)
app.add_typer(data_cli.app, name="data")

REFUSED = 3
"""The exit status of a run whose adapter the gate refuses: it is published as refused, and never served."""

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})
"""What a disk answers without naming a file."""

_Config = Annotated[Path | None, typer.Argument(help="a YAML file, such as trainer/configs/sft.yaml")]
_Set = Annotated[list[str] | None, typer.Option("--set", help="key=value, over the file; repeat it")]
_Data = Annotated[list[str] | None, typer.Option("--data", help="a .jsonl, .csv or .parquet file; repeat it")]
_Json = Annotated[bool, typer.Option("--json", help="the result as a JSON object")]


def _flag(key: str, what: str) -> Any:
    return typer.Option(f"--{key}", help=what)


_HeldOut = Annotated[list[str] | None, _flag("held-out", "a file of rows that are never trained on")]
_Base = Annotated[str | None, _flag("base-model", "the base model's name")]
_Path = Annotated[str | None, _flag("model-path", "a local directory that holds it")]
_Tenant = Annotated[str | None, _flag("tenant", "whose adapter this is")]
_Name = Annotated[str | None, _flag("name", "the adapter's name")]
_Url = Annotated[str | None, _flag("gateway", "the gateway's address; its key is GATEWAY_KEY")]
_Alias = Annotated[str | None, _flag("alias", "learn from what was said of this alias's answers")]
_Metric = Annotated[str | None, _flag("metric", "by this metric")]
_Store = Annotated[str | None, _flag("store", "the adapter store to publish into")]
_RunDir = Annotated[str | None, _flag("run-dir", "where the run is kept, and continued from")]


@app.command()
def run(  # long because: the flags are the interface, one line each
    config_file: _Config = None,
    assignments: _Set = None,
    data_files: _Data = None,
    held_out: _HeldOut = None,
    base_model: _Base = None,
    model_path: _Path = None,
    tenant: _Tenant = None,
    name: _Name = None,
    gateway: _Url = None,
    alias: _Alias = None,
    metric: _Metric = None,
    store: _Store = None,
    run_dir: _RunDir = None,
    by_plan: Annotated[bool, typer.Option("--round", help="do what `trainer plan` says")] = False,
    ray: Annotated[
        str | None, typer.Option("--ray", help="run it as a job of the Ray cluster with this dashboard")
    ] = None,
    workers: Annotated[int, typer.Option("--processes", min=1, help="with --ray: how many train together")] = 1,
    as_json: _Json = False,
) -> None:
    """Train an adapter and publish it. Started again on the same run directory, it continues."""
    flags = {
        "data.train": data_files,
        "data.held_out": held_out,
        "base_model": base_model,
        "model_path": model_path,
        "publish.tenant": tenant,
        "publish.name": name,
        "gateway.url": gateway,
        "data.gateway.alias": alias,
        "data.gateway.metric": metric,
        "publish.store": store,
        "run_dir": run_dir,
    }
    settings = (feedback_cli.settings_of if by_plan else _settings)(config_file, assignments, flags)
    voice = progress.to(sys.stderr)
    if ray is None:
        done = run_all(settings, voice, by_plan=by_plan)
    else:
        done = launch.on_ray(settings, ray, voice, workers=workers, by_plan=by_plan)
    if done:  # under torchrun the main process tells
        print(_line(done, as_json=as_json), flush=True)  # noqa: T201  # the result
    if done.get("verdict") == "refused":
        _complain(f"the gate refuses {done['ref']}: {done['reason']}")
        raise typer.Exit(REFUSED)


app.command()(feedback_cli.plan)
app.command()(lineage_cli.lineage)
app.command("eval")(gate_cli.evaluate)


@app.command()
def validate(
    config_file: _Config = None, assignments: _Set = None, data_files: _Data = None, base_model: _Base = None
) -> None:
    """Check a config and its rows in seconds: what would be trained on, what not, and whether it could be served."""
    voice = progress.to(sys.stderr)
    flags = {"data.train": data_files, "base_model": base_model}
    settings = _settings(config_file, assignments, flags)
    check_engine(settings, voice)
    dataset = read(settings, voice)
    print(f"valid: {len(dataset.train)} rows to train on, {len(dataset.held_out)} held out")  # noqa: T201  # the result


def main(words: Sequence[str] | None = None) -> None:
    """The command line, or `words` as if they had been typed. It ends in `SystemExit`: an expected error is one line on
    standard error and exit status 1."""
    try:
        app(words)
    except (TrainerError, ContractError) as error:
        _complain(str(error))
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise
        where = error.filename or "the disk"
        _complain(f"{where} cannot be used ({error.strerror}): correct it, or name another place.")
        sys.exit(1)


def _complain(text: str) -> None:
    print(f"trainer: {text}", file=sys.stderr)  # noqa: T201  # where people look for it


def _settings(config_file: Path | None, assignments: list[str] | None, flags: dict[str, Any]) -> RunSettings:
    given = [(key, value) for key, value in flags.items() if value]
    return config.load(config_file, given + [config.assignment(text) for text in assignments or []])


def _line(result: dict[str, Any], *, as_json: bool) -> str:
    if as_json:
        return json.dumps(result)
    where = result["ref"] or f"not published (no store, no gateway): {result['run_dir']}/adapter"
    return f"{where} {result['digest']}"
