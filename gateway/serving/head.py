"""The head of a client's request: what of it is refused, and what it says. Bytes in; it knows no sockets and no models.

httptools has read it by then, strictly: what is here it lets pass (RFC 9112 gives the reasons).
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools

from gateway.errors import (
    GatewayError,
    HeadTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from gateway.serving.call import Header, rendered

HEAD_LIMIT = 64 * 1024

_OFFER = frozenset((b"connection", b"upgrade", b"http2-settings"))
_ONCE = frozenset(
    b"authorization content-encoding content-type expect host x-api-key x-episode-id x-targeting-key".split()
)
"""What two parties may read differently when it comes twice. (Two lengths or codings the parser refuses.)"""
_UTF8 = (b"utf-8", b"utf8", b"us-ascii")


def check(method: bytes, version: str, headers: Sequence[Header]) -> None:
    """Raise what is wrong with an unusual head: another version, a name twice, or a coding we do not undo."""
    if method == b"CONNECT":
        raise MethodNotAllowed("Not allowed to CONNECT here: this server is no proxy.")
    if version not in ("1.0", "1.1"):
        raise InvalidRequest("Your request is not HTTP/1.1.", code="invalid_http_request")
    seen: set[bytes] = set()
    for name, value in headers:
        if name in _ONCE and name in seen:
            raise InvalidRequest(f"Your request has the header '{name.decode()}' twice.", code="invalid_header")
        if name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            raise InvalidRequest("The transfer coding of your request is not known.", code="invalid_http_request")
        seen.add(name)


def check_size(url: bytes, headers: Sequence[Header]) -> None:
    """Raise when target and headers are longer than we take."""
    if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_LIMIT:
        raise head_too_large()


def not_json(kind: bytes) -> UnsupportedMediaType | None:
    """What to answer to a body of this content type; None where it is JSON in UTF-8."""
    name, *parameters = (part.strip() for part in kind.lower().split(b";"))
    charsets = [value.strip(b'"') for key, _, value in (p.partition(b"=") for p in parameters) if key == b"charset"]
    if name == b"application/json" and all(charset in _UTF8 for charset in charsets):
        return None
    return UnsupportedMediaType(
        "The body of your request is not JSON in UTF-8.", remedy="Send the header `Content-Type: application/json`."
    )


def without_offer(method: bytes, url: bytes, version: str, headers: Sequence[Header]) -> bytes:
    """A head as if it had not offered to go on in another protocol."""
    kept = [header for header in headers if header[0] not in _OFFER]
    said = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    if b"close" in (word.strip() for word in said):
        kept.append((b"connection", b"close"))
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version.encode(), rendered(kept))


def path_of(url: bytes) -> str:
    """The path of a target, as it was written; of an absolute one (RFC 9112 §3.2.2), too."""
    if not url.startswith(b"/"):
        url = httptools.parse_url(url).path or b"/"
    return url.partition(b"?")[0].partition(b"#")[0].decode("latin-1")


def reason(error: httptools.HttpParserError) -> GatewayError:
    """What the parser (or one of our callbacks) did not like, for the client."""
    if isinstance(error.__context__, GatewayError):
        return error.__context__
    return InvalidRequest("Your request is not valid HTTP/1.1.", code="invalid_http_request")


def head_too_large() -> HeadTooLarge:
    return HeadTooLarge("The headers of your request are too large.")


def body_too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body of your request is larger than {limit} bytes.", remedy="Send a smaller one.")
