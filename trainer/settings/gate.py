"""What a candidate is measured on, and what decides whether it may be served."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from trainer.settings.base import Settings, address, bearer

Name = Literal[
    "loss",
    "exact_match",
    "token_f1",
    "rouge_l",
    "bleu",
    "chrf",
    "json_valid",
    "accuracy",
    "macro_f1",
    "preference_accuracy",
    "thumbs_auc",
]
"""The judge's opinion is none of these: a judge is never what decides."""


class Policy(Settings):
    """A candidate must beat the incumbent on `figure` by `by` with `confidence`, and lose nothing that matters.

    The limits on drift compare its answers with the incumbent's on the same rows; null switches a limit off.
    """

    figure: Name | Literal["auto"] = Field(
        "auto",
        description="auto: exact_match of labels and where most rows are JSON, preference_accuracy of pairs, else loss",
    )
    by: float = Field(
        0.0, description="more than this, in the figure's own unit; below 0: it may be that much worse, but not more"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="that the difference is larger, one-sided, paired")
    may_lose: float | None = Field(
        0.1,
        ge=0,
        description="of the regression set's mean token F1 against the base; an adapter for one task loses it",
    )
    longest: float | None = Field(
        1.5, gt=0, description="mean length of its answers, over the incumbent's or the references', whichever is more"
    )
    refusals: float | None = Field(0.05, ge=0, le=1, description="share of refusals, more than the incumbent's")
    repetition: float | None = Field(0.05, ge=0, le=1, description="share of repetitive answers, more than its")


class Judge(Settings):
    """Any OpenAI-compatible chat endpoint that compares two answers. Its key is the variable JUDGE_KEY."""

    url: str = Field(description="up to /v1")
    model: str
    key: SecretStr | None = None
    rows: int = Field(50, ge=1, description="held-out rows that it is asked about, each in both orders")

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        return address(value)

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        return bearer(value)


class GateSettings(Settings):
    """The gate, which needs a gateway: base, incumbent and candidate answer the held-out rows in the serving engine."""

    incumbent: str | None = Field(
        None,
        description="the version to beat; unset: what the alias serves now (data.gateway.alias, or publish.name), "
        "else the base",
    )
    rows: int = Field(200, ge=1, description="held-out rows at most, chosen by a sticky hash")
    max_tokens: int = Field(128, ge=1, description="of an answer")
    at_once: int = Field(8, ge=1, description="requests under way")
    labels: Literal["auto", "on", "off"] = Field("auto", description="whether completions are labels of a small set")
    regression: Path | None = Field(None, description="rows of prompt and completion; the shipped ones if unset")
    parity_rows: int = Field(8, ge=0, description="rows on which PEFT and the engine must agree; 0: not checked")
    parity_nats: float = Field(0.15, gt=0, description="largest mean difference of a token's log-probability")
    policy: Policy = Policy()
    judge: Judge | None = None
    seed: int = Field(0, ge=0, description="of the bootstrap")
