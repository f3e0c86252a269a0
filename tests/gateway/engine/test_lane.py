"""The lane itself, on real sockets: what is not exactly a usual chunk comes back, and nothing is lost or stays open."""

from __future__ import annotations

import gc
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_lane = pytest.importorskip("gateway.engine._lane", reason="there was no C compiler", exc_type=ImportError)

TAIL = b"}]}\n\n"
USUAL = re.compile(rb"([1-9a-f][0-9a-f]{0,5})\r\n(.*)\r\n", re.DOTALL)


def framed(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Road:
    """Two pairs of sockets with one ride between them; `waiting` is what the client's transport says."""

    def __init__(self, *, keep: int = 0) -> None:
        self.engine, self.source = socket.socketpair()
        self.target, self.client = socket.socketpair()
        for one in (self.engine, self.source, self.target, self.client):
            one.setblocking(False)
        self.waiting: Any = 0
        self.kept: list[bytes] = []
        self.lane = _lane.Lane()
        ends = self.source.fileno(), self.target.fileno()
        self.ride = self.lane.enter(self, *ends, lambda: self.waiting, TAIL, self.kept, keep)

    def goes(self, piece: bytes, now: float = 1.0) -> list[tuple[bytes, bool]]:
        """What comes back of it."""
        if piece:
            self.engine.sendall(piece)
        return [(data, spilled) for _, data, spilled in self.lane.look(now)]

    def came(self) -> bytes:
        try:
            return self.client.recv(1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.ride.leave()
        for one in (self.engine, self.source, self.target, self.client):
            one.close()


@contextmanager
def road(*, keep: int = 0) -> Iterator[Road]:
    made = Road(keep=keep)
    try:
        yield made
    finally:
        made.close()


@st.composite
def pieces(draw: st.DrawFn) -> bytes:
    """A chunk, or something that nearly is one."""
    payload = draw(st.sampled_from([b"", b"data: {", b"x" * 300, b"\r\n", b"data: [DONE]\n\n"])) + draw(
        st.sampled_from([TAIL, TAIL, TAIL, TAIL[1:], b"\n\n", b"", TAIL + b" ", TAIL + framed(b"y" + TAIL)])
    )
    size = draw(st.sampled_from(["%x", "%x", "%x", "%X", "0%x", "%x;a=b", " %x", "+%x", "%x ", "000000%x"]))
    wrong = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 16**6]))
    ends = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"", b"\n\r", b"\r\n\r\n"]))
    piece = (size % max(0, len(payload) + wrong)).encode() + b"\r\n" + payload + ends
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(piece)))
        piece = piece[:at] + draw(st.binary(max_size=3)) + piece[at + draw(st.integers(0, 3)) :]
    return piece


@settings(deadline=None)
@given(said=st.lists(st.tuples(pieces(), st.sampled_from([0, 0, 0, 7])), max_size=20), keep=st.integers(0, 900))
def test_exactly_the_usual_chunks_pass_and_all_else_comes_back_as_it_was(
    said: list[tuple[bytes, int]], keep: int
) -> None:
    with road(keep=keep) as here:
        passed, left = list[bytes](), keep
        for number, (piece, waiting) in enumerate(said):
            if not piece:
                continue
            here.waiting = waiting
            here.ride.open = True
            back, came = here.goes(piece, now=float(number)), here.came()
            found = USUAL.fullmatch(piece)
            usual = found is not None and int(found[1], 16) == len(found[2]) and found[2].endswith(TAIL)
            if found is None or not usual or waiting or (left and len(found[2]) >= left):
                assert (back, came) == ([(piece, False)], b"") and not here.ride.open
                continue
            assert (back, came, here.ride.last) == ([], piece, found[2])
            left -= len(found[2]) if left else 0
            passed.append(found[2])
            assert (here.ride.pieces, here.ride.keep, here.ride.since) == (len(passed), left, float(number))
        assert here.kept == (passed if keep else [])


def test_a_ride_that_is_not_open_passes_nothing() -> None:
    with road() as here:
        here.ride.open = False
        assert here.goes(framed(TAIL)) == [(framed(TAIL), False)] and not here.came()


def test_what_the_client_does_not_take_comes_back_as_the_rest_of_a_chunk() -> None:
    with road() as here:
        chunk, sent, back = framed(b"x" * 5000 + TAIL), 0, list[tuple[bytes, bool]]()
        while not back:
            back = here.goes(chunk)
            sent += len(chunk)
        ((rest, spilled),) = back
        came = b""
        while more := here.came():
            came += more
        assert spilled and came + rest == chunk * (sent // len(chunk)) and not here.ride.open


def test_a_client_that_left_and_an_engine_that_ended_come_back() -> None:
    with road() as here:
        here.client.close()
        assert here.goes(framed(TAIL)) == [(framed(TAIL), True)]  # whoever writes it finds out
        here.engine.shutdown(socket.SHUT_WR)
        assert here.goes(b"") == [(b"", False)]


@pytest.mark.parametrize("waiting", [None, "x", 2**80, -1])
def test_a_transport_that_cannot_say_what_waits_is_not_bypassed(waiting: Any) -> None:
    with road() as here:
        here.waiting = waiting
        assert here.goes(framed(TAIL)) == [(framed(TAIL), False)]


def test_a_ride_has_left_for_good() -> None:
    with road() as here:
        here.ride.leave()
        here.ride.leave()
        assert here.goes(framed(TAIL)) == [] and here.ride.rider is None
        here.ride.open = True
        assert here.lane.look(0.0) == []


def test_nothing_stays_open_whoever_goes_first() -> None:
    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(20):
        here = Road()
        here.goes(framed(TAIL))
        here.ride.leave()
        del here
        forgotten = Road()  # it refers to itself, and nobody leaves
        forgotten.goes(framed(TAIL))
        del forgotten
    assert descriptors() == before


def test_more_streams_than_one_look_serves_are_served_in_turns() -> None:
    lane = _lane.Lane()
    rides = []
    for _ in range(150):
        engine, source = socket.socketpair()
        target, client = socket.socketpair()
        rides.append(
            (engine, source, target, client, lane.enter(None, source.fileno(), target.fileno(), int, b"", [], 0))
        )
        engine.sendall(framed(b"x"))
    for _ in range(3):
        assert lane.look(0.0) == []
    assert [one[-1].pieces for one in rides] == [1] * 150
    for *sockets, ride in rides:
        ride.leave()
        for one in sockets:
            one.close()


def test_a_descriptor_that_is_none_is_an_error_at_once() -> None:
    lane = _lane.Lane()
    with pytest.raises(OSError, match="Bad file descriptor"):
        lane.enter(None, 1 << 20, 1 << 20, int, b"", [], 0)
    with pytest.raises(TypeError):
        lane.enter(None, 0, 1, int, "", [], 0)
    with pytest.raises(TypeError):
        lane.look("now")
