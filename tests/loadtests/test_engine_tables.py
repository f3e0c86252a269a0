"""What the measurements on the real engine make of their figures."""

from __future__ import annotations

from loadtests.engine import pair, swap
from loadtests.engine.crowd import Crowd, Gaps, Stream


def test_the_gap_in_which_the_engine_stood_still_counts_though_it_began_before() -> None:
    crowd = Crowd([Stream([0.0, 1.0, 1.1, 1.2, 2.0, 2.1]), Stream([1.05, 1.15])], began=1.0)
    gaps = crowd.gaps(1.3, 1.9)
    assert [round(gap) for gap in gaps.inside] == [800]
    assert [round(gap) for gap in gaps.before] == [100, 100, 100]  # not the one from before the crowd had settled


def test_the_table_of_swaps_has_medians_the_worst_and_the_number_of_steps() -> None:
    phases = {"prepare": 200.0, "commit": 10.0, "acknowledge": 5.0, "total": 215.0}
    gaps = Gaps(inside=[100.0, 300.0], before=[100.0] * 5)
    found = [swap.Measured("promote", 8, 215.0, first, phases, gaps) for first in (400.0, 500.0, 900.0)]
    row = swap.table(found).splitlines()[2]
    assert row == "| 8 | promote | 215 | 500 (900) | 5.0 | 200 · 10 · 5 | 100 / 100 | 300 / 300 / 300 |"


def test_the_table_of_pairs_compares_each_pair_with_itself() -> None:
    def figures(speed: float, first: float) -> dict[str, object]:
        rest = {"median_tpot_ms": 10.0, "p99_itl_ms": 20.0}
        return {"output_throughput": speed, "ttfts": [first / 1000] * 2, **rest}

    shares, later = {"straight": 1.0, "through": 0.99}, {"straight": 0.0, "through": 3.0}
    found = [
        pair.Run(way, 1, number, kind, figures(speed * shares[way], 5000.0 / speed + later[way]))
        for number, speed in enumerate((50.0, 100.0))  # the machine changed its mind, for both ways alike
        for kind in ("closed", "open", "alone")
        for way in pair.WAYS
    ]
    *cells, open_loop, alone = pair.table(found).splitlines()[-1].strip("| ").split(" | ")
    assert cells == ["1", "the 2 pairs", "0.990 of it", "+0.0", "+0.0"]
    assert alone == "+3.0 (+3.0 to +3.0) of 4"
    assert open_loop.startswith("+3.0 (") and open_loop != alone, "its requests are no pairs"
