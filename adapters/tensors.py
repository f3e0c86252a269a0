"""Safetensors files without torch or numpy: the header, its bounds, and whether the numbers are finite.

It knows nothing about LoRA. Everything a stranger's file can get wrong is an `InvalidAdapter`, found before a byte of
tensor data is looked at, and in time linear in the header's size.

Layout (github.com/huggingface/safetensors#format): 8 bytes little-endian header length N, N bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}`, then the data without holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from adapters import strictjson
from adapters.errors import InvalidAdapter

MAX_HEADER_BYTES = 4 * 1024 * 1024
"""A LoRA on every linear layer of an 80-layer model has 1120 tensors and a header of about 200 kB. Parsed JSON can take
thirty times its text, so this also bounds the memory a stranger's header costs."""

MAX_NAME = 512

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

_RESAVE = "save the adapter again with PEFT's save_pretrained (safetensors)"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header. `begin` and `end` count bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """`tensors` in the order of their data; `raw` is the header's JSON as it stands in the file."""

    tensors: tuple[Tensor, ...]
    raw: bytes


def read_header(file: BinaryIO, size: int, what: str) -> Header:
    """Read and check the header of an open safetensors file of `size` bytes; `what` names the file in errors.

    Raises `InvalidAdapter` unless the tensors fill the data part exactly, without holes or overlaps.
    """
    prefix = file.read(8)
    if len(prefix) < 8:
        raise InvalidAdapter(f"{what} is shorter than a safetensors header: {_RESAVE}.")
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise InvalidAdapter(f"{what} claims a header of {length} bytes, which is not believable: {_RESAVE}.")
    raw = file.read(length)
    try:
        if not raw.startswith(b"{"):
            raise ValueError("it does not begin with a brace")
        entries = strictjson.parse(raw)
    except ValueError as error:
        raise InvalidAdapter(f"{what} has a broken header, {error}: {_RESAVE}.") from error
    _check_metadata(entries.pop("__metadata__", {}), what)
    tensors = [_tensor(name, entry, 8 + length, what) for name, entry in entries.items()]
    tensors.sort(key=lambda t: (t.begin, t.end))
    _check_contiguous(tensors, 8 + length, size, what)
    return Header(tuple(tensors), raw)


def _check_metadata(metadata: Any, what: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidAdapter(f"{what} has a __metadata__ that is not a map of texts: {_RESAVE}.")


def _tensor(name: str, entry: Any, data_start: int, what: str) -> Tensor:
    label = f"{what}: tensor {name[:120]!r}"
    if len(name) > MAX_NAME:
        raise InvalidAdapter(f"{label} has a name of {len(name)} characters: {_RESAVE}.")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InvalidAdapter(f"{label} does not have exactly dtype, shape and data_offsets: {_RESAVE}.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise InvalidAdapter(f"{label} has an unknown dtype: save the adapter as float32, float16 or bfloat16.")
    if not _counts(shape) or len(shape) > 8 or not _counts(offsets) or len(offsets) != 2:
        raise InvalidAdapter(f"{label} has a shape or offsets that are not small lists of counts: {_RESAVE}.")
    items = 1
    for dimension in shape:
        items *= dimension
        if items > 1 << 48:  # keeps the product small whatever the header says
            raise InvalidAdapter(f"{label} is impossibly large: {_RESAVE}.")
    begin, end = offsets
    if end - begin != items * _ITEM_BYTES[dtype]:
        raise InvalidAdapter(
            f"{label} has {end - begin} bytes, but its shape needs {items * _ITEM_BYTES[dtype]}: {_RESAVE}."
        )
    return Tensor(name, dtype, tuple(shape), data_start + begin, data_start + end)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _check_contiguous(tensors: list[Tensor], start: int, size: int, what: str) -> None:
    position = start
    for tensor in tensors:
        if tensor.begin != position:
            raise InvalidAdapter(f"{what} has a hole or an overlap before tensor {tensor.name[:120]!r}: {_RESAVE}.")
        position = tensor.end
    if position != size:
        raise InvalidAdapter(
            f"{what} is {size} bytes, but its header describes {position}: it was cut or padded; {_RESAVE}."
        )


FLOATS = frozenset({"F32", "F16", "BF16"})

# Little-endian: the last byte of an item holds the sign and the top of the exponent. An item is not finite when its
# exponent bits are all ones. These tables map the last byte, and the one before, to "these bits are all ones".
_TOP7 = bytes(255 if byte & 0x7F == 0x7F else 0 for byte in range(256))
_BIT7 = bytes(255 if byte & 0x80 else 0 for byte in range(256))
_TOP5 = tuple(byte for byte in range(256) if byte & 0x7C == 0x7C)


def finite(dtype: str, data: bytes) -> bool:
    """Whether no item of `data` (F32, F16 or BF16, whole items) is NaN or infinite; in C throughout.

    The first look is a `memchr` for a last byte that only huge or non-finite items have; trained weights never do, so
    the second look is for strangers.
    """
    width = _ITEM_BYTES[dtype]
    top = data[width - 1 :: width]
    if dtype == "F16":
        return not any(byte in top for byte in _TOP5)
    if 0x7F not in top and 0xFF not in top:
        return True
    high = int.from_bytes(top.translate(_TOP7), "little")
    low = int.from_bytes(data[width - 2 :: width].translate(_BIT7), "little")
    return high & low == 0
