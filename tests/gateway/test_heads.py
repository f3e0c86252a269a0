"""Heads that came before: what is taken out of one, and that knowing one changes nothing of what a client gets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.heads import Heads, cut

names = st.sampled_from(["host", "accept", "Content-Length", "content-length", "X-Content-Length", "x"])
values = st.sampled_from(["1", "12", "0012", "12345678", "1 ", "-1", "a", ""])


def test_a_head_is_cut_at_its_length() -> None:
    head = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\naccept: */*\r\n\r\n"
    assert cut(head + b"body") == (b"POST /a HTTP/1.1\r\nhost: x\r\naccept: */*", len(head), 12)


def test_what_is_not_whole_or_says_no_plain_length_is_not_cut() -> None:
    for head in (b"", b"POST / HTTP/1.1\r\ncontent-length: 1\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"):
        assert cut(head) is None
    for length in (b"+1", b"1_0", b" 1", b"0x1", b"", b"1, 1", b"12345678", "\u0661".encode()):
        assert cut(b"POST / HTTP/1.1\r\ncontent-length: " + length + b"\r\n\r\n") is None


@given(st.lists(st.tuples(names, values), max_size=6), st.binary(max_size=8))
def test_what_is_taken_out_is_one_line_and_nothing_else(lines: list[tuple[str, str]], body: bytes) -> None:
    head = "".join(["POST /a HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in lines), "\r\n"]).encode()
    found = cut(head + body)
    if found is None:
        return
    remains, begin, length = found
    assert begin == len(head)
    before, after = head[:-4].split(b"\r\n"), remains.split(b"\r\n")
    gone = next(at for at, line in enumerate([*after, None]) if line != before[at])
    assert before[:gone] + before[gone + 1 :] == after
    name, _, value = before[gone].partition(b": ")
    assert name.lower() == b"content-length" and int(value) == length


def test_what_is_known_is_bounded() -> None:
    heads: Heads[int] = Heads(most=3)
    for number in range(10):
        heads.keep(b"%d" % number, number)
        assert heads.get(b"%d" % number) == number
    assert sum(heads.get(b"%d" % number) is not None for number in range(10)) <= 3
