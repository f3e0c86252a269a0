"""What the endpoints of the data plane differ in, as data and small functions: an `Endpoint` each, `ENDPOINTS` by path.

The way of a request (door, exchange, forward) is the same for all of them and asks here for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from gateway.identity import new_inference_id, new_inference_uuid
from gateway.serving import (
    answers,
    answers_anthropic,
    answers_responses,
    answers_tensorzero,
    anthropic,
    dialects,
    embeddings,
    responses,
    tensorzero,
)
from gateway.serving.answers import Reading
from gateway.serving.aside import Aside, Named
from gateway.serving.checks import Check
from gateway.serving.dialects import Dialect
from gateway.serving.fields import CHAT, EVALUATED, TEXT, check_together
from gateway.serving.sse import Events

Fields = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class MakeEvents(Protocol):
    """Makes the reader of one stream, the answer to the request that `named` is."""

    def __call__(self, *, wants_usage: bool, keep: int, named: Named) -> Events: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """One route. `raw_path` is its path towards the engine, `operation` OpenTelemetry's word for it, `id_prefix` what
    stands before the inference id for its clients; `needs` are the fields without which a request is refused.

    `complete` checks the fields that depend on each other, adds what the gateway adds, and says whether the client
    asked for usage in its stream. `user` finds the targeting key in the client's own body. Of checked fields, `asked`
    renders the chat that is remembered (None where there is none), and `most_tokens` is the bound of all answers
    together. `answers` reads answers for the record. `id_field` is the field that takes the client's form of the id,
    where the engine does not take it from `X-Request-Id`. `worded` puts a whole answer into the client's words (our
    form of the id, at least), where the engine's differ. `new_id` makes the inference id for a secret and a tenant.
    `aside` is what the client's own body says that is not for the engine.
    """

    path: str
    raw_path: bytes
    operation: str
    id_prefix: str
    needs: tuple[str, ...]
    fields: dict[str, Check]
    complete: Callable[[Fields, bool], bool]
    user: Callable[[Fields], str | None]
    asked: Callable[[Fields], list[dict[str, Any]] | None]
    most_tokens: Callable[[Fields], int | None]
    events: MakeEvents
    answers: Reading
    dialect: Dialect
    id_field: str | None = None
    worded: Callable[[bytes, Named], bytes] | None = None
    new_id: Callable[[bytes, str], str] = new_inference_id
    aside: Callable[[Fields], Aside] | None = None


def _user(body: Fields) -> str | None:
    return body.get("safety_identifier") or body.get("user") or body.get("prompt_cache_key") or None


def _messages(fields: Fields) -> list[dict[str, Any]]:
    return list(fields["messages"])


def _prompt(fields: Fields) -> list[dict[str, Any]]:
    """A completion's prompt counts as one user message."""
    prompt = fields["prompt"]
    return [{"role": "user", "content": prompt if type(prompt) is str else _encode(prompt).decode()}]


def _most_tokens(fields: Fields) -> int | None:
    most = fields.get("max_completion_tokens") or fields.get("max_tokens")
    return most * fields.get("n", 1) if most is not None else None


def _most_of_all(fields: Fields) -> int:
    """Of a completion: one answer or more to each prompt; the engine's own bound is 16."""
    prompt = fields["prompt"]
    prompts = len(prompt) if type(prompt) is list and type(prompt[0]) is not int else 1
    return int(fields.get("max_tokens", 16)) * prompts * int(fields.get("n", 1))


def _events(*, wants_usage: bool, keep: int, named: Named) -> Events:
    return Events(wants_usage=wants_usage, keep=keep)


CHAT_COMPLETIONS = Endpoint(
    path="/v1/chat/completions",
    raw_path=b"/v1/chat/completions",
    operation="chat",
    id_prefix="chatcmpl-",
    needs=("model", "messages"),
    fields=CHAT,
    complete=check_together,
    user=_user,
    asked=_messages,
    most_tokens=_most_tokens,
    events=_events,
    answers=answers.CHOICES,
    dialect=dialects.OPENAI,
)
COMPLETIONS = Endpoint(
    path="/v1/completions",
    raw_path=b"/v1/completions",
    operation="text_completion",
    id_prefix="cmpl-",
    needs=("model", "prompt"),
    fields=TEXT,
    complete=check_together,
    user=_user,
    asked=_prompt,
    most_tokens=_most_of_all,
    events=_events,
    answers=answers.CHOICES,
    dialect=dialects.OPENAI,
)
RESPONSES = Endpoint(
    path="/v1/responses",
    raw_path=b"/v1/responses",
    operation="chat",
    id_prefix="resp_",
    needs=("model", "input"),
    fields=responses.FIELDS,
    complete=responses.complete,
    user=_user,
    asked=responses.asked,
    most_tokens=responses.most_tokens,
    events=answers_responses.events,
    answers=answers_responses.READING,
    dialect=dialects.RESPONSES,
    id_field="request_id",
)
MESSAGES = Endpoint(
    path="/v1/messages",
    raw_path=b"/v1/messages",
    operation="chat",
    id_prefix="msg_",
    needs=("model", "messages", "max_tokens"),
    fields=anthropic.FIELDS,
    complete=anthropic.complete,
    user=anthropic.user,
    asked=anthropic.asked,
    most_tokens=anthropic.most_tokens,
    events=answers_anthropic.events,
    answers=answers_anthropic.READING,
    dialect=dialects.ANTHROPIC,
    worded=answers_anthropic.own_id,
)
EMBEDDINGS = Endpoint(
    path="/v1/embeddings",
    raw_path=b"/v1/embeddings",
    operation="embeddings",
    id_prefix="embd-",
    needs=("model", "input"),
    fields=embeddings.FIELDS,
    complete=embeddings.complete,
    user=_user,
    asked=embeddings.asked,
    most_tokens=embeddings.most_tokens,
    events=embeddings.events,
    answers=embeddings.READING,
    dialect=dialects.OPENAI,
)

INFERENCE = Endpoint(
    path="/inference",
    raw_path=b"/v1/chat/completions",
    operation="chat",
    id_prefix="",
    needs=("input",),
    fields=tensorzero.FIELDS,
    complete=tensorzero.complete,
    user=tensorzero.user,
    asked=_messages,
    most_tokens=_most_tokens,
    events=answers_tensorzero.events,
    answers=answers.CHOICES,
    dialect=dialects.TENSORZERO,
    worded=answers_tensorzero.worded,
    new_id=new_inference_uuid,
    aside=tensorzero.aside,
)
OPENAI_OF_TENSORZERO = replace(
    CHAT_COMPLETIONS,
    path="/openai/v1/chat/completions",
    id_prefix="",
    fields=tensorzero.FIELDS_OPENAI,
    complete=tensorzero.complete_openai,
    user=tensorzero.user_openai,
    events=answers_tensorzero.events_openai,
    worded=answers_tensorzero.own_id,
    new_id=new_inference_uuid,
    aside=tensorzero.aside_openai,
)

ENDPOINTS = {
    one.path: one
    for one in (CHAT_COMPLETIONS, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, INFERENCE, OPENAI_OF_TENSORZERO)
}

FOR_EVALUATION = {one.path: replace(one, fields=one.fields | EVALUATED) for one in (CHAT_COMPLETIONS, COMPLETIONS)}
"""By path, those of which keys with the scope `evaluate` may ask more."""
