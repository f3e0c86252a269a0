"""The plain chat's short way gives what the long way gives, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.serving.request import CHAT_COMPLETIONS, parse

plain_words = st.sampled_from(["", "hello", "grüße 🦙", 'quote " and \\ slash', "\n", "\x00", "user", "x" * 513])
plain_fields = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["support", "x" * 257, 3]),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "system", "assistant", "tool", "owner"]), "content": plain_words},
                optional={"name": plain_words},
            ),
            max_size=3,
        ),
    },
    optional={
        "max_tokens": st.sampled_from([0, 1, 64, 10**6, 10**6 + 1, 1.5, True, None]),
        "temperature": st.sampled_from([0, 1, 0.2, 2, 2.1, -0.0, "1", True]),
        "top_p": st.sampled_from([0, 0.5, 1, 1.1]),
        "presence_penalty": st.sampled_from([-2, 2.5, 1]),
        "seed": st.sampled_from([0, -(2**63), 2**63, 2**64]),
        "stream": st.sampled_from([True, False, 1]),
        "stream_options": st.just({"include_usage": True}),
        "user": plain_words,
        "safety_identifier": plain_words,
        "prompt_cache_key": plain_words,
        "service_tier": st.just("flex"),
        "unheard_of": plain_words,
    },
)


@settings(max_examples=3 * settings().max_examples)
@given(plain_fields, st.sampled_from([{}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"indent": 1}]))
def test_a_plain_chat_is_read_as_it_would_be_the_long_way(body: dict[str, Any], style: dict[str, Any]) -> None:
    def read(body: dict[str, Any]) -> Any:
        try:
            request = parse(json.dumps(body, **style).encode(), CHAT_COMPLETIONS)
        except InvalidRequest as error:
            return error.message, error.param, error.code
        return (
            request.model,
            request.stream,
            request.wants_usage,
            request.targeting,
            request.tier,
            request.fields,
            request.params(),
        )

    assert read(body) == read({**body, "n": None})  # a field that is no part of a plain chat, and means nothing
