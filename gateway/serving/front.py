"""One client connection: HTTP/1.1 in front of the door, and in front of every other ASGI application.

uvicorn owns the sockets and the process; this class takes the place of its HTTP protocol (`uvicorn.Config(http=…)`).
A request for the data plane is read whole, within bounds, and handed to the door as a `Call`: no ASGI messages, no
scope, and a client that leaves is known at once. Everything else becomes uvicorn's own request cycle. The requests of
a connection are answered one at a time, in order. It knows nothing of models (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import GatewayError, HeadTooLarge, InvalidRequest, PayloadTooLarge, RequestTimeout
from gateway.serving.call import Call, rendered
from gateway.serving.request import ENDPOINTS

_log = logging.getLogger("gateway.front")

HEAD_LIMIT = 64 * 1024
HIGH_WATER = 64 * 1024
"""Bytes of an upload that may wait for the application before the socket is not read any more."""

KEEP_SECONDS = 75.0
"""How long an idle connection is kept: nginx's number. Clients' pools give up earlier, so they seldom meet a close."""
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
SLOWEST = 16 * 1024
"""Bytes a second that a body must bring on average after its first BODY_SECONDS."""

DISCARDED = 4
"""A body up to so many times the limit is read to its end before it is refused: a client that is cut off in the middle
of sending sees a broken connection instead of the reason."""
STRANGERS = 256 * 1024
"""Bytes of a body beyond which its sender has to be known before more is kept."""

_OFFER = frozenset((b"connection", b"upgrade", b"http2-settings"))

_Turn = Call | RequestResponseCycle


class Desk(Protocol):
    """What a connection needs of the door."""

    max_body: int
    head_seconds: float
    body_seconds: float
    stall_seconds: float
    fronts: set[Front]

    def handles(self, path: str) -> bool: ...

    def serve(self, call: Call) -> Coroutine[Any, Any, None]: ...

    def admit(self, headers: Mapping[bytes, bytes]) -> None: ...


class Front(asyncio.Protocol):
    """One connection. `look` is called now and then by the door and enforces the deadlines."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Desk,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config, self._state, self._app_state = config, server_state, app_state
        self._loop = _loop or asyncio.get_event_loop()
        self.door = door
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # until connection_made
        self.flow: FlowControl = cast(FlowControl, None)
        self._turn: _Turn | None = None
        self._queue: deque[_Turn] = deque()
        self._reading: _Turn | None = None  # whose body is being read
        self._in_head = self._in_message = self._closing = self.lost = False
        self._since = self._loop.time()  # of the present silence or message
        self._head_bytes = self._size = self._unsent = 0
        self._url = self._method = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self._transport)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes
        self.door.fronts.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._state.connections.discard(self)
        self.door.fronts.discard(self)
        turn = self._turn
        if isinstance(turn, Call):
            turn.leave()
        for one in (turn, *self._queue):
            if isinstance(one, RequestResponseCycle):
                one.disconnected = not one.response_complete
                one.message_event.set()
        self._queue.clear()
        self.flow.resume_writing()

    def pause_writing(self) -> None:
        self._unsent, self._since = self._transport.get_write_buffer_size(), self._loop.time()
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._in_message:
            self._since, self._head_bytes = self._loop.time(), 0
            self._in_head = self._in_message = True
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(_reason(error))
            return
        if self._in_head and self._head_bytes > HEAD_LIMIT:
            self._reject(HeadTooLarge("The headers of your request are too large."))

    # The parser's callbacks.

    def _decline(self, rest: bytes) -> None:
        """An offer to speak something else (Java's client offers h2c with each first request) is not taken up: the
        request counts as if it had not been made. The parser, which stopped before the body, begins again."""
        kept = [header for header in self._headers if header[0] not in _OFFER]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"%b %b HTTP/1.1\r\n%b\r\n" % (self._method, self._url, rendered(kept)) + rest)

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        self._url, self._headers = b"", []
        self._size, self._parts = 0, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else: a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head, self._reading = False, None
        parser, url = self._parser, self._url
        if self._head_bytes > HEAD_LIMIT and sum(len(n) + len(v) for n, v in self._headers) > HEAD_LIMIT:
            raise HeadTooLarge("The headers of your request are too large.")
        self._method = method = parser.get_method()
        if parser.should_upgrade():
            return  # `_decline` reads it again
        headers, keep = dict(self._headers), parser.should_keep_alive()
        # HTTP/1.0 never keeps a connection here; where there is no word of it, keeping it is 1.1's default.
        modern = (keep and b"connection" not in headers) or parser.get_http_version() == "1.1"
        path = _KNOWN.get(url) or _path_of(url)
        if self.door.handles(path):
            self._reading = call = Call(self, method.decode(), path, headers, chunks=modern, keep=keep and modern)
            length = headers.get(b"content-length")
            if length is not None and len(length) > 6 and int(length) > self.door.max_body * DISCARDED:
                self._refuse_unread(call, too_large(self.door.max_body))
            elif b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and self._turn is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            self._reading = self._cycle(method.decode(), path, modern=modern, keep=keep and modern)
            self._line_up(self._reading)

    def on_body(self, body: bytes) -> None:
        call, self._size = self._reading, self._size + len(body)
        if isinstance(call, RequestResponseCycle):
            if not call.response_complete:
                call.body += body
                call.message_event.set()
                if len(call.body) > HIGH_WATER:
                    self.flow.pause_reading()
                self._since = self._loop.time()
            return
        if call is None or call.refusal is not None:
            pass  # read, to be refused at its end
        elif self._size <= self.door.max_body:
            self._parts.append(body)
            if self._size - len(body) <= STRANGERS < self._size:
                self._admit(call)
        else:
            self._parts = []
            call.refusal = too_large(self.door.max_body)
        if self._size > self.door.max_body * DISCARDED and call is not None:
            self._refuse_unread(call, too_large(self.door.max_body))

    def on_message_complete(self) -> None:
        self._in_message = False
        turn, self._reading = self._reading, None
        if isinstance(turn, Call):
            turn.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            self._line_up(turn)
        elif turn is not None and not turn.response_complete:
            turn.more_body = False
            turn.message_event.set()

    # One request after the other.

    def _line_up(self, turn: _Turn) -> None:
        if self._turn is None:
            self._start(turn)
        else:
            self._queue.append(turn)
            self.flow.pause_reading()

    def _start(self, turn: _Turn) -> None:
        self._turn = turn
        if isinstance(turn, Call):
            # The task is as much uvicorn's: its server waits for it at the end, and cancels what takes too long.
            turn.task = task = self._loop.create_task(self.door.serve(turn))
        else:
            task = self._loop.create_task(turn.run_asgi(self._config.loaded_app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def finished(self, *, keep: bool) -> None:
        """The answer to the present turn has been written."""
        self._turn = None
        self._since = self._loop.time()
        if not keep:
            self._closing = True
            self._transport.close()
        elif self._queue:
            self._start(self._queue.popleft())
        elif self._closing:
            self._transport.close()
        else:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Called by uvicorn: no further request on this connection."""
        if self._turn is None:
            self._transport.close()
        elif isinstance(self._turn, Call):
            self._turn.keep = False
        else:
            self._turn.keep_alive = False

    def _admit(self, call: Call) -> None:
        try:
            self.door.admit(call.headers)
        except GatewayError as error:
            call.refusal, self._parts = error, []

    def _refuse_unread(self, call: Call, error: GatewayError) -> None:
        """Refuse a request whose body nobody will read: the connection ends with the answer."""
        self._closing, self._reading, self._parts = True, None, []
        call.refusal, call.keep = error, False
        self._line_up(call)

    def _reject(self, error: GatewayError) -> None:
        """What came is no request. Who waits for an answer gets it; then the connection ends."""
        self._closing = True
        if self._turn is None and not self._transport.is_closing():
            body = error.body()
            headers = rendered([*error.headers(), (b"connection", b"close")])
            self._transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (error.status, b"Refused", headers, body))
            self._transport.close()

    def _cycle(self, method: str, path: str, *, modern: bool, keep: bool) -> RequestResponseCycle:
        """uvicorn's own cycle, for the other application."""
        scope = {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1" if modern else "1.0",
            "server": self._transport.get_extra_info("sockname"),
            "client": self._transport.get_extra_info("peername") or None,
            "scheme": "http",
            "root_path": "",
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": path.encode("latin-1"),
            "query_string": self._url.partition(b"?")[2],
            "headers": self._headers,
            "state": self._app_state.copy(),
        }
        cycle = RequestResponseCycle(
            scope=cast(Any, scope),
            transport=self._transport,
            flow=self.flow,
            logger=_log,
            access_logger=_log,
            access_log=False,
            default_headers=self._state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=(b"expect", b"100-continue") in self._headers,
            keep_alive=keep,
            on_response=lambda: self.finished(keep=cycle.keep_alive),
        )
        return cycle

    @property
    def date(self) -> bytes:
        """The headers uvicorn gives every answer, rendered: the date, renewed each second."""
        global _dated
        if _dated[0] is not self._state.default_headers:
            _dated = self._state.default_headers, rendered(self._state.default_headers)
        return _dated[1]

    def write(self, data: bytes) -> None:
        if not self.lost:
            self._transport.write(data)

    # Deadlines.

    def look(self, now: float) -> None:
        """Close what has been idle, unfinished or unread for too long."""
        turn, waited = self._turn, now - self._since
        if self.flow.write_paused:
            self._look_at_reader(now, waited)
        elif self.flow.read_paused:
            pass  # it is us who keep it waiting
        elif turn is None and not self._in_message:
            if waited > KEEP_SECONDS:
                self._transport.abort()  # whatever is still unsent was not wanted for so long
        elif self._in_head and self._in_message:
            if waited > self.door.head_seconds:
                self._reject(RequestTimeout("The headers of your request did not arrive in time."))
        elif isinstance(self._reading, Call) and waited > self.door.body_seconds + self._size / SLOWEST:
            self._refuse_unread(self._reading, RequestTimeout("The body of your request did not arrive in time."))
        elif isinstance(self._reading, RequestResponseCycle) and waited > self.door.body_seconds:
            self._transport.abort()  # an upload that stopped; its application sees a disconnect

    def _look_at_reader(self, now: float, waited: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._since = unsent, now
        elif waited > self.door.stall_seconds:
            self._transport.abort()


_dated: tuple[object, bytes] = (None, b"")
"""uvicorn's list of default headers, and how it reads: rendered once a second, not once a request."""


_KNOWN = {path.encode(): path for path in ENDPOINTS}


def _path_of(url: bytes) -> str:
    """The path of a target, as it was written; of an absolute one (RFC 9112 §3.2.2), too."""
    if not url.startswith(b"/"):
        url = httptools.parse_url(url).path or b"/"
    return url.partition(b"?")[0].partition(b"#")[0].decode("latin-1")


def _reason(error: httptools.HttpParserError) -> GatewayError:
    """What the parser (or one of our callbacks) did not like, for the client."""
    if isinstance(error.__context__, GatewayError):
        return error.__context__
    return InvalidRequest("Your request is not valid HTTP/1.1.", code="invalid_http_request")


def too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body of your request is larger than {limit} bytes.", remedy="Send a smaller one.")
