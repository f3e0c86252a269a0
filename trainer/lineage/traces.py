"""A run directory's side of lineage: the rows that a run learnt from, whose they are, and how they are taken out.

It knows no gateway. The weights stay what they are: what learnt from erased rows is to be trained again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import ContractError
from adapters.examples import read_jsonl
from adapters.lineage import LineageRow
from trainer.errors import InvalidData, RunConflict

_SIDES = ("train", "held_out", "test")


@dataclass(frozen=True, slots=True)
class Traces:
    """What a run directory holds of a user: rows by side. The adapter learnt from those it was trained on."""

    run_dir: Path
    rows: dict[str, int]

    def __str__(self) -> str:
        held = ", ".join(f"{count} {side}" for side, count in self.rows.items() if count)
        return f"{self.run_dir}: {held}"


def rows_of(run_dir: Path) -> Iterator[LineageRow]:
    """The rows that a run was trained on, in their order. Raises `InvalidData`."""
    path = run_dir / "data" / "train.jsonl"
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from (LineageRow.of(example) for example in read_jsonl(file, source=str(path)))
    except OSError as error:
        raise InvalidData(f"{run_dir} holds no run ({error.strerror})", "name a run directory") from error
    except ContractError as error:
        raise InvalidData(f"{path} cannot be read ({error})", "name a run directory") from error


def traces(runs: Path, unit: str) -> list[Traces]:
    """The run directories in or under `runs` that hold rows of a user. Raises `InvalidData`."""
    if not runs.is_dir():
        raise InvalidData(f"{runs} is no directory", "name one that holds run directories")
    found = []
    for about in sorted(runs.rglob("run.json")):
        sides = {side: len(_parted(about.parent, side, unit)[1]) for side in _SIDES}
        if any(sides.values()):
            found.append(Traces(about.parent, sides))
    return found


def erase(trace: Traces, unit: str) -> None:
    """Take a user's rows out of a run directory, and what the gate wrote about held-out rows, which quotes them.

    The run cannot be continued afterwards: its rows are no longer those it began with. Safe to repeat. Raises
    `RunConflict` if the run is going on.
    """
    with (trace.run_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunConflict(f"a process is running in {trace.run_dir}", "wait for it, or end it") from error
        if trace.rows["held_out"] or trace.rows["test"]:
            shutil.rmtree(trace.run_dir / "gate", ignore_errors=True)
        for side in _SIDES:
            kept, gone = _parted(trace.run_dir, side, unit)
            if gone:
                _replace(trace.run_dir / "data" / f"{side}.jsonl", "".join(kept))


def _parted(run_dir: Path, side: str, unit: str) -> tuple[list[str], list[str]]:
    """The lines of a side's file: of others, and of the user."""
    path = run_dir / "data" / f"{side}.jsonl"
    kept: list[str] = []
    gone: list[str] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                (gone if unit in line and _unit(line) == unit else kept).append(line)
    return kept, gone


def _unit(line: str) -> Any:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row.get("unit") if isinstance(row, dict) else None


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
