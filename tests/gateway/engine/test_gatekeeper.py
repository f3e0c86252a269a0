"""The gatekeeper in EngineCore, on a class that has of vLLM's what it wraps."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.engine import gatekeeper


@dataclass
class Books:
    """What reached the engine, and what was turned away."""

    scheduled: list[str] = field(default_factory=list)
    refused: list[tuple[list[str], int]] = field(default_factory=list)
    fail: bool = False


@pytest.fixture
def door() -> Any:
    """An EngineCore of its own class with a gatekeeper, since the gatekeeper keeps its list per class."""

    class Process:
        def __init__(self) -> None:
            self.books = Books()

        def add_lora(self, lora_request: SimpleNamespace) -> bool:
            if self.books.fail:
                raise ValueError("no such adapter")
            return True

        def remove_lora(self, lora_id: int) -> bool:
            return True

        def add_request(self, request: Any, request_wave: int = 0) -> None:
            self.books.scheduled.append(request.request_id)

        def _send_error_outputs_to_client(self, req_ids: list[str], client_index: int) -> None:
            self.books.refused.append((req_ids, client_index))

    gatekeeper.stand_at(Process)
    return Process()


def adapter(number: int) -> Any:
    return SimpleNamespace(lora_int_id=number)


def request(name: str, number: int | None) -> Any:
    lora = None if number is None else adapter(number)
    return SimpleNamespace(request_id=name, lora_request=lora, client_index=3)


def test_requests_of_the_base_model_and_of_what_is_held_go_through(door: Any) -> None:
    door.add_lora(adapter(1))
    door.add_request(request("base", None))
    door.add_request(request("tuned", 1), 7)
    assert (door.books.scheduled, door.books.refused) == (["base", "tuned"], [])


def test_a_request_behind_a_load_that_failed_is_turned_away(door: Any) -> None:
    door.books.fail = True
    with pytest.raises(ValueError, match="no such"):
        door.add_lora(adapter(1))
    door.add_request(request("canary", 1))
    assert (door.books.scheduled, door.books.refused) == ([], [(["canary"], 3)])


def test_a_request_that_comes_after_its_adapter_left_is_turned_away(door: Any) -> None:
    door.add_lora(adapter(1))
    door.remove_lora(1)
    door.add_request(request("late", 1))
    assert door.books.scheduled == []


def test_vllm_still_sees_the_signatures_by_which_it_converts_arguments(door: Any) -> None:
    parameters = inspect.signature(door.add_lora).parameters.values()
    assert [parameter.name for parameter in parameters] == ["lora_request"]


def test_the_engine_says_that_the_gatekeeper_is_here(door: Any) -> None:
    assert getattr(door, gatekeeper.IS_HERE)() is True


def test_in_a_process_without_enginecore_it_does_nothing() -> None:
    gatekeeper.install()
