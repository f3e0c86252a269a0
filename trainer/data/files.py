"""Files of rows: .jsonl (also .gz, .zst), .csv and .parquet, read as a stream. It knows no shape of rows.

A row that cannot be read is given as a `BadRow`, and the reading goes on with the next one where there is a next one to
find; the caller decides whether one bad row is too many.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from adapters import strictjson
from trainer.data.turns import BadRow
from trainer.errors import InvalidData

ENDINGS = (".jsonl", ".csv", ".parquet", ".jsonl.gz", ".jsonl.zst")
_LONGEST = 64 * 1024 * 1024
"""Bytes of a line or a field: beyond it a file is not what it is taken for, and would fill the memory."""
_TOO_MANY = "\0"
"""The key of what no column is there for."""
_UNNAMED = "(unnamed)"
"""The column of row numbers that pandas writes, and what a comma at the end of each line makes."""
_CHATS = frozenset({"messages", "conversations", "chosen", "rejected", "prompt", "completion", "tools"})

Raw = dict[str, Any] | BadRow
Opened = Iterator[tuple[int, Raw]]


def rows_of(path: Path, at: Callable[[int], None] | None = None) -> Opened:
    """(line or row number from 1, row) of a file. `at` is told now and then how many bytes of the file are read.

    Raises `InvalidData` where the whole file cannot be read.
    """
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise InvalidData(f"{path} is of no known kind", _other(path))
    reader = {".csv": _csv_rows, ".parquet": _parquet_rows}.get(ending, _jsonl_rows)
    try:
        with path.open("rb") as file:
            for count, found in enumerate(reader(path, file)):
                if at is not None and count % 1024 == 0:
                    at(file.tell())
                yield found
    except OSError as error:
        raise InvalidData(f"{path} cannot be read ({error.strerror or error})", "name an existing file") from error
    except EOFError as error:
        raise InvalidData(f"{path} ends in the middle of its compressed data", "copy it again") from error


def _other(path: Path) -> str:
    if path.suffix.lower() == ".json":
        return f"make it JSON Lines: jq -c '.[]' {path.name} > {path.stem}.jsonl"
    return f"name a file that ends in {', '.join(ENDINGS)}"


def _jsonl_rows(path: Path, file: BinaryIO) -> Opened:
    lines: Any = file
    if path.suffix.lower() == ".gz":
        lines = gzip.open(file)  # noqa: SIM115  # it ends with the file, which the caller closes
    elif path.suffix.lower() == ".zst":
        import pyarrow  # only for this

        lines = io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))
    number = 0
    while line := lines.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST:
            raise InvalidData(f"{path}:{number}: the line is longer than 64 MiB", "write one row on each line")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, _parsed(line, number)


def _parsed(line: bytes, number: int) -> Raw:
    try:
        row = strictjson.parse(line)
    except ValueError as error:
        hint = "; a JSON array? write one row on each line" if number == 1 and line.lstrip()[:1] == b"[" else ""
        return BadRow(f"{error}{hint}")
    return row if isinstance(row, dict) else BadRow("it is not an object")


def _csv_rows(path: Path, file: BinaryIO) -> Opened:
    csv.field_size_limit(_LONGEST)
    reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), restkey=_TOO_MANY, strict=True)
    begins = 2  # a row may go on over lines; what people look for is where it begins
    try:
        names = [name or _UNNAMED for name in reader.fieldnames or ()]
        if twice := next((name for name, count in Counter(names).items() if count > 1 and name != _UNNAMED), None):
            raise InvalidData(f"{path}:1: two columns are named {twice[:80]!r}", "rename or remove one of them")
        reader.fieldnames = names
        for row in reader:
            if _TOO_MANY in row:
                yield begins, BadRow("more fields than the header names; quote the text")
            else:
                yield begins, _decoded({key: value for key, value in row.items() if value is not None})
            begins = reader.line_num + 1
    except UnicodeDecodeError:
        yield begins, BadRow("here or soon after it is not UTF-8 text, and the rest was not read; save it as UTF-8")
    except (csv.Error, ValueError) as error:
        yield begins, BadRow(f"{error}, and the rest was not read; quote texts as CSV wants it")


def _decoded(row: dict[str, Any]) -> Raw:
    """CSV has only text: a list of messages is JSON in it."""
    for key in _CHATS & row.keys():
        text = row[key].strip()
        must = key in ("messages", "conversations")
        if must or (text.startswith("[{") and '"role"' in text):
            try:
                row[key] = strictjson.parse(text)
            except ValueError as error:
                if must:
                    return BadRow(f"{key}: {error}")
    return row


def _parquet_rows(path: Path, file: BinaryIO) -> Opened:
    import pyarrow  # a second to import, and most runs read no Parquet
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _without_nulls(row)
    except pyarrow.ArrowException as error:
        raise InvalidData(f"{path} is not a Parquet file that can be read", "write it again with pyarrow") from error


def _without_nulls(value: Any) -> Any:
    """Parquet gives every struct every key: a turn that calls no tool has tool_calls, of None."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
