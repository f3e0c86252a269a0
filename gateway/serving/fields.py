"""The allow-list of /v1/chat/completions and /v1/completions: which fields reach the engine, and within which bounds.

Three kinds. Passed: what shapes the answer. Dropped: what OpenAI's clients send for OpenAI's own house (billing tiers,
storage, metadata) and no engine needs to see. Refused: everything else, with a 400 that names the parameter, as OpenAI
does: a field that is silently ignored gives the client another answer than the one it asked for.
"""

from __future__ import annotations

from typing import Any

from gateway.serving.checks import (
    Check,
    array,
    checked_and_dropped,
    decimal,
    dropped,
    flag,
    integer,
    one_of,
    only,
    rebuilt,
    sized,
    text,
    unsupported,
    wrong_type,
    wrong_value,
)
from gateway.serving.messages import messages
from gateway.serving.schemas import refuse_forced_patterns, response_format, structured_outputs, tool_choice, tools

MOST_CHOICES = 8
MOST_PROMPTS = 64
MOST_PROMPT_LOGPROBS = 20
"""vLLM's own bound unless it is started with another."""
MOST_TOKENS = 1_000_000
"""Beyond any context window: the engine checks against its own."""

_INT64 = 2**63
_TOKEN_ID = (1 << 31) - 1


def stop(name: str, value: Any) -> Any:
    return _one_stop(name, value) if type(value) is str else _stops(name, value)


def _logit_bias(name: str, value: Any) -> dict[str, float]:
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    if len(value) > 300:
        raise wrong_value(name, "expected at most 300 tokens")
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise wrong_value(name, "expected token ids as keys")
        _bias(f"{name}.{token}", bias)
    return value


def template_kwargs(name: str, value: Any) -> dict[str, Any]:
    """Switches of thinking models. A template's other variables are not the client's to set."""
    if type(value) is dict:
        for key in value:
            if key not in _TEMPLATE:
                raise unsupported(f"{name}.{key}", "Known are " + ", ".join(f"'{one}'" for one in _TEMPLATE) + ".")
    return rebuilt(name, value, _TEMPLATE)


def _prompt(name: str, value: Any) -> Any:
    return prompts(name, value, MOST_PROMPTS)


def prompts(name: str, value: Any, most: int) -> Any:
    """A string, token ids, or a list of up to `most` of either."""
    if type(value) is str:
        return value
    if type(value) is not list:
        raise wrong_type(name, "a string or an array", value)
    if not value:
        raise wrong_value(name, "expected at least 1 item", code="empty_array")
    if type(value[0]) is int:
        return _tokens(name, value)
    sized(name, value, most, least=1)
    return [one if type(one) is str else _tokens(f"{name}[{i}]", one) for i, one in enumerate(value)]


def _tokens(name: str, value: Any) -> list[int]:
    sized(name, value, MOST_TOKENS, least=1)
    for one in value:
        if type(one) is not int or not 0 <= one <= _TOKEN_ID:
            raise wrong_value(name, "expected token ids")
    return value  # type: ignore[no-any-return]  # `sized` says that it is a list


def stream_options(name: str, value: Any) -> dict[str, Any]:
    return rebuilt(name, value, _STREAM_OPTIONS)


def _modalities(name: str, value: Any) -> None:
    if value != ["text"]:
        raise unsupported(name, "This gateway answers with text.")


_one_stop = text(256, least=1)
_stops = array(_one_stop, 16)
_bias = decimal(-100, 100)
_penalty = decimal(-2, 2)
_label = checked_and_dropped(text(512))
_TEMPLATE: dict[str, Check] = {
    "enable_thinking": flag,
    "thinking": flag,
    "thinking_budget": integer(0, MOST_TOKENS),
    "preserve_thinking": flag,
    "clear_thinking": flag,
    "reasoning_effort": text(16),
}
_STREAM_OPTIONS: dict[str, Check] = {
    "include_usage": flag,
    "continuous_usage_stats": flag,
    "include_obfuscation": checked_and_dropped(flag),
}

LABELS: dict[str, Check] = {
    "user": _label,
    "safety_identifier": _label,
    "prompt_cache_key": _label,
    "prompt_cache_options": dropped,
    "prompt_cache_retention": dropped,
    "metadata": dropped,
    "store": dropped,
    "service_tier": checked_and_dropped(text(64)),
}
"""OpenAI's own house."""

SAMPLING: dict[str, Check] = {
    "model": text(256),
    "temperature": decimal(0, 2),
    "top_p": decimal(0, 1, above=True),
    "top_k": integer(-1, 1_000_000),
    "min_p": decimal(0, 1),
    "presence_penalty": _penalty,
    "frequency_penalty": _penalty,
    "repetition_penalty": decimal(0, 10, above=True),
    "logit_bias": _logit_bias,
    "seed": integer(-_INT64, _INT64 - 1),
    "stop": stop,
    "stop_token_ids": array(integer(0, _TOKEN_ID), 64),
    "include_stop_str_in_output": flag,
    "ignore_eos": flag,
    "skip_special_tokens": flag,
    "stream": flag,
    "structured_outputs": structured_outputs,
}

_COMMON: dict[str, Check] = {
    **SAMPLING,
    **LABELS,
    "max_tokens": integer(1, MOST_TOKENS),
    "min_tokens": integer(0, MOST_TOKENS),
    "n": integer(1, MOST_CHOICES),
    "spaces_between_special_tokens": flag,
    "add_special_tokens": flag,
    "truncate_prompt_tokens": integer(-1, MOST_TOKENS),
    "return_token_ids": flag,
    "return_tokens_as_token_ids": flag,
    "echo": flag,
    "stream_options": stream_options,
    "response_format": response_format,
}

CHAT: dict[str, Check] = _COMMON | {
    "messages": messages,
    "max_completion_tokens": integer(1, MOST_TOKENS),
    "logprobs": flag,
    "top_logprobs": integer(0, 20),
    "tools": tools,
    "tool_choice": tool_choice,
    "parallel_tool_calls": flag,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "include_reasoning": flag,
    "thinking_token_budget": integer(0, MOST_TOKENS),
    "chat_template_kwargs": template_kwargs,
    "add_generation_prompt": flag,
    "continue_final_message": flag,
    "modalities": _modalities,
    "prediction": dropped,
    "verbosity": only("medium", "Say in the prompt how long the answer should be."),
}

EVALUATED: dict[str, Check] = {"prompt_logprobs": integer(0, MOST_PROMPT_LOGPROBS)}
"""What keys with the scope `evaluate` may ask for beside the rest."""

TEXT: dict[str, Check] = _COMMON | {
    "prompt": _prompt,
    "logprobs": integer(0, 20),
    "best_of": integer(1, MOST_CHOICES),
}

SCALARS = frozenset(
    (
        *(
            "max_tokens",
            "max_completion_tokens",
            "min_tokens",
            "n",
            "seed",
            "stream",
            "echo",
            "logprobs",
            "top_logprobs",
        ),
        *("temperature", "top_p", "top_k", "min_p", "ignore_eos", "parallel_tool_calls", "truncate_prompt_tokens"),
        *("max_output_tokens", "truncation", "dimensions", "encoding_format"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort", "thinking_token_budget"),
    )
)
"""The fields that say how an answer was sampled and hold no text of the client's: they are remembered."""

REFUSED: dict[str, str] = {
    "functions": "Use 'tools'.",
    "function_call": "Use 'tool_choice'.",
    "audio": "This gateway answers with text.",
    "web_search_options": "The engine has no web search.",
    "suffix": "The engine does not fill in the middle.",
    "prompt_logprobs": "It costs the shared engine more than one client may take: keys with the scope `evaluate` may.",
    "guided_regex": "Use 'response_format' or 'structured_outputs.choice'.",
    "guided_json": "Use 'response_format'.",
    "guided_choice": "Use 'structured_outputs.choice'.",
    "guided_grammar": "Use 'response_format'.",
    "chat_template": "The served template is the one the adapter was trained with.",
    "cache_salt": "The gateway sets it, one per tenant.",
    "priority": "The gateway decides it.",
    "request_id": "The gateway gives ids.",
    "use_beam_search": "The engine serves many clients: use 'n'.",
    "prompt_embeds": "Send text or token ids.",
    "allowed_token_ids": "Use 'logit_bias' or 'structured_outputs.choice'.",
    "bad_words": "Use 'logit_bias'.",
}
"""Fields that clients of OpenAI or vLLM do send, with what to do instead. A field in no table at all is unknown."""


def check_together(fields: dict[str, Any], stream: bool) -> bool:
    """The rules that take two fields; completes the stream options. Returns whether the client asked for usage."""
    options = fields.get("stream_options")
    if options is not None and not stream:
        raise wrong_value("stream_options", "only allowed when 'stream' is true")
    wants_usage = options is not None and options.get("include_usage") is True
    if stream:
        fields["stream_options"] = {**options, "include_usage": True} if options else {"include_usage": True}
    if not _SPECIAL.isdisjoint(fields):
        _check_answer_fields(fields)
    return wants_usage


_SPECIAL = frozenset(("top_logprobs", "echo", "best_of", "n", "tool_choice", "prompt_logprobs"))


def _check_answer_fields(fields: dict[str, Any]) -> None:
    if fields.get("top_logprobs") and not fields.get("logprobs"):
        raise wrong_value("top_logprobs", "only allowed when 'logprobs' is true")
    if fields.get("echo") and fields.get("logprobs", False) is not False:
        raise unsupported("echo", "Together with 'logprobs' it asks for the prompt's log-probabilities.")
    n = fields.get("n", 1)
    if fields.pop("best_of", n) != n:
        raise unsupported("best_of", "Use 'n', and choose among the answers.")
    prompts = fields.get("prompt")
    if type(prompts) is list and type(prompts[0]) is not int and len(prompts) * n > MOST_PROMPTS:
        raise wrong_value(
            "n", f"expected at most {MOST_PROMPTS} answers in one request", code="integer_above_max_value"
        )
    if "prompt_logprobs" in fields and fields.get("stream"):
        raise unsupported("stream", "The prompt's log-probabilities come with a whole answer only.")
    choice = fields.get("tool_choice")
    if choice is not None:
        if "tools" not in fields:
            if choice != "none":
                raise wrong_value("tool_choice", "only allowed when 'tools' are specified")
            del fields["tool_choice"]
        elif choice == "required" or type(choice) is dict:
            refuse_forced_patterns(fields["tools"])
