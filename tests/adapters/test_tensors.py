"""The safetensors reader against strangers' bytes: read rightly or refused, and quickly."""

from __future__ import annotations

import io
import json
import math
import struct
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.errors import InvalidAdapter
from adapters.tensors import MAX_HEADER_BYTES, Header, finite, read_header
from tests.adapters.sample import lora_tensors, safetensors

GOOD = safetensors(lora_tensors(rank=1, layers=1))


def read(data: bytes) -> Header:
    return read_header(io.BytesIO(data), len(data), "file")


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_a_good_file_is_read_in_the_order_of_its_data() -> None:
    header = read(GOOD)
    assert [t.name for t in header.tensors] == list(lora_tensors(rank=1, layers=1))
    assert header.tensors[0].begin == 8 + len(header.raw)
    assert header.tensors[-1].end == len(GOOD)


@given(st.data())
def test_a_damaged_file_is_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    """Bytes flipped, cut out or put in anywhere: whatever passes still describes the whole file without holes."""
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(damaged), 700) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "put"]))
        if how == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del damaged[at : at + data.draw(st.integers(1, 9))]
        else:
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    try:
        header = read(bytes(damaged))
    except InvalidAdapter:
        return
    assert header.tensors == () or header.tensors[-1].end == len(damaged)
    assert all(before.end == after.begin for before, after in zip(header.tensors, header.tensors[1:], strict=False))


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    if data[:8] != b"\2" + b"\0" * 7:
        with pytest.raises(InvalidAdapter):
            read(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.text(max_size=8) | st.just("__metadata__"),
        json_values
        | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "I8", "nope"]) | json_values,
                "shape": st.lists(st.integers(-2, 4), max_size=3) | json_values,
                "data_offsets": st.lists(st.integers(-2, 70), max_size=3) | json_values,
            }
        ),
        max_size=3,
    ),
    st.binary(max_size=64),
)
def test_a_header_of_any_json_is_refused_or_read(header: dict[str, Any], data: bytes) -> None:
    try:
        read(with_header(header, data))
    except InvalidAdapter as error:
        assert str(error).endswith(".")


F32 = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": F32}, b"\0" * 9, "was cut or padded"),
        ({"a": F32}, b"\0" * 7, "was cut or padded"),
        ({"a": F32, "b": F32}, b"\0" * 8, "overlap"),
        ({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, b"\0" * 20, "hole"),
        ({"a": {**F32, "shape": [2, 2]}}, b"\0" * 8, "shape needs 16"),
        ({"a": {**F32, "shape": [True, 2]}}, b"\0" * 8, "lists of counts"),
        ({"a": {**F32, "shape": [1 << 40, 1 << 40]}}, b"\0" * 8, "impossibly large"),
        ({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8, "shape needs"),
        ({"a": {**F32, "dtype": "F32 "}}, b"\0" * 8, "unknown dtype"),
        ({"a": {**F32, "extra": 1}}, b"\0" * 8, "exactly dtype"),
        ({"a" * 600: F32}, b"\0" * 8, "600 characters"),
        ({"__metadata__": {"format": 1}, "a": F32}, b"\0" * 8, "__metadata__"),
        (b'{"a":{"dtype":"F32"},"a":{"dtype":"F32"}}', b"", "occurs twice"),
        (b'{"a":NaN}', b"", "NaN"),
        (b'{"a":1e999}', b"", "too large"),
        (b'{"\\ud800":1}', b"", "not UTF-8"),
        (b'{"\xff":1}', b"", "not UTF-8"),
        (b" {}", b"", "does not begin with a brace"),
        (b'{"a":' * 100_000, b"", "nested too deeply"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "broken header"),
    ],
)
def test_each_lie_of_a_header_is_named(header: Any, data: bytes, says: str) -> None:
    with pytest.raises(InvalidAdapter, match=says):
        read(with_header(header, data))


@pytest.mark.parametrize("length", [0xFFFF_FFFF_FFFF_FFFF, MAX_HEADER_BYTES + 1, 1 << 40])
def test_a_huge_header_is_refused_before_it_is_read(length: int) -> None:
    with pytest.raises(InvalidAdapter, match="not believable"):
        read(length.to_bytes(8, "little") + b"{}")


@pytest.mark.long
@pytest.mark.parametrize(
    "header",
    [
        b'{"a":[' + b"[]," * (MAX_HEADER_BYTES // 3 - 10) + b"[]]}",
        b'{"a":"' + b"\\u0041" * (MAX_HEADER_BYTES // 6 - 10) + b'"}',
        b'{"' + b"a." * (MAX_HEADER_BYTES // 2 - 40) + b'a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        b"{" + b",".join(b'"%d":%s' % (n, b"1" * 4000) for n in range(900)) + b"}",
    ],
)
def test_the_worst_header_takes_no_long_time(header: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidAdapter):
        read(with_header(header))
    assert time.process_time() - started < 3


def as_f16(value: float) -> bytes:
    return struct.pack("<e", value)


@given(st.lists(st.binary(min_size=4, max_size=4), max_size=40))
@example([struct.pack("<f", 3.4e38), struct.pack("<f", -3.4e38)])  # huge, but numbers
@example([struct.pack("<f", 1.8e38), struct.pack("<I", 0x7F80_0000)])
@example([struct.pack("<I", 0xFFC0_0000)])
def test_finite_agrees_with_struct_on_float32(items: list[bytes]) -> None:
    data = b"".join(items)
    expected = all(math.isfinite(value) for value in struct.unpack(f"<{len(items)}f", data))
    assert finite("F32", data) is expected


@given(st.lists(st.binary(min_size=2, max_size=2), max_size=60))
@example([b"\x7f\x7f", b"\xff\x7e"])  # bfloat16's largest
@example([b"\x80\x7f"])  # bfloat16 infinity
@example([as_f16(65504.0), as_f16(-65504.0)])
@example([as_f16(math.inf)])
def test_finite_agrees_with_struct_on_half_precision(items: list[bytes]) -> None:
    data = b"".join(items)
    halves = struct.unpack(f"<{len(items)}e", data)
    assert finite("F16", data) is all(math.isfinite(value) for value in halves)
    brains = struct.unpack(f"<{len(items)}f", b"".join(b"\0\0" + item for item in items))
    assert finite("BF16", data) is all(math.isfinite(value) for value in brains)


def test_a_hundred_megabytes_are_checked_in_a_second() -> None:
    """Measured at 25 ms for trained weights, 180 ms for the worst; the bound leaves room for a busy machine."""
    usual = struct.pack("<262144f", *[0.01] * 262144)
    worst = struct.pack("<262144f", *[1.8e38] * 262144)
    started = time.process_time()
    assert all(finite("F32", data) for data in (usual, worst) for _ in range(100))
    assert time.process_time() - started < 2
