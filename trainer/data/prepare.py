"""`trainer data prepare`: rows in, a directory of masked, split rows and their card out. Whole, or not there.

Everything is written into a hidden directory beside the one that was named, which gets its name at the end: a kill
leaves no file that looks finished, and the next start clears away what it left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from trainer.data import card, sides
from trainer.data.profile import Profile
from trainer.data.survey import Survey, Surveyor
from trainer.errors import InvalidData
from trainer.progress import Watch
from trainer.settings.data import DataSettings


def prepare(
    settings: DataSettings, out: Path, *, skip_bad: bool = False, profile: Profile | None = None, watch: Watch
) -> dict[str, Any]:
    """Write train.jsonl, held_out.jsonl and test.jsonl (rows of adapters.Example) and the card into `out`.

    Returns what card.json holds. Raises `InvalidData` if `out` holds anything, or (unless `skip_bad`) if a row cannot
    be read; then nothing is written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidData(f"{out} is there already", "name another directory, or remove it")
    draft = out.with_name(f".{out.name}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    with _locked(draft):
        for left in draft.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != ".lock":
                left.unlink()
        work = draft / "work"
        work.mkdir()
        survey = Surveyor(settings, work, tolerant=True, profile=profile, watch=watch).survey()
        if survey.profile.bad and not skip_bad:
            shutil.rmtree(draft)
            raise InvalidData(
                f"{survey.profile.bad} rows cannot be read, {_first(survey)}", "correct them, or --skip-bad"
            )
        _write_sides(survey, draft)
        told = card.write(draft, survey, settings)
        survey.spool.close()
        shutil.rmtree(work)
        (draft / ".lock").unlink()
        draft.replace(out)
    return told


def _write_sides(survey: Survey, directory: Path) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context((directory / f"{name}.jsonl").open("wb")) for name in sides.NAMES]
        for side, line in survey.split():
            files[side].write(line)
        for file in files:
            file.flush()
            os.fsync(file.fileno())


def _first(survey: Survey) -> str:
    return f"the first {len(survey.profile.errors)}: " + " · ".join(survey.profile.errors)


def _locked(draft: Path) -> TextIO:
    lock = (draft / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InvalidData(f"another process is preparing {draft}", "wait for it, or name another directory") from None
    return lock
