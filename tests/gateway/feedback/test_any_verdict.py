"""Whatever the evidence, there is a verdict: it does not fail, nor depend on how things are written down."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.experiment import Allocation, Evidence, Guardrail, Plan, Sums
from gateway.feedback.verdict import judge
from gateway.findings import Role, Status, Verdict
from tests.gateway.feedback.truth.judged import METRICS, experiment, sums

pytestmark = pytest.mark.long

NAMES = ("control", "one", "two")
PLANS = st.builds(
    Plan,
    primary=st.sampled_from((None, *METRICS)),
    secondaries=st.lists(st.sampled_from(tuple(METRICS)), max_size=2, unique=True).map(tuple),
    guardrails=st.lists(
        st.builds(Guardrail, st.sampled_from(tuple(METRICS)), st.floats(0, 2), st.booleans()), max_size=2
    ).map(tuple),
    burn_in=st.integers(0, 5),
    planned_units=st.integers(1, 10_000),
    cuped_days=st.sampled_from((0, 14)),
    allocation=st.sampled_from(Allocation),
)
UNITS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(-3, 3), st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=8
)


@st.composite
def seen(draw: Any, *, parts: bool = True) -> Evidence:
    """Of up to two epochs; any arm may lack anything, and say of a boolean what no boolean can be."""
    keys = [(epoch, name) for epoch in range(2) for name in NAMES]
    exposed = {key: draw(st.integers(0, 20)) for key in draw(st.sets(st.sampled_from(keys)))}
    found: dict[tuple[str, int, str], Sums] = {}
    for metric in draw(st.sets(st.sampled_from(tuple(METRICS)))):
        for epoch, name in draw(st.sets(st.sampled_from(keys))):
            rows = draw(UNITS)
            found[metric, epoch, name] = sums(*(list(column) for column in zip(*rows, strict=True)))
    segments = {"part": draw(seen(parts=False))} if parts else {}
    return Evidence(exposed, found, segments, draw(st.integers(0, 3)), draw(st.none() | st.floats(0, 100)))


@settings(max_examples=60 * settings().max_examples // 100, deadline=None)  # the first one imports scipy
@given(PLANS, seen(), st.sampled_from([((1, 1, 1),), ((9, 1, 0), (1, 1, 1)), ((0, 0, 1),)]))
def test_there_is_always_a_verdict_and_it_is_json(
    plan: Plan, evidence: Evidence, weights: tuple[tuple[float, ...], ...]
):
    verdict = judge(experiment(plan, *NAMES[1:], weights=weights), METRICS, evidence)
    json.dumps(asdict(verdict), allow_nan=False)
    assert verdict.sentence.endswith(".") and all(reason.endswith(".") for reason in verdict.reasons)
    assert "nan" not in verdict.sentence and "inf " not in verdict.sentence
    for figure in (*verdict.figures, *(one for part in verdict.segments for one in part.figures)):
        if not figure.past_burn_in:
            assert figure.status is Status.UNCLEAR
        if figure.low is not None and figure.high is not None and figure.difference is not None:
            assert figure.low - 1e-9 <= figure.difference <= figure.high + 1e-9
    assert verdict.further_units is None or verdict.further_units >= 0
    assert verdict.further_days is None or math.isfinite(verdict.further_days)


@settings(max_examples=60 * settings().max_examples // 100, deadline=None)  # the first one imports scipy
@given(seen(parts=False))
def test_less_is_better_is_more_of_the_opposite_is_better(evidence: Evidence):
    """Latency as it is, and its negative as a metric of which more is better."""
    plan = Plan(
        primary="latency", guardrails=(Guardrail("latency", 0.5), Guardrail("latency", 0.1, relative=True)), burn_in=2
    )
    turned = {key: _negative(one) for key, one in evidence.sums.items()}
    up = {"latency": replace(METRICS["latency"], optimize="max")}
    running = experiment(plan, *NAMES[1:])
    plain = judge(running, METRICS, evidence)
    mirrored = judge(running, up, replace(evidence, sums=turned))
    assert mirrored.word is plain.word
    for one, other in zip(plain.figures, mirrored.figures, strict=True):
        assert other.status is one.status and other.p == pytest.approx(one.p)
        assert _minus(other.high) == pytest.approx(one.low) and _minus(other.limit) == pytest.approx(one.limit)


@settings(max_examples=60 * settings().max_examples // 100, deadline=None)  # the first one imports scipy
@given(seen(parts=False))
def test_the_order_of_epochs_and_of_candidates_does_not_matter(evidence: Evidence):
    plan = Plan(primary="stars", secondaries=("latency",), guardrails=(Guardrail("error_rate", 0.1),), burn_in=2)
    turned = Evidence(
        {(1 - epoch, name): units for (epoch, name), units in evidence.exposed.items()},
        {(metric, 1 - epoch, name): one for (metric, epoch, name), one in evidence.sums.items()},
    )
    equal = ((1, 1, 1), (1, 1, 1))
    plain = judge(experiment(plan, "one", "two", weights=equal), METRICS, evidence)
    other = judge(experiment(plan, "two", "one", weights=equal), METRICS, turned)
    assert other.word is plain.word
    assert _by_name(other) == {key: pytest.approx(value) for key, value in _by_name(plain).items()}


def _by_name(verdict: Verdict) -> dict[tuple[str, Role, str], tuple[Any, ...]]:
    return {(f.metric, f.role, f.variant): (f.difference, f.low, f.high, f.p) for f in verdict.figures}


def _negative(one: Sums) -> Sums:
    return replace(one, s=-one.s, x=-one.x, ns=-one.ns, nx=-one.nx, sm=-one.sm, mx=-one.mx)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
