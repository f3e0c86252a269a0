"""The client's reading: the same figures whatever the slices its bytes come in."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from loadtests.asks import Address, chat
from loadtests.http1 import Connection, NamingConnection
from loadtests.mock_answers import JSON_HEAD, Pace, burst, whole
from loadtests.samples import Problem

ASK = chat("support", stream=True)
STREAM = burst("acme/support@1", Pace(tokens=5), chat=True, usage=True)


class Wire(asyncio.Transport):
    """A transport without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True


@dataclass
class Ends:
    """An owner that writes down how requests ended."""

    problems: list[Problem] = field(default_factory=list)

    def ended(self, connection: Connection, problem: Problem) -> None:
        self.problems.append(problem)

    def lost(self, connection: Connection) -> None:
        pass


def read(data: bytes, cuts: list[int], *, kind: type[Connection] = Connection) -> tuple[Connection, list[Problem]]:
    """A connection that asked for a stream and got `data` in slices."""

    async def go() -> tuple[Connection, list[Problem]]:
        ends = Ends()
        connection = kind(ends)
        connection.connection_made(Wire())
        connection.begin(ASK, 0, 0.0)
        places = [0, *sorted(cuts), len(data)]
        for begin, end in itertools.pairwise(places):
            if begin < end and connection.ask is not None:
                connection.data_received(data[begin:end])
        if connection.ask is not None:
            connection.connection_lost(None)
        return connection, ends.problems

    return asyncio.run(go())


def cuts(data: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(data)), max_size=12)


@given(cuts(STREAM))
def test_a_stream_is_read_alike_in_any_slices(places: list[int]) -> None:
    connection, problems = read(STREAM, places, kind=NamingConnection)
    assert problems == [Problem.NONE]
    assert connection.tokens == 5
    assert len(connection.gaps) == 2 * 4


@given(st.integers(0, len(STREAM) - 1), cuts(STREAM))
def test_a_stream_that_is_cut_anywhere_has_failed(end: int, places: list[int]) -> None:
    _, problems = read(STREAM[:end], [place for place in places if place < end])
    assert problems == [Problem.CUT]


@given(st.lists(st.integers(0, 400), max_size=8))
def test_an_events_end_may_be_written_either_way(places: list[int]) -> None:
    crlf = b'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\r\ndata: {"choices":[]}\r\n\r\ndata: [DONE]\r\n\r\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(crlf)
    connection, problems = read(head + crlf, [place for place in places if place < len(head + crlf)])
    assert (connection.tokens, problems) == (1, [Problem.NONE])


def ended(body: bytes, status: int = 200) -> list[Problem]:
    return read(JSON_HEAD % (status, b"Any", len(body)) + body, [])[1]


def test_what_ends_a_stream_is_told_apart() -> None:
    token = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    assert ended(token + b"data: [DONE]\n\n") == [Problem.NONE]
    assert ended(token) == [Problem.INCOMPLETE]
    assert ended(token + b'data: {"error": {"message": "gone"}}\n\n') == [Problem.ERROR_EVENT]
    assert ended(b'{"error": {}}', 503) == [Problem.REFUSED]


def test_a_stream_that_names_two_models_has_changed() -> None:
    first = b'data: {"model":"a@1","choices":[{"delta":{"content":"a"}}]}\n\n'
    second = first.replace(b"a@1", b"a@2") + b"data: [DONE]\n\n"
    data = JSON_HEAD % (200, b"OK", len(first + second)) + first + second
    assert read(data, [], kind=NamingConnection)[1] == [Problem.CHANGED]
    data = JSON_HEAD % (200, b"OK", len(first) + 14) + first + b"data: [DONE]\n\n"
    assert read(data, [], kind=NamingConnection)[1] == [Problem.NONE]


def test_an_informational_answer_is_not_the_answer() -> None:
    raw = whole("base", Pace(tokens=2), chat=True)
    assert read(b"HTTP/1.1 103 Early Hints\r\n\r\n" + JSON_HEAD % (503, b"No", len(raw)) + raw, [])[1] == [
        Problem.REFUSED
    ]


def test_addresses_are_hosts_or_sockets() -> None:
    assert Address.parse("http://127.0.0.1:8080") == Address("127.0.0.1", 8080)
    assert Address.parse("unix:/run/mock.sock").uds == "/run/mock.sock"
