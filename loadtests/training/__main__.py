"""`python -m loadtests.training sft|dpo|kto`: our recipe beside stock TRL, in turns. Status 1 if a claim does not hold.

Every side trains the same steps from the same weights, once a round, in an order that turns from round to round. Trust
the ratios of CPU-seconds: they hold on a machine with other work, where no clock does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests import report
from loadtests.training.rows import examples
from trainer import config

MODEL = Path(".tuneloop/models/SmolLM2-135M-Instruct")
OURS = "ours"
EQUAL = 1e-3
FASTER: dict[str, float | dict[str, float]] = {"sft": {"trl": 1.5, "defaults": 2.0}, "dpo": 1.3, "kto": 1.3}
"""How many times the tokens a CPU-second we claim, beside every side or by its name."""
STOCK: dict[str, dict[str, Any]] = {
    "trl": {"gradient_checkpointing": False},
    "precomputed": {"gradient_checkpointing": False, "precompute_ref_log_probs": True},
    "defaults": {"gradient_checkpointing": True, "bf16": True},
}
"""TRL's trainers by what is told to them; they compute in our number format unless that is told."""


def main(arguments: list[str] | None = None, *, results: Path = report.RESULTS) -> int:
    """Measure, print a table, keep the result."""
    told = _parser().parse_args(arguments)
    config.prepare_libraries()
    from loadtests.training import sides  # torch takes seconds

    names = [OURS, *(name for name in told.against if (told.recipe, name) != ("sft", "precomputed"))]
    rows = examples(told.recipe, told.steps * told.batch_size)
    found: dict[str, list[Any]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(told.rounds):
            wanted = sides.settings(
                told.recipe,
                told.model,
                Path(directory) / f"round-{number}",
                steps=told.steps,
                batch_size=told.batch_size,
                training__precision=told.precision,
            )
            for name in names[number % len(names) :] + names[: number % len(names)]:
                one = sides.ours(wanted, rows) if name == OURS else sides.stock(wanted, rows, STOCK[name])
                found[name].append(one)
                print(f"round {number + 1} · {name}: {one.cpu:.1f} CPU-s", file=sys.stderr, flush=True)
        size = sides.tokens(wanted, rows)
    text, figures, held = _told(told, found, size)
    stem = report.save(f"training-{told.recipe}", text, figures, directory=results)
    print(text)
    print(f"kept as {stem}.json, .md")
    return 0 if held else 1


def _told(told: argparse.Namespace, found: Mapping[str, Sequence[Any]], size: int) -> tuple[str, dict[str, Any], bool]:
    """The report, its figures, and whether what is claimed of them holds."""
    ratios = {
        name: statistics.median(other.cpu / mine.cpu for other, mine in zip(trained, found[OURS], strict=True))
        for name, trained in found.items()
    }
    steps = zip(found[OURS][0].losses, found.get("trl", found[OURS])[0].losses, strict=True)
    apart = max(abs(mine - other) for mine, other in steps)
    claims = [
        (f"at least {least} times the tokens a CPU-second of {name}", ratios[name] >= least, f"{ratios[name]:.2f}")
        for name, least in _claimed(told.recipe).items()
        if name in ratios
    ]
    if told.precision == "fp32" and "trl" in found:
        claims.append(("the losses of trl to 3 decimals", apart < EQUAL, f"at most {apart:.1e} apart"))
    marks = {True: "holds", False: "DOES NOT HOLD"}
    about = (
        f"{told.model.name}, {told.steps} steps of {told.batch_size} rows ({size:,} tokens with every prompt counted "
        f"for each answer), {told.rounds} rounds; medians. {report.machine()}"
    )
    kept = "\n".join(f"- {claim}: {marks[held]} ({seen})" for claim, held, seen in claims)
    text = f"## {told.recipe} beside stock TRL\n\n{about}\n\n{_table(told.steps, found, size, ratios)}\n\n{kept}\n"
    figures = {
        "knobs": {**vars(told), "model": told.model.name},
        "tokens": size,
        "ratios": ratios,
        "apart": apart,
        "sides": {name: [asdict(one) for one in trained] for name, trained in found.items()},
    }
    return text, figures, all(held for _, held, _ in claims)


def _claimed(recipe: str) -> dict[str, float]:
    """The claim beside each of TRL's sides."""
    found = FASTER[recipe]
    return dict(found) if isinstance(found, dict) else dict.fromkeys(STOCK, found)


def _table(steps: int, found: Mapping[str, Sequence[Any]], size: int, ratios: Mapping[str, float]) -> str:
    lines = []
    for name, trained in found.items():
        cpu, wall = (statistics.median(getattr(one, what) for one in trained) for what in ("cpu", "wall"))
        figures = [f"{cpu / steps:.2f}", f"{size / cpu:,.0f}", f"{ratios[name]:.2f}", f"{wall:.1f}"]
        lines.append([name, *figures, " ".join(f"{loss:.4f}" for loss in trained[0].losses)])
    return report.table(("side", "CPU-s a step", "tokens a CPU-s", "CPU over ours", "wall s", "losses"), lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", choices=("sft", "dpo", "kto"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8, help="rows, or pairs, of a step")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of ours, and of TRL's but for its defaults",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        choices=tuple(STOCK),
        default=list(STOCK),
        help="trl: as it is faster; precomputed: with the reference, too; defaults: bf16 and checkpointing (all)",
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="a directory (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
