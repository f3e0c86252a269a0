"""Whether a candidate may be served: measured in the serving engine beside what it would replace; a policy decides.

deciding    the story: publish a trial, ask, compare, decide, report      questions   which rows are asked about
evaluation  every answer and log-probability of one version, kept         asking      the data plane over HTTP
texts       what one answer is worth                                      figures     what many are worth
statistics  what a difference is worth                                    policy      figures → verdict; pure
parity      PEFT and the engine agree                                     judge       another model's opinion
report, pictures   for people                                             cli         `trainer eval`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.manifest import Gate
    from trainer.config import RunSettings
    from trainer.progress import Progress
    from trainer.runlog import RunDirectory


def decide(run: RunDirectory, settings: RunSettings, voice: Progress) -> Gate:
    """Measure the run's adapter and decide; leaves the verdict in its manifest, and a report in `run.path`/gate.

    Safe to repeat: what was answered is not asked again, and what was decided stands while the settings do. Raises
    `GatewayFailed` when too little was answered to decide, and other `TrainerError`s.
    """
    from trainer.gate.deciding import decide as decided  # imports torch and transformers

    return decided(run, settings, voice)
