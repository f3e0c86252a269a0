"""JSON read from strangers: one meaning per text, or a ValueError that says why. It knows nothing about adapters.

Python's reader accepts duplicate keys, NaN, Infinity, 1e999 and lone surrogates. Each lets two readers of the same
bytes disagree, or lets a value through that cannot be written again.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse(data: bytes | str) -> Any:
    """The value of a UTF-8 JSON text. Raises `ValueError` (nothing else) with a short reason."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:  # only an escape can smuggle in half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg} at character {error.pos})") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() is called for its effect
        raise ValueError(f"the key {twice[:80]!r} occurs twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
