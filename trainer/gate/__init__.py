"""Whether a candidate may be served: measured in the serving engine beside what it would replace; a policy decides.

deciding    the story: publish a trial, ask, compare, decide, report      questions   which rows are asked about
evaluation  every answer and log-probability of one version, kept         asking      the data plane over HTTP
texts       what one answer is worth                                      figures     what many are worth
statistics  what a difference is worth                                    policy      figures → verdict; pure
parity      PEFT and the engine agree                                     judge       another model's opinion
report, pictures   for people                                             cli         `trainer eval`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters.ref import AdapterRef
from trainer import data
from trainer.errors import InvalidData

if TYPE_CHECKING:
    from adapters.examples import Example
    from adapters.manifest import Gate
    from trainer.config import RunSettings
    from trainer.gateway_client import Gateway
    from trainer.progress import Progress
    from trainer.runlog import RunDirectory

LEAST_UNITS = 20
"""With fewer users (or rows) the bootstrap's error rate is not the one it is asked for; see gate/statistics.py."""


def require_named(settings: RunSettings, gateway: Gateway) -> None:
    """Refuse before any training an incumbent or a regression set that is not there. Raises `TrainerError`s."""
    if settings.gate is None:
        return
    if settings.gate.regression is not None:
        for _ in data.read_file(settings.gate.regression):
            pass
    ref = incumbent(settings)
    if ref not in (None, "base"):
        AdapterRef.parse(ref)
        gateway.version(str(settings.publish.tenant), ref)


def require_rows(settings: RunSettings, rows: Sequence[Example], voice: Progress) -> None:
    """Refuse, or tell before any training, that the gate has too few `rows` to decide by. Raises `InvalidData`."""
    if settings.gate is None:
        return
    if not rows:
        remedy = "raise data.held_out_share, or name a file with data.held_out or data.test"
        raise InvalidData("the gate has no held-out rows to decide by", remedy)
    units = len({row.unit for row in rows if row.unit is not None}) + sum(row.unit is None for row in rows)
    if units < LEAST_UNITS:
        voice.say(f"the gate will refuse this: it decides by {LEAST_UNITS} users' rows or more, and has {units} users'")


def incumbent(settings: RunSettings) -> str | None:
    """The version to beat that the settings name, in full; `base` for the base model, None if they leave it."""
    named = None if settings.gate is None else settings.gate.incumbent
    return named if named in (None, "base") or "/" in named else f"{settings.publish.tenant}/{named}"


def decide(run: RunDirectory, settings: RunSettings, voice: Progress) -> Gate:
    """Measure the run's adapter and decide; leaves the verdict in its manifest, and a report in `run.path`/gate.

    Safe to repeat: what was answered is not asked again, and what was decided stands while the settings do. Raises
    `GatewayFailed` when too little was answered to decide, and other `TrainerError`s.
    """
    from trainer.gate.deciding import decide as decided  # imports torch and transformers

    return decided(run, settings, voice)
