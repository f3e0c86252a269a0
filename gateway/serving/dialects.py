"""How an error is worded for an endpoint's clients: in OpenAI's shape, as an event of its Responses, in Anthropic's
and in TensorZero's.

An error in, bytes out. It knows nothing of sockets or of where in a request the error came up.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from typing import Any

from gateway.errors import GatewayError

_SEQUENCE = re.compile(rb'"sequence_number": ?(\d+)')
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's names for statuses; below 500 the rest are `invalid_request_error`, above it `api_error`."""


class Dialect(ABC):
    """`request_id` is the bare inference id, or empty before there is one."""

    id_header: bytes | None = None
    """A further header in which these clients look for the request's id, beside `x-request-id`."""

    def body(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an HTTP error."""
        return error.body()

    @abstractmethod
    def event(self, error: GatewayError, request_id: str, last: bytes) -> bytes:
        """The last event of a stream that failed. `last` ends with the last event the client got."""


class OpenAI(Dialect):
    """`{"error": {"message", "type", "param", "code"}}`, in a stream as the data of an event without a name."""

    def event(self, error: GatewayError, request_id: str, last: bytes) -> bytes:
        return b"data: " + error.body() + b"\n\n"


class Responses(Dialect):
    """OpenAI's Responses: the same body; in a stream an event of the type `error`, numbered like all others."""

    def event(self, error: GatewayError, request_id: str, last: bytes) -> bytes:
        numbers = _SEQUENCE.findall(last)
        number = int(numbers[-1]) + 1 if numbers else 0
        told = {"type": "error", "code": error.code or error.type, "message": error.message, "param": error.param}
        return b"event: error\ndata: " + _json(told | {"sequence_number": number}) + b"\n\n"


class Anthropic(Dialect):
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`, in a stream as the event `error`."""

    id_header = b"request-id"

    def body(self, error: GatewayError, request_id: str) -> bytes:
        kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
        told = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id or None}
        return _json(told)

    def event(self, error: GatewayError, request_id: str, last: bytes) -> bytes:
        return b"event: error\ndata: " + self.body(error, request_id) + b"\n\n"


class TensorZero(Dialect):
    """`{"error": "a sentence"}`, in a stream as the data of an event without a name."""

    def body(self, error: GatewayError, request_id: str) -> bytes:
        return _json({"error": error.message})

    def event(self, error: GatewayError, request_id: str, last: bytes) -> bytes:
        return b"data: " + self.body(error, request_id) + b"\n\n"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


OPENAI, RESPONSES, ANTHROPIC, TENSORZERO = OpenAI(), Responses(), Anthropic(), TensorZero()
