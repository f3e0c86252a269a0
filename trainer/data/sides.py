"""Which side of the split a row is on, for good: trained on, held out, or kept for the test.

It depends on the user (or, without one, the chat) and the shares, and on nothing else: whatever is added later, whoever
is held out once stays held out. Held-out users are taken from one end of the hash's range and test users from the
other, so that changing one share never touches the other side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from adapters.examples import Example

TRAIN: Final = 0
HELD_OUT: Final = 1
TEST: Final = 2
NAMES = ("train", "held_out", "test")


def is_held_out(example: Example, share: float) -> bool:
    """Whether the row's unit (or prompt) falls into the held-out share; depends on nothing else."""
    return side_of([example], share, 0.0) == HELD_OUT


def side_of(examples: Sequence[Example], held_out_share: float, test_share: float) -> int:
    """The side of all rows of one chat (the longest prompt speaks for it), or of one user."""
    last = examples[-1]
    key = f"unit:{last.unit}" if last.unit is not None else f"prompt:{prompt_of(last)}"
    place = int.from_bytes(hashlib.sha256(f"holdout:{key}".encode()).digest()[:8])
    if place < held_out_share * 2**64:
        return HELD_OUT
    return TEST if place >= (1 - test_share) * 2**64 else TRAIN


def prompt_of(example: Example) -> str:
    """The prompt as one text: equal prompts have equal texts."""
    return json.dumps(example.messages, ensure_ascii=False, sort_keys=True)
