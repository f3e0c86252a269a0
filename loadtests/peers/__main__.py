"""`python -m loadtests.peers`: start everything, take turns, print the tables, keep them under `results/`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from loadtests import report
from loadtests.crew import CrewFailed, Say
from loadtests.descriptors import raise_limit
from loadtests.installation import LoadTestFailed, end_on_sigterm
from loadtests.peers import bench
from loadtests.peers.bench import KINDS, OPEN, UNARY_1, UNARY_32, Figure, Kind
from loadtests.peers.programs import PEERS
from loadtests.peers.targets import BARE, GATEWAY, MOCK, Target, running
from loadtests.progress import Progress
from loadtests.report import number, table

YARDSTICK = "vllm-router"
NAMES = (BARE, GATEWAY, *(peer.name for peer in PEERS))
CACHE = Path(".tuneloop/peers")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    names = options.only.split(",") if options.only else list(NAMES)
    if unknown := set(names) - set(NAMES):
        print(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    raise_limit()
    end_on_sigterm()
    say = Progress("peers")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tl-peers-", ignore_cleanup_errors=True) as home,
            running(names, cache=options.cache.resolve(), home=Path(home), say=say) as targets,
        ):
            figures = _rounds(targets, options.rounds, options.seconds, say)
    except (LoadTestFailed, CrewFailed) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    say.end()
    text = markdown(targets, figures, rounds=options.rounds, seconds=options.seconds)
    stem = report.save("peers", text, {"figures": [asdict(one) for one in figures]})
    print(text)
    print(f"kept as {stem}.json, .md")
    return 0


def _rounds(targets: Sequence[Target], rounds: int, seconds: float, say: Progress) -> list[Figure]:
    """Every row of every target, in turns. What cannot keep up with the open loop by far is spared it."""
    figures: list[Figure] = []
    for turn in range(1, rounds + 1):
        for kind in KINDS:
            for target in targets:
                if kind is OPEN and _too_slow(figures, target):
                    continue
                about = f"round {turn} of {rounds} · {kind.name} · {target.name}"
                figures.append(bench.measure(target, kind, turn=turn, seconds=seconds, say=_told(say, about)))
    return figures


def _told(say: Progress, about: str) -> Say:
    return lambda what: say(f"{about} · {what}")


def _too_slow(figures: Sequence[Figure], target: Target) -> bool:
    rates = [one.rate for one in figures if one.target == target.name and one.kind == UNARY_32.name]
    return max(rates) < OPEN.rate / 2


def markdown(targets: Sequence[Target], figures: Sequence[Figure], *, rounds: int, seconds: float) -> str:
    """All tables."""
    served = [target for target in targets if target.name != MOCK]
    parts = ["## The gateway beside its peers", report.machine()]
    parts.append(
        f"Medians of {rounds} rounds in turns, {seconds:g} s each. CPU is the user and system time of all processes of "
        "a target; the gateway's database is apart, behind a plus. "
        f"In brackets: times {YARDSTICK}'s in the same round."
    )
    head = ["CPU, µs", *(kind.name + (", per chunk" if kind.per_chunk else ", per request") for kind in KINDS)]
    parts.append(table(head, [[_label(one), *(_cpu(figures, one, kind) for kind in KINDS)] for one in served]))
    parts.append("Latency in ms, p50 / p99; of one connection with what is added to the mock itself:")
    head = ["latency", UNARY_1.name, UNARY_32.name, OPEN.name]
    kinds = (UNARY_1, UNARY_32, OPEN)
    parts.append(table(head, [[_label(one), *(_latency(figures, one, kind) for kind in kinds)] for one in targets]))
    parts.append("Requests a second (one client process):")
    head = ["rate", *(kind.name for kind in KINDS)]
    parts.append(table(head, [[_label(one), *(_rate(figures, one, kind) for kind in KINDS)] for one in targets]))
    return "\n\n".join(parts) + "\n"


def _label(target: Target) -> str:
    return f"{target.name} ({target.about})"


def _cpu(figures: Sequence[Figure], target: Target, kind: Kind) -> str:
    found = bench.summary(figures, target.name, kind, yardstick=YARDSTICK)
    if found is None:
        return "-"
    database = f" + {number(found.database)}" if target.name == GATEWAY else ""
    failed = f", {found.failed} FAILED" if found.failed else ""
    return f"{number(found.cpu)}{database} ({number(found.ratio, 2)}){failed}"


def _latency(figures: Sequence[Figure], target: Target, kind: Kind) -> str:
    found = bench.summary(figures, target.name, kind, yardstick=YARDSTICK)
    if found is None:
        return "too slow" if kind is OPEN else "-"
    text = f"{number(found.p50, 2)} / {number(found.p99, 2)}"
    mock = bench.summary(figures, MOCK, kind, yardstick=YARDSTICK)
    added = kind is UNARY_1 and target.name != MOCK and mock is not None
    return f"{text}, added {number(found.p50 - mock.p50, 2)}" if added and mock else text


def _rate(figures: Sequence[Figure], target: Target, kind: Kind) -> str:
    found = bench.summary(figures, target.name, kind, yardstick=YARDSTICK)
    return "-" if found is None else number(found.rate, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--only", help=f"of {','.join(NAMES)}: those named, with commas")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
