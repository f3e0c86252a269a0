"""Lineage rows: which row went into which adapter, one JSON object per line, in the order of the training rows.

The trainer writes them with a run and tells them to the gateway, which then can say which adapters a user's rows went
into. They hold ids and digests, and nothing that anybody wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters import strictjson
from adapters.errors import InvalidExample
from adapters.examples import Example, dataset_digest

_Id = Annotated[str, Field(max_length=64)]


class LineageRow(BaseModel):
    """`row` is the digest of the training row (`sha256:…` of `Example.to_json`), `unit` the user's hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str = Field(max_length=80)
    inference_id: _Id | None = None
    feedback_ids: list[_Id] = Field(default_factory=list, max_length=1000)
    unit: str | None = Field(None, max_length=256)

    @classmethod
    def of(cls, example: Example) -> LineageRow:
        return cls(
            row=dataset_digest([example]),
            inference_id=example.inference_id,
            feedback_ids=example.feedback_ids,
            unit=example.unit,
        )

    def to_json(self) -> str:
        """The row as one line without its end."""
        return self.model_dump_json(exclude_defaults=True, ensure_ascii=True)


def read_lineage(lines: Iterable[str | bytes], *, source: str = "lineage") -> Iterator[LineageRow]:
    """Read rows from lines; blank ones are skipped. Raises `InvalidExample` as `source:line: what is wrong; …`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = line if isinstance(line, str) else line.decode("utf-8")
            strictjson.parse(text)
            row = LineageRow.model_validate_json(text, strict=True)
            if "\\u0000" in text:
                raise ValueError("it holds a NUL")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(part) for part in first["loc"])[:80]
            raise InvalidExample(f"{source}:{number}: {key}: {first['msg']}; write it from the run again.") from None
        except ValueError as error:
            raise InvalidExample(f"{source}:{number}: {error}; write it from the run again.") from None
        yield row
