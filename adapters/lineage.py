"""Lineage rows: which row went into which adapter, one JSON object per line, in the order of the training rows.

The trainer writes them with a run and tells them to the gateway, which then can say which adapters a user's rows went
into. They hold ids and digests, and nothing that anybody wrote.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from adapters.examples import Example, dataset_digest


class LineageRow(BaseModel):
    """`row` is the digest of the training row (`sha256:…` of `Example.to_json`), `unit` the user's hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str = Field(max_length=80)
    inference_id: str | None = Field(None, max_length=64)
    feedback_ids: list[str] = Field(default_factory=list, max_length=1000)
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
