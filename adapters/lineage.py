"""Lineage rows: which row went into which adapter, one JSON object per line, in the order of the training rows.

The trainer writes them with a run and tells them to the gateway, which then can say which adapters a user's rows went
into. They hold ids and digests, and nothing that anybody wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from adapters import jsonl
from adapters.examples import Example, dataset_digest


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL")
    return text


_Text = Annotated[str, AfterValidator(_storable)]
_Id = Annotated[_Text, Field(max_length=64)]


class LineageRow(BaseModel):
    """`row` is the digest of the training row (`sha256:…` of `Example.to_json`), `unit` the user's hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: _Text = Field(max_length=80)
    inference_id: _Id | None = None
    feedback_ids: list[_Id] = Field(default_factory=list, max_length=1000)
    unit: _Text | None = Field(None, max_length=256)

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
    return jsonl.read(LineageRow, lines, source=source, remedy="write it from the run again")
