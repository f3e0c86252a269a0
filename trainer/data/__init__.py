"""A run's rows: read from every source, judged for supervised training, split for good. Imports without torch.

Nothing vanishes silently: each row that is not trained on is counted under its reason. The split is sticky: a unit (or,
without one, a prompt) that is held out once is held out in every later round, whatever else is added.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import strictjson
from adapters.examples import Example
from trainer.errors import InvalidData
from trainer.data.rows import SHAPES, BadRow, example_of
from trainer.settings.data import DataSettings

BAD, TWICE, LEAKED = "judged bad", "exact duplicates", "also held out"
LEFT_OUT = frozenset({BAD, TWICE, LEAKED})
_MAX_FIELD = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Dataset:
    """`counts` says how many rows came from where, and how many are not trained on, by reason."""

    train: list[Example]
    held_out: list[Example]
    counts: dict[str, int] = field(default_factory=dict)


def read(settings: DataSettings, exported: Iterable[str] = ()) -> Dataset:
    """All rows, split. `exported` are the lines of a gateway's export. Raises `InvalidData` with file and line."""
    counts: Counter[str] = Counter()
    rows: list[Example] = []
    for path in settings.train:
        found = list(read_file(path, system=settings.system))
        counts[f"from {path.name}"] += len(found)
        rows += found
    live = list(_examples(_json_lines(exported), "the gateway's export", settings.system))
    if live:
        counts["from the gateway"] = len(live)
    supervised = list(_supervised(rows + live, counts))
    explicit = [row for path in settings.held_out for row in read_file(path, system=settings.system)]
    held_out = list(_supervised(explicit, Counter()))
    if settings.held_out:
        kept = {_prompt(row) for row in held_out}
        train = [row for row in supervised if _prompt(row) not in kept]
        counts[LEAKED] = len(supervised) - len(train)
    else:
        train = [row for row in supervised if not is_held_out(row, settings.held_out_share)]
        held_out = [row for row in supervised if is_held_out(row, settings.held_out_share)]
    if not train:
        raise InvalidData("there is no row to train on", f"add rows with a good answer; known shapes are {SHAPES}")
    return Dataset(train, held_out, {key: count for key, count in counts.items() if count})


def read_file(path: Path, *, system: str | None = None) -> Iterator[Example]:
    """The rows of a .jsonl, .csv or .parquet file, in order. Raises `InvalidData`."""
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidData(f"{path} is of no known kind", f"name a file that ends in {', '.join(readers)}")
    try:
        yield from _examples(reader(path), str(path), system)
    except OSError as error:
        raise InvalidData(f"{path} cannot be read ({error.strerror or error})", "name an existing file") from error
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path} is not UTF-8 text", "save it as UTF-8") from error


def is_held_out(example: Example, share: float) -> bool:
    """Whether the row's unit (or prompt) falls into the held-out share; depends on nothing else."""
    key = f"unit:{example.unit}" if example.unit is not None else f"prompt:{_prompt(example)}"
    return int.from_bytes(hashlib.sha256(f"holdout:{key}".encode()).digest()[:8]) < share * 2**64


def _supervised(rows: Iterable[Example], counts: Counter[str]) -> Iterator[Example]:
    """The rows whose completion is worth imitating, each once."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        key = (_prompt(row), row.completion)
        if row.kind == "label" and not row.label:
            counts[BAD] += 1
        elif key in seen:
            counts[TWICE] += 1
        else:
            seen.add(key)
            yield row


def _prompt(example: Example) -> str:
    return json.dumps(example.messages, ensure_ascii=False, sort_keys=True)


def _examples(rows: Iterable[tuple[int, Any]], source: str, system: str | None) -> Iterator[Example]:
    for number, row in rows:
        try:
            if isinstance(row, str):
                row = strictjson.parse(row)
            if not isinstance(row, dict):
                raise BadRow("it is not an object")
            yield example_of(row, system=system)
        except ValueError as error:  # BadRow is one, and so is what strictjson raises
            raise InvalidData(f"{source}:{number}: {error}", "correct this line, or remove it") from None


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("\ufeff") if number == 1 else line
        if text.strip():
            yield number, text


def _jsonl_rows(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from _json_lines(file)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_MAX_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", strict=True)
        begins = 2  # a row may go on over lines; what people look for is where it begins
        try:
            for row in reader:
                if "" in row:
                    raise InvalidData(f"{path}:{begins}: more fields than the header names", "quote the text")
                yield begins, {key: _csv_value(key, value) for key, value in row.items() if value is not None}
                begins = reader.line_num + 1
        except UnicodeDecodeError:
            raise
        except (csv.Error, ValueError) as error:
            raise InvalidData(f"{path}:{begins}: {error}", "quote texts as CSV wants it") from None


def _csv_value(key: str, value: str) -> Any:
    """CSV has only text: lists of messages are JSON in it, and a label is a word."""
    if key == "messages":
        return strictjson.parse(value)
    if key == "label":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
    return value


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow  # a second to import, and most runs read no Parquet
    import pyarrow.parquet

    try:
        with path.open("rb") as source, pyarrow.parquet.ParquetFile(source) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
    except pyarrow.ArrowException as error:
        raise InvalidData(f"{path} is not a Parquet file that can be read", "write it again with pyarrow") from error
