"""Everything the trainer can refuse, as types. Each message says what is wrong, and then what to do.

TrainerError
├── InvalidConfig     a setting that is missing, unknown or out of range; says which
├── InvalidData       a row or a file that cannot be trained on; says file and line
├── NotServable       the gateway's engine could not serve the result: known before any training
├── GatewayFailed     the gateway cannot be reached, or refuses
├── RunConflict       the run directory belongs to another run, or to one that is still going
└── TrainingFailed    the training diverged or learnt nothing
"""

from __future__ import annotations


class TrainerError(Exception):
    """Base of the expected errors; `str(error)` is one line for people: what is wrong, then the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}.")


class InvalidConfig(TrainerError):
    pass


class InvalidData(TrainerError):
    pass


class NotServable(TrainerError):
    pass


class GatewayFailed(TrainerError):
    pass


class RunConflict(TrainerError):
    pass


class TrainingFailed(TrainerError):
    pass
