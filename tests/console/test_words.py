"""Numbers as people read them, plots as data, and the files that are shipped."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.console import words
from gateway.console.plots import MOST_POINTS, Line, Plot
from gateway.console.words import MINUS, NOTHING, SHARE


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.3124, SHARE, False, "31.2 %"),
        (0.018, SHARE, True, "+1.8 pp"),
        (-0.004, SHARE, True, f"{MINUS}0.40 pp"),
        (412.3, "ms", False, "412 ms"),
        (12_400.0, "tokens", True, "+12,400 tokens"),
        (0.0, "ms", True, "0 ms"),
        (1.8e-16, "tokens", True, "0 tokens"),
        (-1.8e-16, SHARE, True, "0.00 pp"),
        (float("nan"), "ms", False, NOTHING),
        (None, "ms", False, NOTHING),
    ],
)
def test_a_value_carries_its_unit_and_a_difference_its_sign(value: float, unit: str, signed: bool, text: str) -> None:
    assert words.measured(value, unit, signed=signed) == text


def test_an_interval_names_its_unit_once() -> None:
    assert words.interval(-0.004, 0.031, SHARE) == f"{MINUS}0.40 to +3.1 pp"
    assert words.interval(1.5, 20, "ms") == "+1.50 to +20 ms"
    assert words.interval(None, 1.0) == NOTHING


def test_chances_durations_and_counts() -> None:
    assert [words.chance(p) for p in (0.0004, 0.0312, 1.0, None)] == ["< 0.001", "0.031", "1.000", NOTHING]
    assert [words.span(timedelta(seconds=s)) for s in (5, 200, 7300, 200_000)] == ["5 s", "3 min", "2 h", "2 d"]
    assert [words.plural(n, "unit") for n in (1, 2400)] == ["1 unit", "2,400 units"]


def test_a_plot_of_shares_is_in_percent_and_its_table_says_the_same() -> None:
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    x = [begin + timedelta(minutes=n) for n in range(3 * MOST_POINTS)]
    line = Line("tuned", [0.1] * len(x), [0.05] * len(x), [0.15] * len(x))
    plot = Plot("p", "thumbs", x, [line], metric_unit=SHARE, signed=True)
    spec = plot.spec
    assert len(spec["x"]) <= MOST_POINTS and spec["x"][-1] == x[-1].timestamp(), "the newest is always there"
    assert spec["lines"][0]["mid"][-1] == pytest.approx(10) and plot.unit == "percentage points"
    assert plot.rows[0] == ["2026-11-01 19:59", "+10.0 pp (+5.0 to +15.0 pp)"]
    assert "tuned +10.0 pp" in plot.summary
    assert Plot("p", "empty", [], []).summary == "empty: no data yet"


def test_what_is_vendored_is_what_was_published() -> None:
    static = Path(words.__file__).parent / "static"
    named = re.findall(r"^(\S+) .*\n\s+([0-9a-f]{64})$", (static / "versions.txt").read_text(), re.MULTILINE)
    assert len(named) == 3
    for name, digest in named:
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == digest, name


def test_a_share_of_many_times_the_whole_is_written_out() -> None:
    assert [words.percent(one) for one in (0.05, 1.0, 9.99, 12.345)] == ["5 %", "100 %", "999 %", "1,234 %"]
