"""Where a run's rows come from, which of them are kept, and how they are split."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from trainer.settings.base import Settings


class GatewayExport(Settings):
    """The rows a gateway exports: what was asked of `alias`, and what was said of the answers (by `metric`)."""

    alias: str
    metric: str | None = None
    since: datetime | None = None


class DataSettings(Settings):
    """Where rows come from. Files are .jsonl (or .gz, .zst of it), .csv or .parquet; all sources are merged."""

    train: list[Path] = Field(default_factory=list)
    held_out: list[Path] = Field(default_factory=list, description="never trained on; replaces held_out_share")
    test: list[Path] = Field(default_factory=list, description="never trained on and not looked at before the gate")
    held_out_share: float = Field(0.1, ge=0, lt=0.9, description="of the units (or prompts), by a sticky hash")
    test_share: float = Field(0.0, ge=0, lt=0.9, description="of the same, for the gate; 0: it uses the held-out rows")
    gateway: GatewayExport | None = None
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our name: the files' name, such as {prompt: text, completion: category, unit: user_id};"
        " unit is whose row it is, and a user's rows are never split",
    )
    good_from: float | None = Field(None, description="labels that are numbers: from this one on they are good")
    system: str | None = Field(None, description="system prompt of rows that bring none")
    max_tokens: int = Field(1024, ge=8, description="prompt and completion together")
    overlong: Literal["drop", "cut"] = "drop"
    near_duplicates: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="rows at least this alike (Jaccard, of word 5-grams) count as one; null: exact ones only",
    )
    personal: Literal["mask", "count", "off"] = Field("mask", description="what to do with personal data that is found")
    personal_by: Literal["patterns", "presidio"] = Field("patterns", description="presidio: install the extra pii")

    @field_validator("train", "held_out", "test", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> DataSettings:
        if not self.train and self.gateway is None:
            raise ValueError("no rows to train on; give data.train a file, or data.gateway.alias an alias")
        if self.held_out_share + self.test_share >= 1:
            raise ValueError("held_out_share and test_share leave nothing to train on")
        return self
