"""A deliberately worse adapter on the real engine: canaried, found out by its users, and gone with nobody's help."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loadtests import rollback
from tests.e2e.conftest import RealEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
PERIOD = 2.0


def test_a_worse_adapter_is_rolled_back_within_a_period_of_the_look_that_finds_it(
    real_engine: RealEngine, tmp_path: Path
) -> None:
    home, run = tmp_path / "gateway", rollback.Run(PERIOD, coverage=0.2, ref="")
    engine = ("--engine", "url", "--engine-url", real_engine.url)
    with rollback.installed(home, real_engine.model, PERIOD, engine) as gateway:
        story = rollback.play(gateway, home, real_engine.model, run, at_once=16, seconds=300, say=lambda _: None)
        asyncio.run(story)
    assert rollback.failures(run) == []
    assert {one.readable for one in run.on_adapter} == {False} and len(run.on_adapter) >= rollback.BURN_IN
    figures = run.figures()
    assert figures["breach_to_commit"] < PERIOD * 1000 and figures["requests_after_the_commit"] > 10
    assert "readable" in run.audit["detail"]["why"] and run.audit["detail"]["figures"]["guardrail"] == "readable"
