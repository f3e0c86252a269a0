"""How live feedback becomes rows, and what is mixed in so that nothing else is forgotten."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trainer.settings.base import Settings


class FeedbackSettings(Settings):
    """The feedback compiler. Weights: clip(target share / propensity), normalised to a mean of 1, capped per user."""

    shares: dict[str, float] | None = Field(None, description="target share of each variant; equal ones if unset")
    largest_weight: float = Field(10.0, ge=1, description="of target share over propensity, before normalising")
    user_share: float = Field(0.05, gt=0, le=1, description="the most of all weight that one user's rows may have")
    user_rows: int = Field(50, ge=1, description="feedbacks of one user on one metric that count; the latest do")
    thirds: tuple[float, float] | None = Field(
        None, description="ratings up to the first are bad, from the second on good; thirds of the scale seen if unset"
    )


class ReplaySettings(Settings):
    """Prompts of all kinds, answered by the base model itself and mixed into supervised rounds."""

    share: float = Field(0.0, ge=0, lt=1, description="of the trained rows; 0.2 to 0.25 keeps what the base could do")
    prompts: Path | None = Field(None, description="a .jsonl, .csv or .parquet file; the shipped general ones if unset")
    max_tokens: int = Field(128, ge=1, description="of the base's answers")
