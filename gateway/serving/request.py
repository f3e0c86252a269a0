"""A client's body, read once: bytes in, a checked request out, from which the engine's body is rebuilt.

Whatever is not in the allow-list (fields.py) does not reach the engine; NaN, duplicate keys and lone surrogates do not
survive decoding and encoding. It knows nothing of tenants, aliases or sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.serving.checks import Check, missing, unsupported, wrong_type, wrong_value
from gateway.serving.fields import CHAT, MOST_PROMPTS, REFUSED, SCALARS, TEXT
from gateway.serving.schemas import refuse_forced_patterns

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the two routes: its path, its OpenTelemetry operation, what its ids begin with and what it needs."""

    path: str
    raw_path: bytes
    operation: str
    id_prefix: str
    needs: str
    fields: dict[str, Check]


CHAT_COMPLETIONS = Endpoint("/v1/chat/completions", b"/v1/chat/completions", "chat", "chatcmpl-", "messages", CHAT)
COMPLETIONS = Endpoint("/v1/completions", b"/v1/completions", "text_completion", "cmpl-", "prompt", TEXT)


@dataclass(slots=True)
class Request:
    """A checked request. `fields` is what goes upstream, less the engine's name for the model and the cache salt.

    `targeting` is the first of safety_identifier, user and prompt_cache_key. `wants_usage`: the client asked for the
    usage event at the end of its stream (the engine is always asked for it).
    """

    endpoint: Endpoint
    model: str
    stream: bool
    wants_usage: bool
    targeting: str | None
    fields: dict[str, Any]

    def body(self, engine_model: str, salt: str) -> bytes:
        """The engine's body."""
        self.fields["model"] = engine_model
        self.fields["cache_salt"] = salt
        return _encode(self.fields)

    def params(self) -> dict[str, Any]:
        """The sampling parameters, to remember: numbers, switches and short words; never text of the client's."""
        found = {name: self.fields[name] for name in SCALARS & self.fields.keys()}
        choice = self.fields.get("tool_choice")
        if type(choice) is str:
            found["tool_choice"] = choice
        return found

    def messages(self) -> list[dict[str, Any]]:
        """What was asked, as messages: a completion's prompt counts as one user message."""
        if self.endpoint.needs == "messages":
            return list(self.fields["messages"])
        prompt = self.fields["prompt"]
        return [{"role": "user", "content": prompt if type(prompt) is str else _encode(prompt).decode()}]


def parse(raw: bytes, endpoint: Endpoint) -> Request:
    """Read and check a body. Raises `InvalidRequest`."""
    body = _object(raw)
    fields: dict[str, Any] = {}
    known = endpoint.fields
    for name, value in body.items():
        if value is None:  # as good as absent, as OpenAI has it
            continue
        check = known.get(name)
        if check is None:
            raise _unknown(name)
        value = check(name, value)
        if value is not None:
            fields[name] = value
    for needed in ("model", endpoint.needs):
        if needed not in fields:
            raise missing(needed)
    stream = fields.get("stream", False)
    wants_usage = _check_together(fields, stream=stream)
    targeting = body.get("safety_identifier") or body.get("user") or body.get("prompt_cache_key") or None
    return Request(endpoint, fields.pop("model"), stream, wants_usage, targeting, fields)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(
            "We could not parse the JSON body of your request.", remedy="Send one JSON object, in UTF-8."
        ) from None
    except RecursionError:
        raise InvalidRequest("The JSON body of your request is nested too deeply.") from None
    if type(body) is not dict:
        raise wrong_type("body", "an object", body)
    return body


def _check_together(fields: dict[str, Any], *, stream: bool) -> bool:
    """The rules that take two fields; completes the stream options. Returns whether the client asked for usage."""
    options = fields.get("stream_options")
    if options is not None and not stream:
        raise wrong_value("stream_options", "only allowed when 'stream' is true")
    wants_usage = options is not None and options.get("include_usage") is True
    if stream:
        fields["stream_options"] = {**options, "include_usage": True} if options else {"include_usage": True}
    if not _SPECIAL.isdisjoint(fields):
        _check_answer_fields(fields)
    return wants_usage


_SPECIAL = frozenset(("top_logprobs", "echo", "best_of", "n", "tool_choice"))


def _check_answer_fields(fields: dict[str, Any]) -> None:
    if fields.get("top_logprobs") and not fields.get("logprobs"):
        raise wrong_value("top_logprobs", "only allowed when 'logprobs' is true")
    if fields.get("echo") and fields.get("logprobs", False) is not False:
        raise unsupported("echo", "Together with 'logprobs' it asks for the prompt's log-probabilities.")
    n = fields.get("n", 1)
    if fields.pop("best_of", n) != n:
        raise unsupported("best_of", "Use 'n', and choose among the answers.")
    prompts = fields.get("prompt")
    if type(prompts) is list and type(prompts[0]) is not int and len(prompts) * n > MOST_PROMPTS:
        raise wrong_value(
            "n", f"expected at most {MOST_PROMPTS} answers in one request", code="integer_above_max_value"
        )
    choice = fields.get("tool_choice")
    if choice is not None:
        if "tools" not in fields:
            if choice != "none":
                raise wrong_value("tool_choice", "only allowed when 'tools' are specified")
            del fields["tool_choice"]
        elif choice == "required" or type(choice) is dict:
            refuse_forced_patterns(fields["tools"])


def _unknown(name: str) -> InvalidRequest:
    why = REFUSED.get(name)
    if why is not None:
        return unsupported(name, why)
    shown = name if len(name) <= 64 else name[:64] + "…"
    return InvalidRequest(f"Unknown parameter: '{shown}'.", param=shown, code="unknown_parameter")
