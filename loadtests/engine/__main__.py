"""`python -m loadtests.engine swap` and `python -m loadtests.engine pair`: minutes each, on the real engine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from loadtests.engine import pair, swap
from loadtests.engine.stage import MODEL


def main(arguments: list[str] | None = None) -> int:
    """Run one measurement, print its table, and keep every figure in a file if one is named."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.engine", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="the model's directory (default: %(default)s)")
    parser.add_argument("--home", type=Path, help="the gateway's home (default: one that is removed afterwards)")
    parser.add_argument("--out", type=Path, help="a file for every figure, as JSON")
    commands = parser.add_subparsers(required=True)
    swapping = commands.add_parser("swap", help=(swap.__doc__ or "").splitlines()[0])
    swapping.add_argument("--streams", type=int, nargs="+", default=[0, 8, 24], help="of another tenant")
    swapping.add_argument("--rounds", type=int, default=5)
    swapping.set_defaults(measure=_swap)
    pairing = commands.add_parser("pair", help=(pair.__doc__ or "").splitlines()[0])
    pairing.add_argument("--adapters", type=int, nargs="+", default=[1, 4])
    pairing.add_argument("--rounds", type=int, default=6)
    pairing.add_argument("--requests", type=int, default=32, help="in one run")
    pairing.add_argument("--at-once", type=int, default=8)
    pairing.add_argument("--tokens", type=int, nargs=2, default=[32, 32], metavar=("IN", "OUT"))
    pairing.add_argument("--rate", type=float, default=3.0, help="of the requests at random, a second")
    pairing.add_argument("--alone", type=int, default=50, help="pairs of single requests in a round")
    pairing.add_argument("--apart", action="store_true", help="one way after the other (default: both at once)")
    pairing.set_defaults(measure=_pair)
    told = parser.parse_args(arguments)
    table, figures = told.measure(told)
    print(table)
    if told.out is not None:
        told.out.write_text(json.dumps(figures, indent=1))
    return 0


def _swap(told: argparse.Namespace) -> tuple[str, object]:
    found = swap.run(told.home, told.model, sizes=told.streams, rounds=told.rounds, say=_say)
    return swap.table(found), [asdict(one) for one in found]


def _pair(told: argparse.Namespace) -> tuple[str, object]:
    closed = pair.Load(told.requests, told.at_once, *told.tokens)
    coming = pair.Load(3 * told.requests, told.at_once, told.tokens[0], 2, rate=told.rate)
    found = pair.run(
        told.home,
        told.model,
        {"closed": closed, "open": coming},
        adapters=told.adapters,
        rounds=told.rounds,
        apart=told.apart,
        alone=told.alone,
        say=_say,
    )
    return pair.table(found), [asdict(one) for one in found]


def _say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
