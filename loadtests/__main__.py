"""`python -m loadtests SCENARIO`: load a gateway, print a table, keep the result. Status 1 if a claim does not hold."""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import replace
from types import ModuleType

from loadtests import plot, report
from loadtests.asks import Address
from loadtests.crew import CrewFailed
from loadtests.descriptors import raise_limit
from loadtests.installation import Installation, LoadTestFailed, end_on_sigterm, installed
from loadtests.progress import Progress
from loadtests.samples import Objective
from loadtests.stage import Knobs, Outcome, Stage

SCENARIOS = ("steady", "burst", "tenants", "swaps", "slow", "feedback", "streams", "fairness")


def scenario(name: str) -> ModuleType:
    """The module of a scenario; see `stage.py` for what it has."""
    return importlib.import_module(f"loadtests.scenarios.{name}")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    raise_limit()
    end_on_sigterm()
    names = SCENARIOS if options.scenario == "all" else (options.scenario,)
    held = True
    for name in names:
        try:
            held = _one(name, options) and held
        except (LoadTestFailed, CrewFailed) as error:
            print(f"{name}: {error}", file=sys.stderr)
            held = False
    return 0 if held else 1


def _one(name: str, options: argparse.Namespace) -> bool:
    """Run one scenario, print and keep its result; whether all its claims hold."""
    module = scenario(name)
    knobs = _knobs(module.DEFAULTS, options)
    say = Progress(name)
    if options.url:
        gateway = Installation(Address.parse(options.url), options.admin_key or "")
        outcome: Outcome = module.run(Stage(gateway, knobs, say))
    else:
        with installed(module.setup(knobs), say=say) as gateway:
            outcome = module.run(Stage(gateway, knobs, say))
    say.end()
    text = report.markdown(name, module.ABOUT, knobs, outcome)
    stem = report.save(name, text, report.told(knobs, outcome))
    drawn = plot.draw(outcome, f"{name}: {module.ABOUT}", stem.with_suffix(".png"))
    print(text)
    print(f"kept as {stem}.json, .md{', .png' if drawn else ' (no picture without matplotlib)'}\n", flush=True)
    return all(claim.held for claim in outcome.claims)


def _knobs(defaults: Knobs, options: argparse.Namespace) -> Knobs:
    given = {name: getattr(options, name) for name in ("seconds", "rate", "clients", "workers", "engine", "seed")}
    objective = Objective(options.slo_ttft_ms / 1e3, options.slo_tpot_ms / 1e3)
    knobs = replace(defaults, **{name: value for name, value in given.items() if value is not None})
    return replace(knobs, objective=objective, key=options.key, model=options.model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="scenarios:\n" + "\n".join(f"  {name:10}{scenario(name).ABOUT}" for name in SCENARIOS),
    )
    parser.add_argument("scenario", choices=(*SCENARIOS, "all"))
    parser.add_argument("--seconds", type=float, help="of load; each scenario has a default")
    parser.add_argument("--rate", type=float, help="requests a second, offered (open loop)")
    parser.add_argument("--clients", type=int, help="client processes")
    parser.add_argument("--workers", type=int, help="workers of the gateway that is started")
    parser.add_argument("--engine", choices=("mock", "fake"), help="behind the gateway that is started")
    parser.add_argument("--seed", type=int, help="of the schedule")
    parser.add_argument("--slo-ttft-ms", type=float, default=200, help="goodput counts answers within it")
    parser.add_argument("--slo-tpot-ms", type=float, default=50, help="and within it")
    parser.add_argument("--url", help="a gateway that runs already: http://host:port")
    parser.add_argument("--admin-key", help="of that gateway, where a scenario makes its own tenants")
    parser.add_argument("--key", help="a tenant's key, for scenarios with one tenant (steady, burst, slow, streams)")
    parser.add_argument("--model", help="what to ask for with --key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
