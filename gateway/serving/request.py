"""A client's body, read once: bytes in, a checked request out, from which the engine's body is rebuilt.

Whatever is not in the endpoint's allow-list does not reach the engine; NaN, duplicate keys and lone surrogates do not
survive decoding and encoding. It knows nothing of tenants, aliases or sockets.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.serving.aside import Aside, Named
from gateway.serving.checks import dropped, missing, unsupported, wrong_type
from gateway.serving.endpoints import CHAT_COMPLETIONS, COMPLETIONS, ENDPOINTS, FOR_EVALUATION, Endpoint
from gateway.serving.fields import REFUSED, SCALARS
from gateway.serving.labels import labels_of
from gateway.serving.plain import plain_chat
from gateway.serving.sse import Events

__all__ = ["CHAT_COMPLETIONS", "COMPLETIONS", "ENDPOINTS", "FOR_EVALUATION", "Endpoint", "Request", "parse"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct):
    """A checked request. `fields` is what goes upstream, less the engine's name for the model and the cache salt.

    `targeting` is what the body says about its user, `tier` its service tier. `wants_usage`: the client asked for the
    usage event at the end of its stream (the engine is always asked for it).
    """

    endpoint: Endpoint
    model: str
    stream: bool
    wants_usage: bool
    targeting: str | None
    tier: str | None
    fields: dict[str, Any]
    sampling: dict[str, Any] | None = None
    """`params`, where they are known already."""
    aside: Aside | None = None
    labels: dict[str, str] | None = None
    """What its `metadata` says of it in short, for experiments."""

    def body(self, engine_model: str, salt: str, inference_id: str = "") -> bytes:
        """The engine's body. `inference_id` (bare) is for engines that do not take it from a header."""
        fields, endpoint = self.fields, self.endpoint
        fields["model"] = engine_model
        fields["cache_salt"] = salt
        if endpoint.id_field is not None:
            fields[endpoint.id_field] = endpoint.id_prefix + inference_id
        return _encode(fields)

    def params(self) -> dict[str, Any]:
        """The sampling parameters, to remember: numbers, switches and short words; and the request's labels, as
        `metadata`. Never text of the client's."""
        if self.sampling is not None:
            return self.sampling
        found = {name: value for name, value in self.fields.items() if name in SCALARS}
        choice = self.fields.get("tool_choice")
        if type(choice) is str:
            found["tool_choice"] = choice
        if self.labels:
            found["metadata"] = self.labels
        return found

    def messages(self) -> list[dict[str, Any]] | None:
        """What was asked, as a chat; None where it is none."""
        return self.endpoint.asked(self.fields)

    def most_tokens(self) -> int | None:
        """How many tokens the answers may have together; None where the client set no bound."""
        return self.endpoint.most_tokens(self.fields)

    def events(self, named: Named, *, keep: int = 0) -> Events:
        """The reader of this request's stream; it keeps up to `keep` bytes of it."""
        return self.endpoint.events(wants_usage=self.wants_usage, keep=keep, named=named)


def parse(raw: bytes, endpoint: Endpoint) -> Request:
    """Read and check a body. Raises `InvalidRequest`."""
    if endpoint is CHAT_COMPLETIONS and (chat := plain_chat(raw)) is not None:
        return _plain(chat)
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
    for needed in endpoint.needs:
        if needed not in fields:
            raise missing(needed)
    stream = fields.get("stream", False)
    wants_usage = endpoint.complete(fields, stream)
    user, tier = endpoint.user(body), body.get("service_tier")
    aside = endpoint.aside(body) if endpoint.aside is not None else None
    # An endpoint that checks its metadata has another use for it (Anthropic's names the user).
    own = labels_of(body.get("metadata")) if known.get("metadata") is dropped else None
    labels = aside.labels if aside is not None else own
    model = fields.pop("model")
    return Request(endpoint, model, stream, wants_usage, user, tier, fields, aside=aside, labels=labels)


def _plain(fields: dict[str, Any]) -> Request:
    """A plain chat's request. What is dropped is dropped, and what the gateway adds is added, as below."""
    user = None
    if not _LABELS.isdisjoint(fields):
        user = CHAT_COMPLETIONS.user(fields)
        for name in _LABELS:
            fields.pop(name, None)
    model = fields.pop("model")
    sampling = fields.copy()  # what else may be in a plain chat is a parameter of the sampling
    del sampling["messages"]
    stream = fields.get("stream", False)
    if stream:
        fields["stream_options"] = {"include_usage": True}
    return Request(CHAT_COMPLETIONS, model, stream, False, user, None, fields, sampling)


_LABELS = frozenset(("safety_identifier", "user", "prompt_cache_key"))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = _decode(raw)
        # The decoder takes the last of two equal keys, and with the other some quotes are gone. (Only `\\u0022` is a
        # quote that is not written as one.)
        if raw.count(b'"') != _encode(body).count(b'"') or b"\\u" in raw:
            json.loads(raw.decode(), object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(
            "We could not parse the JSON body of your request.", remedy="Send one JSON object, in UTF-8."
        ) from None
    except RecursionError:
        raise InvalidRequest("The JSON body of your request is nested too deeply.") from None
    if type(body) is not dict:
        raise wrong_type("body", "an object", body)
    return body


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    """An object's keys and values. Raises `InvalidRequest` when a key comes twice."""
    if len(dict(pairs)) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)[:64]
        raise InvalidRequest(f"The key '{name}' comes twice in one object of your request.", param=name)


def _unknown(name: str) -> InvalidRequest:
    why = REFUSED.get(name)
    if why is not None:
        return unsupported(name, why)
    shown = name if len(name) <= 64 else name[:64] + "…"
    return InvalidRequest(f"Unknown parameter: '{shown}'.", param=shown, code="unknown_parameter")
