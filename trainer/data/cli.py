"""`trainer data inspect` and `trainer data prepare`. Progress goes to standard error; the result is standard output."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from trainer import config
from trainer.data import card
from trainer.data.prepare import prepare as prepare_files
from trainer.data.profile import Profile, tokenizer_of
from trainer.data.survey import Surveyor
from trainer.errors import InvalidConfig
from trainer.progress import Watch
from trainer.settings.data import DataSettings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Look at rows, and make them ready.")

_Files = Annotated[list[Path] | None, typer.Argument(help=".jsonl (.gz, .zst), .csv or .parquet; the config's if none")]
_Config = Annotated[Path | None, typer.Option("--config", help="a run's YAML file; its data section is used")]
_Set = Annotated[list[str] | None, typer.Option("--set", help="key=value of the data section; repeat it")]
_HeldOut = Annotated[list[Path] | None, typer.Option("--held-out", help="a file of rows that are held out")]
_Test = Annotated[list[Path] | None, typer.Option("--test", help="a file of rows kept for the test")]
_Model = Annotated[Path | None, typer.Option("--model-path", help="a base model's directory: lengths in its tokens")]
_Base = Annotated[str | None, typer.Option("--base-model", help="the same, of a model that was downloaded before")]
_Json = Annotated[bool, typer.Option("--json", help="the card as a JSON object")]
_Out = Annotated[Path, typer.Option("--out", help="a directory that is not there yet")]
_Skip = Annotated[bool, typer.Option("--skip-bad", help="leave out rows that cannot be read, and count them")]


@app.command()
def inspect(
    files: _Files = None,
    config_file: _Config = None,
    assignments: _Set = None,
    held_out: _HeldOut = None,
    test: _Test = None,
    model_path: _Model = None,
    base_model: _Base = None,
    as_json: _Json = False,
) -> None:
    """Count what is in files: kinds, duplicates, labels, lengths, personal data, leakage, errors.

    Exit status 1 if a row cannot be read.
    """
    settings, profile = _asked(config_file, assignments, files, held_out, test, model_path, base_model)
    with tempfile.TemporaryDirectory(prefix="tuneloop-data-") as directory:
        survey = Surveyor(settings, Path(directory), tolerant=True, profile=profile, watch=Watch(sys.stderr)).survey()
        survey.spool.close()
    told = card.summary(survey, settings)
    told["personal"]["where"] = survey.profile.finds
    print(json.dumps(told, ensure_ascii=False) if as_json else _to_read(told))  # noqa: T201  # the result
    if survey.profile.bad:
        raise typer.Exit(1)


@app.command()
def prepare(
    out: _Out,
    files: _Files = None,
    config_file: _Config = None,
    assignments: _Set = None,
    held_out: _HeldOut = None,
    test: _Test = None,
    model_path: _Model = None,
    base_model: _Base = None,
    skip_bad: _Skip = False,
    as_json: _Json = False,
) -> None:
    """Mask personal data, remove duplicates, split by user (80, 10 and 10 % unless set), and write rows and card."""
    settings, profile = _asked(config_file, assignments, files, held_out, test, model_path, base_model)
    if "test_share" not in settings.model_fields_set and not settings.test:
        settings = settings.model_copy(update={"test_share": 0.1})
    told = prepare_files(settings, out, skip_bad=skip_bad, profile=profile, watch=Watch(sys.stderr))
    rows = told["rows"]
    text = f"{out}: {rows['train']} rows to train on, {rows['held_out']} held out, {rows['test']} for the test"
    left = "".join(f"; {count} {why}" for why, count in rows["left_out"].items())
    print(json.dumps(told, ensure_ascii=False) if as_json else text + left)  # noqa: T201  # the result


def _asked(
    config_file: Path | None,
    assignments: list[str] | None,
    files: list[Path] | None,
    held_out: list[Path] | None,
    test: list[Path] | None,
    model_path: Path | None,
    base_model: str | None,
) -> tuple[DataSettings, Profile]:
    """The settings (FILES are data.train), and the counters with the tokenizer that was named."""
    if model_path is not None and not (model_path / "tokenizer.json").is_file():
        raise InvalidConfig(f"{model_path} holds no tokenizer.json", "name the base model's directory")
    named = {"train": files, "held_out": held_out, "test": test}
    given: dict[str, Any] = {key: list(paths) for key, paths in named.items() if paths}
    for text in assignments or []:
        key, value = config.assignment(text)
        name, _, part = key.removeprefix("data.").partition(".")
        given[name] = {**given.get(name, {}), part: value} if part else value
    if config_file is not None:
        run = config.load(config_file, [(f"data.{key}", value) for key, value in given.items()])
        return run.data, Profile(tokenizer_of(model_path or run.model_path, base_model or run.base_model))
    try:
        return DataSettings.model_validate(given), Profile(tokenizer_of(model_path, base_model))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise InvalidConfig(f"{key + ': ' if key else ''}{what}", "name files, or correct what is --set") from None


def _to_read(told: dict[str, Any]) -> str:
    """The card without pictures, and where personal data was found."""
    lines = [line for line in card.markdown(told).splitlines() if not line.startswith("![")]
    where = told["personal"]["where"]
    return "\n".join(
        [*lines, *(["Where, with the value masked:", "", *(f"- {find}" for find in where)] if where else [])]
    )
