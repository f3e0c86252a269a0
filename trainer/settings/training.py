"""The adapter's form and the optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.settings.base import Settings


class LoraSettings(Settings):
    """The adapter's form. Ranks are those an engine can be started with.

    What the LoRA adds is scaled by alpha / √rank (`rslora`), else by alpha / rank. `alpha` is 8 unless set, which is a
    scale of 2 at rank 16, and without rsLoRA twice the rank: the scale that the learning rates here are meant for.
    """

    rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    alpha: float | None = Field(None, gt=0)
    rslora: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = "all-linear"

    @property
    def scale(self) -> float:
        """LoRA's alpha."""
        if self.alpha is not None:
            return self.alpha
        return 8.0 if self.rslora else 2.0 * self.rank


class TrainingSettings(Settings):
    """The optimisation. LoRA wants about ten times full fine-tuning's learning rate."""

    epochs: float = Field(3.0, gt=0)
    start_from: str | None = Field(
        None,
        description="a version (tenant/name@version) or directory to go on from; the reference of dpo and kto",
    )
    max_steps: int | None = Field(None, ge=1, description="ends the run earlier, or later, than `epochs` would")
    batch_size: int = Field(8, ge=1, description="rows of one step on one device, before accumulation")
    accumulate: int = Field(1, ge=1, description="batches of one step")
    learning_rate: float | None = Field(None, gt=0, le=1, description="2e-4 for sft, 2e-5 for dpo and kto unless set")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="the gradient's norm")
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: what is faster here, measured")
    quantize: Literal["none", "nf4", "int8"] = Field("none", description="the frozen base in 4 or 8 bits (QLoRA)")
    checkpointing: bool = Field(False, description="recompute activations: less memory, a third slower")
    patience: int | None = Field(None, ge=1, description="stop after so many evaluations without a lower held-out loss")
    evaluate_every: int | None = Field(None, ge=1, description="steps between held-out losses; an epoch if unset")
    threads: int | None = Field(None, ge=1, description="on a CPU; all that this process may use if unset")
    save_seconds: float = Field(30.0, ge=0, description="between checkpoints")


class PreferenceSettings(Settings):
    """DPO and KTO."""

    beta: float = Field(0.1, gt=0, description="reward for a nat of log-probability; higher: closer to the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="dpo: share of pairs believed to be the wrong way round"
    )
    desirable_weight: float | None = Field(
        None, gt=0, description="kto: unless set, such that both labels weigh the same"
    )
    undesirable_weight: float | None = Field(None, gt=0)
    reference: Literal["precomputed", "live"] = Field(
        "precomputed", description="its log-probabilities, once or each step (live: of the base only)"
    )
