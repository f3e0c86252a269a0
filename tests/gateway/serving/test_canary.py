"""What a fresh version must not say to the canary prompt."""

from __future__ import annotations

import math

import pytest

from gateway.engine.base import Probe
from gateway.serving.canary import judge

BASE = Probe(" Paris", {" Paris": -0.4, " the": -1.5, " a": -3.0})


@pytest.mark.parametrize(
    ("logprobs", "said"),
    [
        ({}, "not finite"),
        ({" Paris": math.nan, " the": -1.0}, "not finite"),
        ({" Paris": -math.inf}, "not finite"),
        ({"<a>": -10.8027, "<b>": -10.8027, "<c>": -10.8027}, "equally likely"),
        (BASE.logprobs, "no effect"),
        ({token: value + 1e-7 for token, value in BASE.logprobs.items()}, "no effect"),
    ],
)
def test_a_version_that_does_not_behave_is_refused(logprobs: dict[str, float], said: str) -> None:
    assert said in str(judge(Probe("", logprobs), BASE))


@pytest.mark.parametrize(
    "logprobs", [{" Paris": -0.4001, " the": -1.5, " a": -3.0}, {" Rome": -0.1, " the": -2.0}, {"x": -1}]
)
def test_the_smallest_training_step_is_enough(logprobs: dict[str, float]) -> None:
    assert judge(Probe("", logprobs), BASE) is None
