"""Before anything is trained: could the gateway's engine serve the result, and does it read a chat as this run does?

It knows the gateway and the tokenizer, and no torch beyond what the tokenizer brings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.examples import Example
from adapters.weights import BaseShape, base_revision
from trainer.config import RunSettings
from trainer.errors import GatewayFailed, InvalidConfig, NotServable
from trainer.gateway_client import EngineLimits, Gateway, require_servable
from trainer.progress import Progress

_ROWS = 4
_AROUND = 6
_EVERY_ROLE = [
    {"role": "system", "content": "You answer in one word."},
    {"role": "user", "content": " Is it  late?\n"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And Ünïcödé, 日本?"},
]


def require_limits(settings: RunSettings, limits: EngineLimits, *, hub_cache: Path | None = None) -> None:
    """Refuse what the engine could not serve: base, rank, revision, targets, length. Raises `NotServable`.

    Revision and targets are known of a base that is on this machine: in a directory, or whole in the hub's cache.
    """
    require_servable(limits, base_model=settings.base_model, rank=settings.lora.rank)
    if limits.context is not None and settings.data.max_tokens > limits.context:
        what = f"data.max_tokens is {settings.data.max_tokens}, but the engine's context is {limits.context} tokens"
        raise NotServable(what, f"set data.max_tokens to {limits.context} or less, or raise the engine's max_model_len")
    here = settings.model_path or _cached(settings.base_model, hub_cache)
    if here is None:
        return
    if limits.base_revision is not None and base_revision(here) != limits.base_revision:
        what = f"{here} and the gateway's engine hold different weights of {settings.base_model}"
        raise NotServable(what, "train on the files that the engine serves")
    if settings.lora.targets != "all-linear":
        known = {name.rpartition(".")[2] for name in BaseShape.of(here).linear}
        unknown = sorted({name.rpartition(".")[2] for name in settings.lora.targets} - known)
        if unknown:
            what = f"the base model has no linear layer {', '.join(unknown)}"
            raise NotServable(what, f"set lora.targets to all-linear, or to some of {', '.join(sorted(known))}")


def _cached(name: str, hub_cache: Path | None) -> Path | None:
    """The directory that transformers loads a model of this name from, if no file of its weights is missing there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json", cache_dir=hub_cache)
    except ValueError:  # no name that a hub could have
        return None
    if not isinstance(config, str):
        return None
    index = Path(config).with_name("model.safetensors.index.json")
    files = {"model.safetensors"}
    if index.is_file():
        files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return index.parent if all((index.parent / file).is_file() for file in files) else None


def require_same_tokens(settings: RunSettings, rows: Sequence[Example], voice: Progress) -> None:
    """Compare the token ids of a few prompts with those the engine makes of them.

    An adapter trained on another template serves badly and never says so. Raises `NotServable`.
    """
    from trainer.tokens import prompt_ids, tokenizer_of  # imports torch

    tokenizer = tokenizer_of(settings)
    chats = [row.messages for row in _telling(rows)]
    try:
        prompt_ids(tokenizer, _EVERY_ROLE)
        chats.append(_EVERY_ROLE)
    except InvalidConfig:
        pass  # this template knows no system prompt: then no row has one
    with Gateway(settings.gateway) as gateway:
        if gateway.limits().kind == "fake":
            voice.say("the gateway's engine is a fake: its token ids are not compared")
            return
        for chat in chats:
            try:
                theirs = gateway.render(chat)
            except GatewayFailed as error:
                voice.say(f"token ids are not compared with the engine's: {error}")
                return
            _require_equal(tokenizer, prompt_ids(tokenizer, chat), theirs)
    voice.say(f"the engine makes the same token ids of {len(chats)} prompts")


def _telling(rows: Sequence[Example]) -> list[Example]:
    """A few rows of different forms: the first, and the first with each combination of roles."""
    found = {tuple(message["role"] for message in row.messages)[:4]: row for row in reversed(rows)}
    return list(found.values())[-_ROWS:]


def _require_equal(tokenizer: Any, ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    here, there = (
        tokenizer.decode(ids[max(first - _AROUND, 0) : first + _AROUND], skip_special_tokens=False)
        for ids in (ours, theirs)
    )
    raise NotServable(
        f"the engine reads a prompt otherwise than it would be trained, from token {first} on: here {here!r}, "
        f"there {there!r}",
        "give both the same tokenizer and chat template, in model_path and in the engine's model directory",
    )
