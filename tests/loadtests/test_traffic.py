"""The load generator as a whole: real processes against the mock upstream, for a second or two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from loadtests import crew, report
from loadtests.arrivals import poisson
from loadtests.asks import Address, chat
from loadtests.installation import Installation
from loadtests.samples import Problem
from loadtests.scenarios import steady
from loadtests.stage import Knobs, Stage
from loadtests.traffic import Traffic


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def mock() -> Iterator[Address]:
    command = [sys.executable, "-m", "loadtests.mock", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Address.parse(process.stdout.readline().strip())
        process.terminate()


@pytest.mark.long
def test_steady_runs_from_end_to_end(mock: Address) -> None:
    knobs = Knobs(seconds=2, rate=100, clients=2, key="any", model="base")
    outcome = steady.run(Stage(Installation(mock, ""), knobs, quiet))
    everything = outcome.rows[-1]
    assert [claim.held for claim in outcome.claims] == [True]
    assert {row.group for row in outcome.rows} == {"unary", "stream", "all"}
    assert outcome.run.requests == len(poisson(np.random.default_rng(knobs.seed), rate=100, seconds=2))
    assert everything.failed == 0
    stream = next(row for row in outcome.rows if row.group == "stream")
    assert 8 < stream.itl[0] < 50 and 250 < stream.e2e[0] < 2000
    text = report.markdown("steady", steady.ABOUT, knobs, outcome)
    assert "no requests failed: holds (none)" in text
    assert "any" not in str(report.told(knobs, outcome)["knobs"])


def test_a_closed_loop_keeps_its_connections_busy(mock: Address) -> None:
    asks = (chat("base"), chat("base", stream=True))
    plan = Traffic(mock, asks, np.array([0, 1], dtype=np.int32), seconds=0.5, connections=4)
    samples, _ = crew.run([plan], say=quiet)
    assert len(samples) > 100
    assert samples.problems() == {}
    assert set(samples["tokens"][samples["ask"] == 1]) == {50.0}


def test_what_nobody_answers_is_counted_and_ends() -> None:
    nobody = Address("127.0.0.1", 9)
    times = np.array([0.0, 0.01, 0.02])
    plan = Traffic(nobody, (chat("base"),), np.zeros(3, dtype=np.int32), times, timeout=1)
    with pytest.raises(crew.CrewFailed):  # nothing to warm up: said before the clock starts
        crew.run([plan], say=quiet)


def test_requests_that_wait_for_a_connection_are_late_and_say_so(mock: Address) -> None:
    """One connection, ten answers of 0.1 s at once: the last has waited for nine others."""
    ask = chat("base", stream=True, wish="tokens=2 itl=0.1")
    plan = Traffic(mock, (ask,), np.zeros(10, dtype=np.int32), np.zeros(10), connections=1)
    samples, _ = crew.run([plan], say=quiet)
    took = np.sort(samples["end"] - samples["intended"])
    assert took[0] < 0.3 and took[-1] > 0.95
    assert (samples["problem"] == Problem.NONE).all()


def test_a_reader_that_never_reads_gives_up_and_is_no_failure(mock: Address) -> None:
    ask = chat("base", stream=True, wish="tokens=50 itl=0.02", reads="never", held=0.3)
    slow = chat("base", stream=True, wish="tokens=3 itl=0.02", reads="slow")
    plan = Traffic(mock, (ask, slow), np.array([0, 1], dtype=np.int32), np.zeros(2))
    samples, _ = crew.run([plan], say=quiet)
    assert sorted(samples["problem"].tolist()) == [Problem.NONE, Problem.GAVE_UP]
    assert samples.problems() == {}
