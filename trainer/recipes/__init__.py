"""Training recipes: a page each, on TRL and PEFT. Config in, adapter out; each continues where it was killed."""

from __future__ import annotations

import importlib
import logging

from trainer.config import RunSettings
from trainer.progress import Progress
from trainer.runlog import RunDirectory

# PEFT imports bitsandbytes, which warns of a kernel that only QLoRA on a CPU would use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def train(run: RunDirectory, settings: RunSettings, progress: Progress) -> None:
    """Train by the recipe that the settings name, or go on; leaves `run.adapter` and `run.result()`.

    torch is imported here and not before. Raises `TrainerError`s.
    """
    importlib.import_module(f"trainer.recipes.{settings.recipe}").train(run, settings, progress)
