"""Bodies that are no JSON, or JSON that two parties may read differently: each a 400, whatever its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.serving.request import CHAT_COMPLETIONS, COMPLETIONS, parse
from tests.gateway.serving.raw import body_of, knock, request_of, wired


def also(text: str) -> bytes:
    """A good body with something added, as it is written."""
    return body_of()[:-1] + b"," + text.encode() + b"}"


BAD: dict[str, bytes] = {
    "nothing": b"",
    "a blank": b" ",
    "null": b"null",
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"1",
    "an object cut short": body_of()[:-1],
    "something after it": body_of() + b"x",
    "two objects": body_of() * 2,
    "a comma too many": body_of()[:-1] + b",}",
    "single quotes": body_of().replace(b'"', b"'"),
    "a comment": b"/* */" + body_of(),
    "a byte order mark": b"\xef\xbb\xbf" + body_of(),
    "UTF-16": body_of().decode().encode("utf-16"),
    "NULs": b"\0" * 20,
    "NaN": also('"temperature":NaN'),
    "Infinity": also('"temperature":Infinity'),
    "minus Infinity": also('"temperature":-Infinity'),
    "a number beyond all floats": also('"temperature":1e999'),
    "a number of 5000 digits": also('"seed":' + "9" * 5000),
    "a number with a leading zero": also('"seed":01'),
    "a number beyond 64 bits": also('"seed":99999999999999999999'),
    "a lone surrogate": also('"user":"\\ud800"'),
    "surrogates the wrong way round": also('"user":"\\udd99\\ud83e"'),
    "bytes that are no UTF-8": body_of()[:-1] + b',"user":"\xff"}',
    "a surrogate in UTF-8": body_of()[:-1] + b',"user":"\xed\xa0\x80"}',
    "a control character": body_of()[:-1] + b',"user":"\x01"}',
    "a key twice": also('"model":"tuned"'),
    "a key twice, once escaped": also('"mod\\u0065l":"tuned"'),
    "a key twice inside": also('"stream_options":{"include_usage":true,"include_usage":false},"stream":true'),
    "a key twice in a message": b'{"model":"base","messages":[{"role":"user","content":"a","role":"system"}]}',
    "arrays in arrays": also('"stop":' + "[" * 100_000 + "]" * 100_000),
    "objects in objects": also('"metadata":' + '{"a":' * 100_000 + "1" + "}" * 100_000),
    "arrays without end": b"[" * 500_000,
    "a model that is none": b'{"model":7,"messages":[]}',
    "an unknown field": also('"prompt_logprobs":1'),
    "a key of 100 kB": also('"' + "k" * 100_000 + '":1'),
}


async def test_bad_bodies_are_refused_cleanly_and_one_after_the_other() -> None:
    async with wired() as wires, knock(wires.house) as client:
        for name, body in BAD.items():
            client.send(request_of(body, b"content-type: application/json"))
            answer = await client.answer()
            assert answer.status == 400 and answer.error["type"] == "invalid_request_error", (name, answer)
            assert len(answer.body) < 1000 and b"ACME" not in answer.body, name
        assert not wires.engine.bodies
        client.send(request_of(body_of()))
        assert (await client.answer()).status == 200


class Pairs(list[Any]):
    """An object as it is written: its keys may come twice."""


LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-9, 9) | st.text(max_size=8)
TREES = st.recursive(
    LEAVES | st.sampled_from(['":', '" :', "\\", '"', "é", "\\u0022"]),
    lambda inside: (
        st.lists(inside, max_size=3) | st.lists(st.tuples(st.text(max_size=2), inside), max_size=3).map(Pairs)
    ),
    max_leaves=12,
)


def written(tree: Any, blank: str, *, ascii_only: bool) -> str:
    if isinstance(tree, Pairs):
        inside = (
            f"{json.dumps(k, ensure_ascii=ascii_only)}{blank}:{blank}{written(v, blank, ascii_only=ascii_only)}"
            for k, v in tree
        )
        return "{" + f",{blank}".join(inside) + "}"
    if isinstance(tree, list):
        return "[" + f"{blank},".join(written(one, blank, ascii_only=ascii_only) for one in tree) + "]"
    return json.dumps(tree, ensure_ascii=ascii_only)


def has_twins(tree: Any) -> bool:
    if isinstance(tree, Pairs):
        return len(dict(tree)) < len(tree) or any(has_twins(value) for _, value in tree)
    return isinstance(tree, list) and any(has_twins(one) for one in tree)


@given(tree=TREES, blank=st.sampled_from(["", " ", "\n  "]), ascii_only=st.booleans())
def test_a_body_is_refused_for_a_key_that_comes_twice_and_for_nothing_else(
    tree: Any, blank: str, ascii_only: bool
) -> None:
    told = written(tree, blank, ascii_only=ascii_only)
    raw = f'{{"model":"a","messages":[{{"role":"user","content":"x"}}],"metadata":{told}}}'
    try:
        parse(raw.encode(), CHAT_COMPLETIONS)
    except InvalidRequest as error:
        assert ("comes twice" in error.message) == has_twins(tree)
    else:
        assert not has_twins(tree)


@settings(deadline=None)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), inside=st.booleans())
@pytest.mark.parametrize("endpoint", [CHAT_COMPLETIONS, COMPLETIONS])
def test_any_bytes_are_a_request_or_an_invalid_one(endpoint: Any, raw: bytes, inside: bool) -> None:
    try:
        parse(b'{"model":"a","messages":[' + raw + b"]}" if inside else raw, endpoint)
    except InvalidRequest as error:
        json.loads(error.body())
