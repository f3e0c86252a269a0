"""`python -m tests.trainer.dying ROOM MODEL SEED`: runs that are killed at moments drawn by the seed, until one is not.

torch is imported once, and each try is a fork: what is killed is a process in the midst of `run_all`. Prints how each
try ended. A reader looks at the run directory all the time: an adapter that is there is whole.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from adapters.weights import inspect
from tests.trainer import tiny
from trainer.config import RunSettings, prepare_libraries
from trainer.progress import Silent
from trainer.run import run_all

PLACES = ("checkpoints/checkpoint-*", "saved", "saved/*.safetensors", "adapter.draft", "adapter.draft/*", "adapter")
KILLS = 12


def wanted(room: Path, model: Path) -> RunSettings:
    more = {"training__save_seconds": 0, "training__max_steps": 24, "lora__dropout": 0.1}
    return tiny.settings(room, model, **more, data__held_out_share=0.2, training__evaluate_every=5)


def killed(settings: RunSettings, moment: float, place: str | None) -> bool:
    """Kill a try after `moment` seconds, or as something new appears at `place`; False if it came to its end."""
    before = set(settings.run_dir.glob(place)) if place is not None else set()
    child = os.fork()
    if child == 0:
        run_all(settings, Silent())
        os._exit(0)
    until = time.monotonic() + moment
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if (settings.run_dir / "adapter").exists():
            inspect(settings.run_dir / "adapter")  # raises if it is not whole
        if time.monotonic() > until or (place is not None and set(settings.run_dir.glob(place)) - before):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.001)
    return False


def main() -> None:
    room, model, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    prepare_libraries()
    import trainer.recipes.sft  # noqa: F401 - imported before the forks, which then need no seconds for it

    draw, settings = random.Random(seed), wanted(room, model)
    for _ in range(KILLS):
        place = draw.choice(PLACES) if draw.random() < 0.7 else None
        moment = draw.uniform(0.1, 2.0) if place is None else 20.0
        if not killed(settings, moment, place):
            break
        print("killed", place or f"after {moment:.2f} s", flush=True)
    print("ended", not killed(settings, 120.0, None))


if __name__ == "__main__":
    main()
