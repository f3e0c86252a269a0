"""`python -m loadtests.banking --data DIR`: the story, its table in results/, exit status 1 if a claim does not hold.

DIR holds banking77's train.csv and test.csv (repository PolyAI-LDN/task-specific-datasets, CC-BY-4.0). Needs the small
model that `make demo` makes. About an hour on two cores, a quarter of that with --quick; killed, it goes on where it
was when it is started again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from loadtests.banking import report, story
from loadtests.banking.questions import QUICK, NoQuestions, Plan, prepare
from loadtests.demo.gateway import DemoFailed
from loadtests.demo.progress import console

HOME = Path(".tuneloop/banking")
MODEL = Path(".tuneloop/models/SmolLM2-135M-Instruct")


def main(arguments: list[str]) -> int:
    """Tell the story and report; returns the exit status."""
    flags = argparse.ArgumentParser(
        prog="python -m loadtests.banking", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--data", type=Path, required=True, help="a folder with banking77's train.csv and test.csv")
    flags.add_argument("--home", type=Path, help=f"where the story is kept ({HOME}, or {HOME}-quick)")
    flags.add_argument("--model", type=Path, default=MODEL, help="SmolLM2-135M-Instruct (%(default)s)")
    flags.add_argument("--quick", action="store_true", help="half the intents and a quarter of the questions")
    given = flags.parse_args(arguments)
    plan = QUICK if given.quick else Plan()
    home = given.home or (HOME.with_name(f"{HOME.name}-quick") if given.quick else HOME)
    pools = prepare(given.data, plan)
    pages = story.tell(story.Place(home, given.model, pools, plan), given.data)
    text = report.markdown(pages, pools, plan)
    console.print(text, markup=False)
    console.print(f"kept as {report.save(text, pages)}.md and .json", markup=False)
    return 0 if all(claim.held for claim in report.claims(pages)) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as on Ctrl-C: the gateway must not stay behind
    try:
        sys.exit(main(sys.argv[1:]))
    except (DemoFailed, NoQuestions) as failed:
        console.print(str(failed), style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
