"""Small checks of one JSON value each: name and value in, the value to send on out.

They raise `InvalidRequest` in OpenAI's codes. They know types and bounds, not which field exists or what it means.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from gateway.errors import InvalidRequest

Check = Callable[[str, Any], Any]
"""Takes the field's name and its value (never null); returns what goes upstream, or None for "nothing"."""

_WORDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
    type(None): "null",
}


def wrong_type(name: str, wanted: str, value: object) -> InvalidRequest:
    got = _WORDS.get(type(value), "something else")
    return InvalidRequest(
        f"Invalid type for '{name}': expected {wanted}, but got {got} instead.", param=name, code="invalid_type"
    )


def wrong_value(name: str, wanted: str, *, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{name}': {wanted}.", param=name, code=code)


def flag(name: str, value: Any) -> bool:
    if value is True or value is False:
        return value
    raise wrong_type(name, "a boolean", value)


def integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if type(value) is not int:
            raise wrong_type(name, "an integer", value)
        if value < low:
            raise wrong_value(name, f"expected {low} or more", code="integer_below_min_value")
        if value > high:
            raise wrong_value(name, f"expected {high} or less", code="integer_above_max_value")
        return value

    return check


def decimal(low: float, high: float, *, above: bool = False) -> Check:
    """From `low` to `high`; with `above`, `low` itself is out."""

    def check(name: str, value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise wrong_type(name, "a decimal", value)
        if value < low or (above and value == low):
            bound = f"more than {low:g}" if above else f"{low:g} or more"
            raise wrong_value(name, f"expected {bound}", code="decimal_below_min_value")
        if value > high:
            raise wrong_value(name, f"expected {high:g} or less", code="decimal_above_max_value")
        return value

    return check


def text(most: int, *, least: int = 0) -> Check:
    def check(name: str, value: Any) -> str:
        if type(value) is not str:
            raise wrong_type(name, "a string", value)
        if len(value) > most:
            raise wrong_value(name, f"expected at most {most} characters", code="string_above_max_length")
        if len(value) < least:
            raise wrong_value(name, f"expected at least {least} characters", code="string_below_min_length")
        return value

    return check


def one_of(*allowed: str) -> Check:
    def check(name: str, value: Any) -> str:
        if type(value) is not str:
            raise wrong_type(name, "a string", value)
        if value not in allowed:
            raise wrong_value(name, "expected one of " + ", ".join(f"'{one}'" for one in allowed))
        return value

    return check


def array(item: Check, most: int, *, least: int = 0) -> Check:
    def check(name: str, value: Any) -> list[Any]:
        sized(name, value, most, least=least)
        return [item(f"{name}[{index}]", one) for index, one in enumerate(value)]

    return check


def sized(name: str, value: Any, most: int, *, least: int = 0) -> None:
    """An array of `least` to `most` items of anything."""
    if type(value) is not list:
        raise wrong_type(name, "an array", value)
    if len(value) < least:
        raise wrong_value(name, f"expected at least {least} items", code="empty_array")
    if len(value) > most:
        raise wrong_value(name, f"expected at most {most} items", code="array_above_max_length")


def rebuilt(name: str, value: Any, fields: dict[str, Check], *, required: Collection[str] = ()) -> dict[str, Any]:
    """An object with the known fields only, each checked; unknown and null ones are left out."""
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    for one in required:
        if value.get(one) is None:
            raise missing(f"{name}.{one}")
    known = (
        (key, fields[key](f"{name}.{key}", item)) for key, item in value.items() if key in fields and item is not None
    )
    return {key: item for key, item in known if item is not None}


def missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def unsupported(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Unsupported parameter: '{name}'. {why}", param=name, code="unsupported_parameter")


def dropped(_name: str, _value: Any) -> None:
    """Nothing of it goes upstream."""


def checked_and_dropped(check: Check) -> Check:
    def drop(name: str, value: Any) -> None:
        check(name, value)

    return drop


def only(allowed: object, why: str) -> Check:
    """A parameter of which we know one value, the default: it needs no sending."""

    def check(name: str, value: Any) -> None:
        if value != allowed:
            raise unsupported(name, why)

    return check


def refused(why: str) -> Check:
    """A parameter that is known and not served."""

    def check(name: str, _value: Any) -> None:
        raise unsupported(name, why)

    return check
