"""What an engine's error answers come to: the gateway's errors, with sentences fit for a client (FACTS G8).

It knows vLLM's error shape and nothing of connections or settings, so that the data plane may use it too.
"""

from __future__ import annotations

import json
import re

from gateway.errors import (
    EngineFailed,
    GatewayError,
    InvalidRequest,
    PayloadTooLarge,
    RateLimited,
    Unavailable,
)

_PATH = re.compile(r"(?<![\w.:/@])/(?:[\w.@+~-]+/?)+|\b[A-Za-z]:\\[^\s'\"]+|\b\w+://[^\s'\",;)]+")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b0x[0-9a-fA-F]{6,}\b|\blocalhost:\d+\b")
_NO_API = re.compile(r"does not support \w+ API")
NOT_FINITE = re.compile(r"out of range float|not JSON compliant", re.IGNORECASE)


def lacks_route(status: int, body: bytes) -> bool:
    """Whether an engine's answer says that it does not serve the endpoint at all, rather than not this model.

    vLLM has no route for what its model cannot do (404 "Not Found"), or one that says so (501, "The model does not
    support … API"). Of a model it does not hold it says that it does not exist, with the parameter `model`.
    """
    if status == 405:
        return True
    if status not in (404, 501):
        return False
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return status == 404  # a web server's own page
    error = told.get("error", told.get("detail")) if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if status == 501:
        return isinstance(message, str) and _NO_API.search(message) is not None
    if not isinstance(message, str):
        return True
    return message.lower().endswith("not found") and "model" not in message.lower()


def engine_sentence(body: bytes) -> str:
    """What an engine's error body says, in at most 500 characters, without paths and addresses (FACTS G8)."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    error = told.get("error") if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str) or not message:
        return "It gave no reason."
    message = _ADDRESS.sub("(address)", _PATH.sub("(path)", message))
    return message if len(message) <= 500 else message[:499] + "…"


def engine_error(status: int, body: bytes) -> GatewayError:
    """The gateway's error for an engine's answer of `status` ≥ 400.

    What is the client's fault keeps the engine's sentence; what is the engine's fault is never quoted. A 404 means that
    the engine does not hold the weights: before the first byte the caller may load them again and retry.
    """
    sentence = engine_sentence(body)
    if status == 404:
        return Unavailable("The engine does not hold this model's weights at the moment.", retry_after=1)
    if status == 429:
        return RateLimited("The engine has too much to do.", remedy="Try again in a moment.", retry_after=1)
    if status == 503:
        return Unavailable("The engine takes no requests at the moment.", remedy="Try again in a moment.")
    if status == 413:
        return PayloadTooLarge(sentence)
    if status in (400, 422, 501) and not NOT_FINITE.search(sentence):
        context = "maximum context length" in sentence or "max_model_len" in sentence
        return InvalidRequest(sentence, param=_param(body), code="context_length_exceeded" if context else None)
    return EngineFailed("The engine failed on this request.")


def _param(body: bytes) -> str | None:
    try:
        param = json.loads(body)["error"]["param"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return param if isinstance(param, str) else None
