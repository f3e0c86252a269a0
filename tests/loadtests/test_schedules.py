"""Arrivals and figures: what is drawn has the law it names, and what is merged is neither lost nor rounded."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import arrivals
from loadtests.alarm import Alarm
from loadtests.meter import bucket_quantile, histogram
from loadtests.samples import Problem, Recording, Samples, row

RANDOM = np.random.default_rng(7)


def test_poisson_arrivals_have_their_rate_and_their_scatter() -> None:
    times = arrivals.poisson(RANDOM, rate=500, seconds=200)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(100_000, abs=4.5 * np.sqrt(100_000))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)  # the mark of the exponential
    assert (gaps >= 0).all() and times[-1] < 200
    counts = np.histogram(times, bins=200)[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.4)


def test_zipf_prefers_the_first_by_its_exponent() -> None:
    drawn = np.bincount(arrivals.zipf(RANDOM, kinds=50, count=200_000, exponent=1.0), minlength=50)
    assert drawn[0] / drawn[9] == pytest.approx(10, rel=0.15)


def test_bursts_come_at_one_moment() -> None:
    times = arrivals.bursts(RANDOM, size=30, every=1.0, seconds=3.5, base=10)
    assert [(times == moment).sum() for moment in (1.0, 2.0, 3.0)] == [30, 30, 30]
    assert (np.diff(times) >= 0).all()


@given(st.integers(0, 200), st.integers(1, 7))
def test_every_arrival_is_dealt_to_one_process(count: int, hands: int) -> None:
    dealt = arrivals.dealt(count, hands)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def one(process: int, takes: list[float], *, served: list[str]) -> Samples:
    recording = Recording()
    recording.start = 100.0 * process
    for place, seconds in enumerate(takes):
        at = recording.start + place
        name = recording.name(served[place % len(served)]) if served else -1
        recording.row(0, at, at, at + seconds / 2, at + seconds, at + seconds, 3, 200, Problem.NONE, name)
        recording.gaps["gap_at"].append(at + seconds)
        recording.gaps["gap"].append(seconds / 4)
        recording.gaps["gap_ask"].append(0)
    return recording.samples()


takes = st.lists(st.floats(0.001, 10), max_size=20)


@given(takes, takes, st.lists(st.sampled_from("abc"), max_size=3), st.lists(st.sampled_from("bcd"), max_size=3))
def test_merged_samples_are_the_samples_of_all(
    first: list[float], second: list[float], names: list[str], others: list[str]
) -> None:
    parts = [one(1, first, served=names), one(2, second, served=others)]
    merged = Samples.merged(parts)
    assert len(merged) == len(first) + len(second)
    assert sorted((merged["end"] - merged["intended"]).tolist()) == pytest.approx(sorted(first + second))
    told = [merged.names[int(n)] if n >= 0 else None for n in merged["served"]]
    wanted = [names[i % len(names)] if names else None for i in range(len(first))]
    wanted += [others[i % len(others)] if others else None for i in range(len(second))]
    assert told == wanted


def test_latency_counts_from_the_intended_start_and_failures_do_not_flatter_it() -> None:
    recording = Recording()
    for sent, problem in ((0.0, Problem.NONE), (5.0, Problem.NONE), (0.0, Problem.TIMEOUT)):
        recording.row(0, 0.0, sent, sent + 0.01, sent + 0.02, sent + 0.02, 2, 200, problem, -1)
    made = row(recording.samples(), "all", seconds=1.0)
    assert made.e2e[1] == pytest.approx(5020, rel=0.02)
    assert (made.done, made.failed, made.problems, made.goodput) == (2, 1, {"timeout": 1}, 1)


async def test_an_alarm_rings_at_its_moment() -> None:
    rung: list[float] = []
    event = asyncio.Event()

    def ring() -> None:
        rung.append(time.monotonic())
        event.set()

    alarm = Alarm(asyncio.get_running_loop(), ring)
    try:
        wanted = time.monotonic() + 0.0503
        alarm.set(wanted)
        async with asyncio.timeout(5):
            await event.wait()
        assert rung[0] >= wanted
    finally:
        alarm.close()


def test_a_prometheus_histogram_gives_its_quantiles() -> None:
    text = "\n".join(
        f'tuneloop_loop_lag_seconds_bucket{{le="{bound}"}} {count}'
        for bound, count in (("0.001", 50), ("0.01", 90), ("0.1", 100), ("+Inf", 100))
    )
    buckets = histogram(text, "loop_lag")
    assert bucket_quantile(buckets, 0.5) == pytest.approx(0.001)
    assert bucket_quantile(buckets, 0.95) == pytest.approx(0.055)
    assert histogram(text, "other") == {}
