"""One client connection: HTTP/1.1 in front of the door, and in front of every other ASGI application.

uvicorn owns the sockets and the process; this class takes the place of its HTTP protocol (`uvicorn.Config(http=…)`).
A request for the data plane is read whole, within bounds, and handed to the door as a `Call`: no ASGI messages, no
scope, and a client that leaves is known at once. Everything else becomes uvicorn's own request cycle. The requests of
a connection are answered one at a time, in order. It knows nothing of models (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from socket import SO_ERROR, SOL_SOCKET
from typing import Any, Protocol, cast

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import GatewayError, InvalidRequest, RequestTimeout
from gateway.heads import Heads, cut
from gateway.serving.call import CONTINUE, Call, rendered
from gateway.serving.cycle import Cycles
from gateway.serving.head import (
    HEAD_LIMIT,
    body_too_large,
    check,
    check_size,
    head_too_large,
    not_json,
    path_of,
    reason,
    without_offer,
)
from gateway.serving.request import ENDPOINTS

WAITING = 8
"""Requests of one connection that may wait for their turn before its socket is not read any more."""
HIGH_WATER = 64 * 1024
"""Bytes of an upload that may wait for the application before the socket is not read any more."""

KEEP_SECONDS = 75.0
"""How long an idle connection is kept: nginx's number. Clients' pools give up earlier, so they seldom meet a close."""
LINGER_SECONDS = 3.0
"""How long a client may go on sending what nobody reads after it was refused."""
PROBE_SECONDS = 0.1
"""Until a probe's answer is looked for; again with each look."""
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
SLOWEST = 16 * 1024
"""Bytes a second that a body must bring on average after its first BODY_SECONDS."""

DISCARDED = 4
"""A body up to so many times the limit is read to its end before it is refused: a client that is cut off in the middle
of sending sees a broken connection instead of the reason."""
STRANGERS = 256 * 1024
"""Bytes of a body beyond which its sender has to be known before more is kept."""

_Turn = Call | RequestResponseCycle


class Desk(Protocol):
    """What a connection needs of the door."""

    max_body: int
    heads: Heads[tuple[str, Mapping[bytes, bytes]]]
    head_seconds: float
    body_seconds: float
    stall_seconds: float
    fronts: set[Front]

    def handles(self, path: str) -> bool: ...

    def serve(self, call: Call) -> Coroutine[Any, Any, None]: ...

    def admit(self, headers: Mapping[bytes, bytes]) -> None: ...


# long because: a connection is one state, and its callbacks share all of it.
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
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # until connection_made
        self.flow: FlowControl = cast(FlowControl, None)
        self._cycles: Cycles = cast(Cycles, None)
        self._turn: _Turn | None = None
        self._queue: deque[_Turn] = deque()
        self._reading: _Turn | None = None  # whose body is being read
        self._in_head = self._in_message = self.lost = False
        self._closing = False  # nothing more is read
        self._unread = False  # there may be more to read
        self._half = False  # the client sends no more
        self._since = self._loop.time()  # of the present silence or message
        self._head_bytes = self._size = self._unsent = 0
        self._url = self._method = self._begins = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        self._cycles = Cycles(self._config, self._state, self._app_state, self.transport, self.flow, self.finished)
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

    def eof_received(self) -> bool:
        """The client sends no more. Either it only half closed, and waits for its answers, or it has left: the same to
        TCP, until we send something. So we do."""
        if self._turn is None:
            if self._in_message and not self._closing:
                self._reject(InvalidRequest("Your request ended before it was complete.", code="invalid_http_request"))
            return False
        if isinstance(self._reading, RequestResponseCycle):
            return False  # its application reads what will never be whole
        self._half = self._closing = True
        self._last_of_line()
        if isinstance(self._turn, Call):
            self._turn.probe()
        elif not self._turn.response_started and self._turn.scope["http_version"] == "1.1":
            self.transport.write(CONTINUE)
        self._loop.call_later(PROBE_SECONDS, self._look_for_client)
        return True

    def pause_writing(self) -> None:
        self._unsent, self._since = self.transport.get_write_buffer_size(), self._loop.time()
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._in_message:
            if self._is_known(data):
                return
            self._since, self._head_bytes, self._begins = self._loop.time(), 0, data
            self._in_head = self._in_message = True
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            # An offer to speak something else (Java's client offers h2c with each first request) is not taken up: the
            # request counts as if it had not been made. The parser, which stopped before the body, begins again.
            again = without_offer(self._method, self._url, self._parser.get_http_version(), self._headers)
            self._parser = httptools.HttpRequestParser(self)
            self.data_received(again + data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(reason(error))
            return
        if self._in_head and self._head_bytes > HEAD_LIMIT:
            self._reject(head_too_large())

    def _is_known(self, data: bytes) -> bool:
        """The usual request: it came whole, and its head has been read before, but for its length."""
        found = cut(data)
        if found is None:
            return False
        remains, begin, length = found
        head = self.door.heads.get(remains)
        if head is None or len(data) - begin != length or length > self.door.max_body:
            return False
        self._since, self._size = self._loop.time(), length
        self._line_up(Call(self, "POST", head[0], head[1], True, True, data[begin:]))
        return True

    # The parser's callbacks.

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
        begins, self._begins = self._begins, b""  # it tells of the first head in it only
        parser, url, listed = self._parser, self._url, self._headers
        if self._head_bytes > HEAD_LIMIT:
            check_size(url, listed)
        self._method = method = parser.get_method()
        headers, keep, modern = dict(listed), parser.should_keep_alive(), True
        usual = keep and b"transfer-encoding" not in headers and len(headers) == len(listed) and method != b"CONNECT"
        if not usual or b"connection" in headers:  # without a word of it, a connection that is kept is HTTP/1.1's
            version = parser.get_http_version()
            check(method, version, listed)
            modern = version == "1.1"
            if parser.should_upgrade():
                return  # `data_received` reads it again
            usual = usual and modern and headers[b"connection"].lower() == b"keep-alive"
        keep = keep and modern  # HTTP/1.0 never keeps a connection here
        path = _KNOWN.get(url) or path_of(url)
        if self.door.handles(path):
            self._call(Call(self, method.decode(), path, headers, modern, keep), begins if usual else b"")
        else:
            self._reading = self._cycles.make(method.decode(), path, url, listed, modern=modern, keep=keep)
            self._line_up(self._reading)

    def _call(self, call: Call, begins: bytes) -> None:
        """The head of a call is here: say at once what its body cannot change. `begins`: its bytes, if it is usual."""
        self._reading, headers = call, call.headers
        kind, length = headers.get(b"content-type"), headers.get(b"content-length")
        if kind != b"application/json" and kind is not None and call.method == "POST":
            call.refusal = not_json(kind)
        if length is not None and len(length) > 6 and int(length) > self.door.max_body * DISCARDED:
            self._refuse_unread(call, body_too_large(self.door.max_body))
        elif b"expect" in headers:
            if headers[b"expect"].lower() == b"100-continue" and self._turn is None:
                self.transport.write(CONTINUE)
        elif begins and call.method == "POST" and call.refusal is None and (found := cut(begins)):
            # One name once each (`usual`), and one of them the length: the next one like it needs no parser.
            self.door.heads.keep(found[0], (call.path, headers))

    def on_body(self, body: bytes) -> None:
        call, self._size = self._reading, self._size + len(body)
        if isinstance(call, RequestResponseCycle):
            if not call.response_complete:
                call.body += body
                call.message_event.set()
                if len(call.body) > HIGH_WATER:
                    self.flow.pause_reading()
            return
        if call is None or call.refusal is not None:
            pass  # read, to be refused at its end
        elif self._size <= self.door.max_body:
            self._parts.append(body)
            if self._size - len(body) <= STRANGERS < self._size:
                self._admit(call)
        else:
            self._parts = []
            call.refusal = body_too_large(self.door.max_body)
        if self._size > self.door.max_body * DISCARDED and call is not None:
            self._refuse_unread(call, body_too_large(self.door.max_body))

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
            if len(self._queue) >= WAITING or self._size > HIGH_WATER:
                self.flow.pause_reading()  # from here on we do not hear of a client that leaves

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
        if self.lost:
            return
        if keep and self._queue:
            self._start(self._queue.popleft())
        elif not keep or self._closing:
            self._end()
        else:
            self.flow.resume_reading()

    def _end(self) -> None:
        """Nothing more is sent. What still comes is read and dropped for a while: to close a socket on unread bytes
        resets the connection, and takes our last answer from a client that has not read it yet."""
        self._closing = True
        if self._unread and not self._half and not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _last_of_line(self) -> None:
        """No request is taken after those that are here."""
        last = self._queue[-1] if self._queue else self._turn
        if isinstance(last, Call):
            last.keep = False
        elif last is not None:
            last.keep_alive = False

    def shutdown(self) -> None:
        """Called by uvicorn: no further request on this connection."""
        if self._turn is None:
            self.transport.close()
        else:
            self._last_of_line()

    def _admit(self, call: Call) -> None:
        try:
            self.door.admit(call.headers)
        except GatewayError as error:
            call.refusal, self._parts = error, []

    def _refuse_unread(self, call: Call, error: GatewayError) -> None:
        """Refuse a request whose body nobody will read: the connection ends with the answer."""
        self._closing, self._unread, self._reading, self._parts = True, True, None, []
        call.refusal, call.keep = error, False
        self._line_up(call)

    def _reject(self, error: GatewayError) -> None:
        """What came is no request. Who waits for an answer gets it; then the connection ends."""
        self._closing = self._unread = True
        reading, self._reading = self._reading, None
        if isinstance(reading, RequestResponseCycle):  # its application waits for a body that will never be whole
            reading.disconnected = True
            reading.message_event.set()
            if reading is not self._turn:
                self._queue.remove(reading)
            elif reading.response_started:
                self.transport.close()
            else:
                self._turn = None
        self._last_of_line()
        if self._turn is None and not self.transport.is_closing():
            body = error.body()
            headers = rendered([*error.headers(), (b"connection", b"close")])
            self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (error.status, b"Refused", headers, body))
            self._since = self._loop.time()
            self._end()

    @property
    def date(self) -> bytes:
        """The headers uvicorn gives every answer, rendered: the date, renewed each second."""
        global _dated
        if _dated[0] is not self._state.default_headers:
            _dated = self._state.default_headers, rendered(self._state.default_headers)
        return _dated[1]

    def write(self, data: bytes) -> None:
        if not self.lost:
            self.transport.write(data)

    # Deadlines.

    def look(self, now: float) -> None:
        """Close what has been idle, unfinished or unread for too long."""
        turn, waited = self._turn, now - self._since
        if self._half:
            self._look_for_client()
        if self._closing and turn is None:
            if waited > LINGER_SECONDS:
                self.transport.abort()
        elif self.flow.write_paused:
            self._look_at_reader(now, waited)
        elif self.flow.read_paused:
            self._since = now  # it is us who keep it waiting
        elif turn is None and not self._in_message:
            if waited > KEEP_SECONDS:
                self.transport.abort()  # whatever is still unsent was not wanted for so long
        elif self._in_head and self._in_message:
            if waited > self.door.head_seconds:
                self._reject(RequestTimeout("The headers of your request did not arrive in time."))
        elif self._reading is not None and waited > self.door.body_seconds + self._size / SLOWEST:
            late = RequestTimeout("The body of your request did not arrive in time.")
            if isinstance(self._reading, Call):
                self._refuse_unread(self._reading, late)
            else:
                self._reject(late)

    def _look_for_client(self) -> None:
        """After a probe: a reset says that nobody is there."""
        if not self.lost and self.transport.get_extra_info("socket").getsockopt(SOL_SOCKET, SO_ERROR):
            self.transport.abort()

    def _look_at_reader(self, now: float, waited: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._since = unsent, now
        elif waited > self.door.stall_seconds:
            self.transport.abort()


_dated: tuple[object, bytes] = (None, b"")
"""uvicorn's list of default headers, and how it reads: rendered once a second, not once a request."""


_KNOWN = {path.encode(): path for path in ENDPOINTS}
