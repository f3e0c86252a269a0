"""Requests for Responses, Anthropic's messages and embeddings, and what of them goes upstream."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gateway.serving.endpoints import EMBEDDINGS, MESSAGES, RESPONSES, Endpoint
from gateway.serving.request import Request, parse

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
BASIS: dict[Endpoint, dict[str, Any]] = {
    RESPONSES: {"model": "m", "input": "hello"},
    MESSAGES: {"model": "m", "messages": HELLO, "max_tokens": 64},
    EMBEDDINGS: {"model": "m", "input": "hello"},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
PATTERN = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a|aa)+b"}}}
PICTURE = "data:image/png;base64,AAAA"
SOURCE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
REMOTE = "http://169.254.169.254/latest/meta-data"


def read(endpoint: Endpoint, **fields: Any) -> Request:
    return parse(json.dumps(BASIS[endpoint] | fields).encode(), endpoint)


def sent(endpoint: Endpoint, **fields: Any) -> dict[str, Any]:
    """What goes upstream, less what is the same for all."""
    told = msgspec.json.decode(read(endpoint, **fields).body("acme/support@1", "salt", "0f"))
    assert told.pop("cache_salt") == "salt" and told.pop("model") == "acme/support@1"
    if endpoint is RESPONSES:
        assert told.pop("store") is False and told.pop("request_id") == "resp_0f"
    return dict(told)


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def tool(**more: Any) -> list[Any]:
    return [{"type": "function", "name": "f", "parameters": SCHEMA, **more}]


def picture(source: Any) -> list[Any]:
    return user({"type": "image", "source": source})


def taken(**more: Any) -> list[Any]:
    return [{"name": "f", "input_schema": SCHEMA, **more}]
