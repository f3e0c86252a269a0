"""What a client may ask of the engine's grammar compiler: JSON schemas, choices and tools; never a pattern of its own.

A regular expression or a grammar is compiled inside the engine, for everybody: one bad one stalls or kills all tenants
(CVE-2025-48942, -48943, -48944). Schemas pass, bounded and without `pattern`. This module knows nothing of sampling.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.serving.checks import array, flag, one_of, rebuilt, text, unsupported, wrong_type, wrong_value

MOST_NODES = 5000
MOST_DEPTH = 32

_ADVICE = "It would be compiled inside the shared engine: use a JSON schema or 'choice'."
_name = text(64, least=1)
_words = text(1 << 20)

# Keywords whose value maps names (a property may well be called "pattern") to schemas, and those that hold plain data.
_NAMED = frozenset(("properties", "$defs", "definitions", "dependentSchemas", "dependencies"))
_DATA = frozenset(("enum", "const", "default", "examples", "required", "title", "description"))


def schema(name: str, value: Any, *, patterns: bool = False) -> dict[str, Any]:
    """A JSON schema within bounds, without regular expressions unless `patterns`."""
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    left = MOST_NODES
    todo: list[tuple[Any, int]] = [(value, 0)]
    while todo:
        node, depth = todo.pop()
        left -= 1
        if left < 0 or depth > MOST_DEPTH:
            raise wrong_value(name, f"a schema may have {MOST_NODES} parts and be {MOST_DEPTH} levels deep")
        if type(node) is list:
            todo += [(one, depth + 1) for one in node]
        elif type(node) is dict:
            if not patterns and ("patternProperties" in node or type(node.get("pattern")) is str):
                raise unsupported(f"{name}.pattern", _ADVICE)
            for key, one in node.items():
                if key in _NAMED and type(one) is dict:
                    todo += [(inner, depth + 2) for inner in one.values()]
                elif key not in _DATA and type(one) in (dict, list):
                    todo.append((one, depth + 1))
    return value


def response_format(name: str, value: Any) -> dict[str, Any]:
    kind = value.get("type") if type(value) is dict else None
    if kind == "structural_tag":
        raise unsupported(name, _ADVICE)
    shape = {"type": one_of("text", "json_object", "json_schema"), "json_schema": json_schema}
    return rebuilt(name, value, shape, required=("type", "json_schema") if kind == "json_schema" else ("type",))


def structured_outputs(name: str, value: Any) -> dict[str, Any]:
    """vLLM's own field: `json` (a schema, as an object or as text), `choice` or `json_object`."""
    if type(value) is dict:
        for refused in ("regex", "grammar", "structural_tag", "whitespace_pattern"):
            if value.get(refused) is not None:
                raise unsupported(f"{name}.{refused}", _ADVICE)
    return rebuilt(name, value, _STRUCTURED)


def tools(name: str, value: Any) -> list[dict[str, Any]]:
    return _tools(name, value)  # type: ignore[no-any-return]  # `array` gives a list


def tool_choice(name: str, value: Any) -> Any:
    if type(value) is str:
        return _choice_word(name, value)
    return rebuilt(name, value, {"type": one_of("function"), "function": _chosen}, required=("type", "function"))


def refuse_forced_patterns(offered: list[dict[str, Any]]) -> None:
    """Tools whose call is forced become grammars; those merely offered are text in the prompt."""
    for index, tool in enumerate(offered):
        schema(f"tools[{index}].function.parameters", tool["function"].get("parameters", {}))


def json_schema(name: str, value: Any) -> dict[str, Any]:
    """A schema with its name, as OpenAI wraps one."""
    fields = {"name": _name, "description": _words, "schema": schema, "strict": flag}
    return rebuilt(name, value, fields, required=("name", "schema"))


def _json(name: str, value: Any) -> dict[str, Any]:
    if type(value) is str:
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            raise wrong_value(name, "expected a JSON schema") from None
    return schema(name, value)


def _tool(name: str, value: Any) -> dict[str, Any]:
    return rebuilt(name, value, {"type": one_of("function"), "function": _function}, required=("type", "function"))


def _function(name: str, value: Any) -> dict[str, Any]:
    fields = {"name": function_name, "description": _words, "parameters": parameters, "strict": flag}
    return rebuilt(name, value, fields, required=("name",))


def function_name(name: str, value: Any) -> str:
    """Up to 64 ASCII letters, digits, `_`, `-` and `.`."""
    _name(name, value)
    if not value.replace("_", "a").replace("-", "a").replace(".", "a").isalnum() or not value.isascii():
        raise InvalidRequest(
            f"Invalid '{name}': expected letters, digits, '_', '-' and '.'.", param=name, code="invalid_value"
        )
    return value  # type: ignore[no-any-return]  # `_name` says that it is a str


def parameters(name: str, value: Any) -> dict[str, Any]:
    """The schema of a tool that is merely offered: text in the prompt, which no compiler sees."""
    return schema(name, value, patterns=True)


def _chosen(name: str, value: Any) -> dict[str, Any]:
    return rebuilt(name, value, {"name": _name}, required=("name",))


_choice_word = one_of("none", "auto", "required")
_tools = array(_tool, 128, least=1)
_STRUCTURED = {
    "json": _json,
    "choice": array(text(1024, least=1), 1000, least=1),
    "json_object": flag,
    "disable_any_whitespace": flag,
    "disable_additional_properties": flag,
}
