"""Runs inside EngineCore: turns away requests whose adapter is not there.

vLLM would read such an adapter from disk inside a model step, while every stream waits; if that fails (the files are
gone, or vLLM refuses them) the exception ends EngineCore for all tenants. Two things depend on it: a request that was
still being tokenised when its adapter was evicted does no harm, and the canary's request may be sent right behind the
load itself (`residents.py`), since it is turned away if the load fails. It knows only numbers.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

IS_HERE = "tuneloop_gatekeeper_is_here"
"""The utility call by which the API server asks whether this module works in EngineCore."""


def install() -> None:
    """Stand at EngineCore's door; in any other process do nothing."""
    module = sys.modules.get("vllm.v1.engine.core")
    if module is not None and not hasattr(module.EngineCoreProc, IS_HERE):
        stand_at(module.EngineCoreProc)


def stand_at(process: Any) -> None:
    """Wrap three methods of vLLM's class for the EngineCore process; there is one such object in a process."""
    add_lora, remove_lora, add_request = process.add_lora, process.remove_lora, process.add_request
    held: set[int] = set()

    # vLLM converts a call's arguments to what the signature says: `wraps` keeps the real one visible.
    @functools.wraps(add_lora)
    def add_and_note(self: Any, lora_request: Any) -> bool:
        added: bool = add_lora(self, lora_request)
        if added:
            held.add(lora_request.lora_int_id)
        return added

    @functools.wraps(remove_lora)
    def note_and_remove(self: Any, lora_id: int) -> bool:
        held.discard(lora_id)
        removed: bool = remove_lora(self, lora_id)
        return removed

    @functools.wraps(add_request)
    def add_unless_absent(self: Any, request: Any, request_wave: int = 0) -> None:
        adapter = request.lora_request
        if adapter is None or adapter.lora_int_id in held:
            add_request(self, request, request_wave)
        else:
            self._send_error_outputs_to_client([request.request_id], request.client_index)

    process.add_lora, process.remove_lora, process.add_request = add_and_note, note_and_remove, add_unless_absent
    setattr(process, IS_HERE, lambda _: True)
