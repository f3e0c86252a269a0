"""Does a freshly loaded version behave? Two probes in, a sentence or nothing out.

An adapter whose tensor names match nothing loads with success and answers like the base model (vllm#55193), and one
with overflowing weights answers NaN, or, where a norm divides by infinity, finds all tokens equally likely: none of
them may meet a user.
"""

from __future__ import annotations

import math

from gateway.engine.base import Probe

SAME = 1e-6
"""Nats. Adding nothing to a computation leaves it exactly as it was; the smallest training step moves it by more."""


def judge(probe: Probe, base: Probe) -> str | None:
    """Why the version must not serve, or None."""
    if not probe.logprobs or not all(math.isfinite(value) for value in probe.logprobs.values()):
        return "Its log-probabilities on the canary prompt are not finite: its weights overflow. Train it again."
    if len(probe.logprobs) > 1 and max(probe.logprobs.values()) - min(probe.logprobs.values()) <= SAME:
        return "It finds all tokens equally likely on the canary prompt: its weights overflow. Train it again."
    if probe.logprobs.keys() == base.logprobs.keys() and all(
        abs(value - base.logprobs[token]) <= SAME for token, value in probe.logprobs.items()
    ):
        return (
            "It answers the canary prompt exactly as the base model does, so its weights have no effect: "
            "check that its target modules exist in the base model and that it was trained."
        )
    return None
