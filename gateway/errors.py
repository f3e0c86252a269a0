"""Every error a caller can see, as a type with a status, a code, a sentence and a remedy.

    GatewayError
    ├── InvalidRequest          400  the request is wrong; `param` says where
    │   ├── MethodNotAllowed    405
    │   ├── RequestTimeout      408  the client never finished its body
    │   ├── PayloadTooLarge     413
    │   ├── UnsupportedMediaType 415 the body says that it is something else than JSON
    │   └── HeadTooLarge        431
    ├── Unauthenticated         401  no key, or one we do not know
    ├── Forbidden               403  a good key without the scope
    ├── NotFound                404  absent, or somebody else's: the two are byte-identical
    │   └── ModelNotFound       404
    ├── Conflict                409  the state moved, or the name is taken
    │   └── IdempotencyMismatch 422  the same idempotency key with another body
    ├── AdapterRefused          422  the adapter cannot be served; the message says what to change
    ├── RateLimited             429  too much at once; its headers say how much is left, and when to try again
    │   ├── RequestsLimited     429
    │   ├── TokensLimited       429
    │   └── QuotaExceeded       429  the day's or the month's tokens are used up: trying again is of no use
    ├── EngineFailed            502  the engine answered with nonsense or died
    │   └── UpstreamBroken      502  its connection broke before the answer was whole
    ├── Unavailable             503  starting, reconciling, draining, or the database is away; always with Retry-After
    └── EngineTimeout           504

The body is OpenAI's: `{"error": {"message", "type", "param", "code"}}`. Expected errors are never 500s.
This module knows nothing about HTTP frameworks: it renders bytes.
"""

from __future__ import annotations

import json
from typing import ClassVar


class GatewayError(Exception):
    """Base of all expected errors. `message` is a sentence; `remedy`, if given, says what to do and follows it."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = f"{message} {remedy}" if remedy else message
        self.param = param
        self.code = code or self.default_code
        self.retry_after = retry_after

    def body(self) -> bytes:
        """The response body in OpenAI's shape."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that go with `body()`: content type and length, and Retry-After (seconds) where one is known."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body()))]
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after))
        return headers


class InvalidRequest(GatewayError):
    status, type = 400, "invalid_request_error"


class MethodNotAllowed(InvalidRequest):
    status, default_code = 405, "method_not_allowed"


class RequestTimeout(InvalidRequest):
    status, default_code = 408, "request_timeout"


class PayloadTooLarge(InvalidRequest):
    status, default_code = 413, "payload_too_large"


class UnsupportedMediaType(InvalidRequest):
    status, default_code = 415, "unsupported_media_type"


class HeadTooLarge(InvalidRequest):
    status, default_code = 431, "request_header_fields_too_large"


class Unauthenticated(GatewayError):
    status, type, default_code = 401, "invalid_request_error", "invalid_api_key"


class Forbidden(GatewayError):
    status, type, default_code = 403, "invalid_request_error", "insufficient_scope"


class NotFound(GatewayError):
    status, type, default_code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"

    def __init__(self, model: str) -> None:
        # One sentence for unknown, foreign and retired alike: a caller must not learn which.
        super().__init__(f"The model `{model}` does not exist or you do not have access to it.", param="model")


class Conflict(GatewayError):
    status, type, default_code = 409, "invalid_request_error", "conflict"


class IdempotencyMismatch(Conflict):
    status, default_code = 422, "idempotency_key_reused"


class AdapterRefused(GatewayError):
    status, type, default_code = 422, "invalid_request_error", "adapter_refused"


class RateLimited(GatewayError):
    """`limits` are further headers of the answer: `retry-after-ms`, `x-ratelimit-…`, `x-should-retry`."""

    status, type, default_code = 429, "rate_limit_error", "rate_limit_exceeded"
    limits: tuple[tuple[bytes, bytes], ...] = ()

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), *self.limits]


class RequestsLimited(RateLimited):
    type = "requests"


class TokensLimited(RateLimited):
    type = "tokens"


class QuotaExceeded(RateLimited):
    type, default_code = "insufficient_quota", "insufficient_quota"


class EngineFailed(GatewayError):
    status, default_code = 502, "engine_failed"


class UpstreamBroken(EngineFailed):
    pass


class Unavailable(GatewayError):
    status, default_code = 503, "server_is_overloaded"

    def __init__(
        self, message: str, *, retry_after: int = 2, remedy: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy, code=code, retry_after=retry_after)


class EngineTimeout(GatewayError):
    status, default_code = 504, "engine_timeout"
