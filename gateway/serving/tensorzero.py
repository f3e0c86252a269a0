"""What `/inference`, TensorZero's own request, takes: its allow-list, and the chat completion that the engine is asked.

A function or a model of theirs is an alias here. Templates, tools and schemas that their users keep in a config file
live in the client's code: what would need that file is refused with what to send instead.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from gateway.identity import new_episode
from gateway.serving import schemas
from gateway.serving.aside import Aside
from gateway.serving.blocks import chat_of_input
from gateway.serving.checks import (
    Check,
    array,
    checked_and_dropped,
    dropped,
    flag,
    missing,
    one_of,
    only,
    rebuilt,
    refused,
    text,
    unsupported,
    wrong_type,
    wrong_value,
)
from gateway.serving.fields import CHAT, check_together
from gateway.serving.labels import labels_of
from gateway.serving.messages import messages

_TOOLS = "The gateway has no config of tools: send each tool in 'additional_tools'."
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z|[0-9a-f]{32}\Z", re.IGNORECASE)
_label = text(256, least=1)


def complete(fields: dict[str, Any], stream: bool) -> bool:
    """Turn checked fields into those of a chat completion. Usage comes with every stream."""
    function, model = fields.pop("function_name", None), fields.pop("model_name", None)
    if (function is None) == (model is None):
        raise wrong_value("function_name", "expected exactly one of 'function_name' and 'model_name'")
    variant = fields.pop("variant_name", None)
    name = function or model
    # A template's name, "support:tuned", is what pins a variant everywhere else: the same rule says who may.
    fields["model"] = name if variant is None else f"{name}:{variant}"
    fields["messages"] = messages("input.messages", fields.pop("input"))
    offered = fields.pop("additional_tools", None)
    if offered:
        fields["tools"] = schemas.tools("additional_tools", offered)
    for allowed in fields.pop("allowed_tools", ()):
        if not any(allowed == tool["function"]["name"] for tool in fields.get("tools", ())):
            raise unsupported("allowed_tools", _TOOLS)
    params = fields.pop("params", {})
    mode, schema = params.pop("json_mode", None), fields.pop("output_schema", None)
    if mode is not None and schema is None:
        raise wrong_value("params.chat_completion.json_mode", "only allowed with 'output_schema'")
    fields |= params
    if schema is not None and mode in (None, "strict"):
        named = {"name": "output", "schema": schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": named}
    elif schema is not None and mode == "on":
        fields["response_format"] = {"type": "json_object"}
    check_together(fields, stream)
    return True


def aside(body: dict[str, Any]) -> Aside:
    """Of a checked body: its episode, or a new one, and how it wants to be answered."""
    given = body.get("episode_id")
    return Aside(
        episode=episode(given),
        born=not given,
        kept=body.get("dryrun") is not True,
        json=body.get("output_schema") is not None,
        tools=frozenset(tool["name"] for tool in body.get("additional_tools") or ()),
        labels=_labels(body.get("tags")),
    )


def episode(given: str | None) -> str:
    """An episode in our spelling, with hyphens: the one that was given, which is a UUID, or a new one."""
    return str(UUID(given)) if given else new_episode()


def user(body: dict[str, Any]) -> str | None:
    """Whose request it is, by the tag that their examples have for it."""
    return (body.get("tags") or {}).get("user_id") or None


def complete_openai(fields: dict[str, Any], stream: bool) -> bool:
    """The same for OpenAI's request with TensorZero's fields in it."""
    variant = fields.pop("tensorzero::variant_name", None)
    if variant is not None and "model" in fields:
        fields["model"] = f"{fields['model']}:{variant}"
    stops = fields.pop("stop_sequences", None)
    if stops is not None:
        fields.setdefault("stop", stops)
    params = fields.pop("tensorzero::params", {})
    params.pop("json_mode", None)
    for name, value in params.items():
        fields.setdefault(name, value)
    return check_together(fields, stream)


def aside_openai(body: dict[str, Any]) -> Aside:
    """As `aside`."""
    kept, given = body.get("tensorzero::dryrun") is not True, body.get("tensorzero::episode_id")
    labels = _labels(body.get("tensorzero::tags")) or labels_of(body.get("metadata"))
    return Aside(episode=episode(given), born=not given, kept=kept, labels=labels)


def user_openai(body: dict[str, Any]) -> str | None:
    """Whose request it is: as OpenAI has it, else by the tag."""
    own = body.get("safety_identifier") or body.get("user") or body.get("prompt_cache_key")
    return own or (body.get("tensorzero::tags") or {}).get("user_id") or None


def _labels(tags: dict[str, str] | None) -> dict[str, str]:
    """As of OpenAI's `metadata`; who the user is, is no label."""
    return labels_of({key: value for key, value in (tags or {}).items() if key != "user_id"})


def _model(name: str, value: Any) -> str:
    told: str = text(256)(name, value)
    for prefix in ("tensorzero::function_name::", "tensorzero::model_name::"):
        told = told.removeprefix(prefix)
    return told


def tags(name: str, value: Any) -> None:
    """Tags stay here; the one that names the user is the targeting key, and short ones are labels."""
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    for key, one in value.items():
        _tag(f"{name}.{key[:64]}", one)


def uuid(name: str, value: Any) -> None:
    """A UUID, which stays here."""
    if _UUID.match(text(64)(name, value)) is None:
        raise wrong_value(name, "expected a UUID")


def _tool(name: str, value: Any) -> dict[str, Any]:
    if type(value) is dict and value.get("type") not in (None, "function"):
        raise unsupported(f"{name}.type", "Known is 'function'.")
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    if type(value.get("name")) is not str:
        raise missing(f"{name}.name")
    return {"type": "function", "function": value}


def _tool_choice(name: str, value: Any) -> Any:
    if type(value) is str:
        word = one_of("none", "off", "auto", "required")(name, value)
        return "none" if word == "off" else word
    chosen = rebuilt(name, value, {"specific": _label}, required=("specific",))
    return {"type": "function", "function": {"name": chosen["specific"]}}


def _params(name: str, value: Any) -> dict[str, Any]:
    """The chat completion's parameters; those of their other kinds of variants must be empty."""
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    for kind, given in value.items():
        if kind != "chat_completion" and given:
            raise unsupported(f"{name}.{kind[:64]}", "Known is 'chat_completion': a variant here is a version.")
    params = value.get("chat_completion")
    if params is None:
        return {}
    for key in params if type(params) is dict else ():
        if key not in _PARAMS:
            raise unsupported(f"{name}.chat_completion.{key[:64]}", "Known are " + ", ".join(sorted(_PARAMS)) + ".")
    told = rebuilt(f"{name}.chat_completion", params, _PARAMS)
    return {_SPELLED.get(key, key): one for key, one in told.items()}


def _json_mode(name: str, value: Any) -> str:
    if value in ("tool", "implicit_tool"):
        raise unsupported(name, "Use 'strict': the engine keeps to the schema itself.")
    return one_of("off", "on", "strict")(name, value)  # type: ignore[no-any-return]  # `one_of` gives its own word


_tag = text(512)
_SPELLED = {"stop_sequences": "stop", "thinking_budget_tokens": "thinking_token_budget"}
_PARAMS: dict[str, Check] = {
    **{name: CHAT[name] for name in ("temperature", "top_p", "max_tokens", "seed", "presence_penalty")},
    **{name: CHAT[name] for name in ("frequency_penalty", "reasoning_effort", "verbosity", "service_tier")},
    "stop_sequences": array(text(256, least=1), 16),
    "thinking_budget_tokens": CHAT["thinking_token_budget"],
    "json_mode": _json_mode,
}
_RAW = only(False, "An answer is told in one form: use /v1/chat/completions for the engine's own.")
_NO_PROVIDER = "There is no provider behind the gateway but its own engine."
PROVIDERS: dict[str, Check] = {
    "credentials": only({}, _NO_PROVIDER),
    "extra_body": only([], _NO_PROVIDER),
    "extra_headers": only([], _NO_PROVIDER),
    "provider_tools": only([], _NO_PROVIDER),
    "namespace": refused("A tenant is what a namespace was: use that tenant's key."),
    "cache_options": dropped,  # nothing is cached: each answer is fresh, as after a miss
    "include_original_response": _RAW,
    "include_raw_response": _RAW,
    "include_raw_usage": _RAW,
    "include_aggregated_response": _RAW,
}
"""What is TensorZero's own house."""

FIELDS: dict[str, Check] = {
    **PROVIDERS,
    "function_name": _label,
    "model_name": _label,
    "input": chat_of_input,
    "episode_id": uuid,
    "variant_name": _label,
    "tags": tags,
    "dryrun": checked_and_dropped(flag),
    "internal": dropped,
    "internal_dynamic_variant_config": refused("Variants are declared with the alias."),
    "stream": flag,
    "params": _params,
    "additional_tools": array(_tool, 128),
    "allowed_tools": array(_label, 128),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": flag,
    "output_schema": schemas.schema,
}

FIELDS_OPENAI: dict[str, Check] = {
    **CHAT,
    **{f"tensorzero::{name}": check for name, check in PROVIDERS.items()},
    "model": _model,
    "stop_sequences": _PARAMS["stop_sequences"],
    "tensorzero::episode_id": uuid,
    "tensorzero::variant_name": _label,
    "tensorzero::tags": tags,
    "tensorzero::dryrun": checked_and_dropped(flag),
    "tensorzero::params": _params,
    "tensorzero::deny_unknown_fields": dropped,  # they always are
}
"""Of `/openai/v1/chat/completions`."""
