"""Replay against forgetting: general prompts, answered by the base model itself, mixed into a supervised round.

The base's own answers keep what it could do at the least cost: they are what it would say anyway. It answers greedily,
behind the gateway where there is one, else in this process. Answers are kept in the run directory as they come, so that
a run started again asks only for what is missing. An answer that did not end in time is not trained on: it would teach
the model to stop in the middle.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from adapters.examples import Example
from trainer.asking import Asker, Unanswered
from trainer.config import RunSettings
from trainer.data.files import rows_of
from trainer.data.turns import BadRow
from trainer.errors import GatewayFailed, InvalidData
from trainer.gateway_client import Gateway
from trainer.progress import Progress

Chat = list[dict[str, Any]]
Ask = Callable[[Sequence[Chat]], list[str | None]]
"""The base's answer to each chat; None where it was cut."""

REPLAYED = "replayed from the base's own answers"
_SHIPPED = Path(__file__).with_name("replay.jsonl")
_BATCH = 16
_AT_ONCE = 8


def rows(settings: RunSettings, trained: int, voice: Progress, *, ask: Ask | None = None) -> list[Example]:
    """Rows to train on beside `trained` others, so that they are `replay.share` of all; none for other recipes.

    Raises `TrainerError`s.
    """
    share = settings.replay.share
    wanted = round(trained * share / (1 - share)) if settings.recipe == "sft" else 0
    if not wanted:
        return []
    prompts = list(_prompts(settings.replay.prompts or _SHIPPED))
    kept = _Kept(settings)
    found: list[Example] = []
    with ExitStack() as stack:
        for start in range(0, len(prompts), _BATCH):
            batch = prompts[start : start + min(_BATCH, 2 * (wanted - len(found)))]
            missing = [chat for chat in batch if chat not in kept]
            if missing:
                ask = ask or stack.enter_context(_asking(settings, voice))
                kept.add(missing, ask(missing))
            found += [_row(chat, text) for chat in batch if (text := kept[chat]) is not None]
            if len(found) >= wanted:
                break
    if len(found) < wanted:
        share = len(found) / (trained + len(found))
        voice.say(f"replay: {len(found)} rows, {share:.1%} of all; for more, give replay.prompts a file of prompts")
    return found[:wanted]


class _Kept:
    """The answers in the run directory, by what was asked and how."""

    def __init__(self, settings: RunSettings) -> None:
        self._how = [settings.base_model, settings.replay.max_tokens]
        self._path = settings.run_dir / "replay.jsonl"
        self._answers: dict[str, str | None] = {}
        for line in self._path.read_text("utf-8").splitlines() if self._path.exists() else ():
            try:
                self._answers[json.dumps(json.loads(line)["asked"])] = json.loads(line)["answer"]
            except (ValueError, KeyError, TypeError):
                continue  # half a line, of a process that was killed

    def __contains__(self, chat: Chat) -> bool:
        return self._key(chat) in self._answers

    def __getitem__(self, chat: Chat) -> str | None:
        return self._answers[self._key(chat)]

    def add(self, chats: Sequence[Chat], answers: Sequence[str | None]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n")  # ends half a line, if there is one
            for chat, answer in zip(chats, answers, strict=True):
                self._answers[self._key(chat)] = answer
                file.write(json.dumps({"asked": [*self._how, chat], "answer": answer}) + "\n")

    def _key(self, chat: Chat) -> str:
        return json.dumps([*self._how, chat])


def _prompts(path: Path) -> Iterator[Chat]:
    for number, row in rows_of(path):
        chat = row.get("messages", row.get("prompt")) if not isinstance(row, BadRow) else None
        if isinstance(chat, str) and chat.strip():
            chat = [{"role": "user", "content": chat}]
        if not isinstance(chat, list) or not chat:
            raise InvalidData(f"{path}:{number}: there is no prompt", "write a text under prompt, or messages")
        yield chat[:-1] if len(chat) > 1 and chat[-1].get("role") == "assistant" else chat


def _row(chat: Chat, answer: str) -> Example:
    return Example(messages=chat, completion=answer, kind="seed", adapter="base")


@contextmanager
def _asking(settings: RunSettings, voice: Progress) -> Iterator[Ask]:
    url, tenant = settings.gateway.url, settings.publish.tenant
    if url is None or tenant is None:
        voice.say("replay: the base model answers general prompts, in this process")
        yield _here(settings)
        return
    voice.say("replay: the base model answers general prompts, behind the gateway")
    with Gateway(settings.gateway) as gateway, gateway.lent_key(tenant, hours=1) as key:
        yield lambda chats: _behind(url, key, chats, settings.replay.max_tokens)


def _behind(url: str, key: str, chats: Sequence[Chat], max_tokens: int) -> list[str | None]:
    async def one(asker: Asker, chat: Chat) -> str | None:
        body = {"model": "base", "messages": chat, "max_tokens": max_tokens, "temperature": 0}
        reply = await asker.ask("/chat/completions", body)
        choice = reply["choices"][0]
        return _ended(choice["message"].get("content") or "", choice["finish_reason"] == "stop")

    async def all_of_them() -> list[str | None]:
        async with Asker(url, key, at_once=_AT_ONCE) as asker:
            return await asyncio.gather(*(one(asker, chat) for chat in chats))

    try:
        return asyncio.run(all_of_them())
    except Unanswered as why:
        raise GatewayFailed(f"the base model does not answer ({why})", "run it again later") from None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise GatewayFailed(f"the base model's answer fails ({type(error).__name__})", "run it again later") from error


def _here(settings: RunSettings) -> Ask:
    """The base model in this process, loaded when it is first asked."""
    loaded: list[Any] = []

    def ask(chats: Sequence[Chat]) -> list[str | None]:
        from trainer import model  # imports torch
        from trainer.settings.training import TrainingSettings

        if not loaded:
            # As it is served, whatever it is trained as.
            threads = settings.training.threads
            loaded.append(model.load(settings.model_copy(update={"training": TrainingSettings(threads=threads)})))
        return _generated(loaded[0], chats, settings.replay.max_tokens)

    return ask


def _generated(base: Any, chats: Sequence[Chat], max_tokens: int) -> list[str | None]:
    import torch

    tokenizer = base.tokenizer
    tokenizer.padding_side = "left"  # what is generated goes on to the right of every prompt
    ends = base.model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    inputs = tokenizer.apply_chat_template(
        list(chats),
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    ).to(base.device)
    with torch.no_grad(), base.computing():
        whole = base.model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
    answers = []
    for ids in whole[:, inputs["input_ids"].shape[1] :].tolist():
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        answers.append(_ended(tokenizer.decode(ids[:end], skip_special_tokens=True), end is not None))
    return answers


def _ended(text: str, ended: bool) -> str | None:
    return text if ended and text.strip() else None
