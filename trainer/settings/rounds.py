"""How live feedback becomes rows, when it is enough for a round, and what is mixed in so that nothing is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from trainer.settings.base import Settings

_Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_End = Annotated[float, Field(allow_inf_nan=False)]


class FeedbackSettings(Settings):
    """The feedback compiler. Weights: clip(target share / propensity), normalised to a mean of 1, capped per user."""

    shares: dict[str, _Share] | None = Field(
        None, description="target share of each variant; equal ones if unset, none for a variant that is not named"
    )
    largest_weight: float = Field(10.0, ge=1, description="of target share over propensity, before normalising")
    user_share: float = Field(0.05, gt=0, le=1, description="the most of all weight that one user's rows may have")
    user_rows: int = Field(50, ge=1, description="feedbacks of one user on one metric that count; the latest do")
    scales: dict[str, tuple[_End, _End]] = Field(
        default_factory=dict,
        description="least and best rating of a metric, cut in three: bad, not used, good; what is seen if unset",
    )
    distrust: float | None = Field(
        0.5, gt=0, lt=1, description="thumbs of a user against most others' in more than this share; null: nobody's"
    )

    @field_validator("scales")
    @classmethod
    def _have_two_ends(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for metric, (low, high) in value.items():
            if not low < high:
                raise ValueError(f"the scale of {metric} does not go up; write it as [1, 5]")
        return value


class RoundSettings(Settings):
    """What is enough for a round, in rows as their weights count them; trainer/feedback/plan.py has the sources."""

    sft_rows: int = Field(50, ge=1, description="corrections, demonstrations and liked answers")
    dpo_pairs: int = Field(500, ge=1)
    kto_labels: int = Field(500, ge=2, description="thumbs and ratings, up and down together")
    kto_lesser: int = Field(50, ge=1, description="of the label there is less of")


class ReplaySettings(Settings):
    """Prompts of all kinds, answered by the base model itself and mixed into supervised rounds."""

    share: float = Field(0.0, ge=0, lt=1, description="of the trained rows; 0.2 to 0.25 keeps what the base could do")
    prompts: Path | None = Field(None, description="a .jsonl, .csv or .parquet file; the shipped general ones if unset")
    max_tokens: int = Field(128, ge=1, description="of the base's answers")
