"""`trainer eval`: versions side by side on somebody's rows, without a run and without a verdict.

The work is imported once it is wanted: scipy and torch take seconds, and every command imports this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer import config, progress
from trainer.settings.gate import GateSettings

_Refs = Annotated[
    list[str], typer.Argument(metavar="REF...", help="tenant/name@version, or base; the first is compared with")
]
_Rows = Annotated[Path, typer.Option("--data", help="a .jsonl, .csv or .parquet file of rows")]
_Url = Annotated[str | None, typer.Option("--gateway", help="the gateway's address; its key is GATEWAY_KEY")]
_Model = Annotated[
    Path | None, typer.Option("--model-path", help="a directory with the base's tokenizer; without it no loss")
]
_Out = Annotated[Path | None, typer.Option("--out", help="a file for what each version said of each row (JSONL)")]


def evaluate(
    refs: _Refs,
    data_file: _Rows,
    gateway: _Url = None,
    model_path: _Model = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="at most; chosen by a sticky hash")] = 200,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="of an answer")] = 128,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="requests under way")] = 8,
    out: _Out = None,
    as_json: Annotated[bool, typer.Option("--json", help="the figures as a JSON object")] = False,
) -> None:
    """The figures of any versions on the rows of a file, answered in the serving engine."""
    from trainer.gate import side_by_side

    wanted = GateSettings(rows=rows, max_tokens=max_tokens, at_once=at_once)
    voice = progress.to(sys.stderr)
    measured = side_by_side.measured(refs, data_file, config.access(gateway), model_path, wanted, voice.say)
    if out is not None:
        measured.write(out)
    found = side_by_side.figures(measured, refs, wanted)
    print(json.dumps(found) if as_json else side_by_side.table(found, refs))  # noqa: T201  # the result
