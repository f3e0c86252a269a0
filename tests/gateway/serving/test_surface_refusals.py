"""What Responses, Anthropic's messages and embeddings refuse, and with which code."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.serving.endpoints import EMBEDDINGS, MESSAGES, RESPONSES, Endpoint
from tests.gateway.serving.surface import HELLO, PATTERN, REMOTE, SOURCE, picture, read, taken, tool, user


def refused(endpoint: Endpoint, param: str, code: str, **fields: Any) -> None:
    with pytest.raises(InvalidRequest) as error:
        read(endpoint, **fields)
    assert (error.value.param, error.value.code) == (param, code), error.value.message


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        # vLLM keeps these for all tenants in one memory, or works on them when nobody waits.
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"previous_input_messages": HELLO}, "previous_input_messages", "unknown_parameter"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "unsupported_parameter"),
        # The engine would run these itself.
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "mcp", "server_url": REMOTE}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "code_interpreter", "container": "c"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "custom", "name": "c", "format": {}}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": tool(), "tool_choice": {"type": "mcp"}}, "tool_choice.type", "unsupported_parameter"),
        ({"input": [{"type": "mcp_approval_response"}]}, "input[0].type", "unsupported_parameter"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]", "unsupported_parameter"),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
            *("input[0].encrypted_content", "unsupported_parameter"),
        ),
        # It would fetch these.
        (
            {"input": user({"type": "input_image", "image_url": REMOTE})},
            *("input[0].content[0].image_url", "invalid_image_url"),
        ),
        (
            {"input": user({"type": "input_image", "file_id": "f"})},
            *("input[0].content[0].image_url", "missing_required_parameter"),
        ),
        ({"input": user({"type": "input_file", "file_url": REMOTE})}, "input[0].content[0].type", "invalid_value"),
        (
            {
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_image", "image_url": REMOTE}],
                    }
                ]
            },
            *("input[0].output[0].image_url", "invalid_image_url"),
        ),
        # A pattern would be compiled inside the engine.
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": PATTERN}}},
            *("text.format.schema.pattern", "unsupported_parameter"),
        ),
        (
            {"tools": tool(parameters=PATTERN), "tool_choice": "required"},
            *("tools[0].parameters.pattern", "unsupported_parameter"),
        ),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex", "unsupported_parameter"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "invalid_value"),
        # The gateway's own.
        ({"request_id": "resp_x"}, "request_id", "unsupported_parameter"),
        ({"cache_salt": "x"}, "cache_salt", "unsupported_parameter"),
        ({"priority": 1}, "priority", "unsupported_parameter"),
        ({"enable_response_messages": True}, "enable_response_messages", "unknown_parameter"),
        ({"vllm_xargs": {}}, "vllm_xargs", "unknown_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"input": []}, "input", "empty_array"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
    ],
)
def test_of_a_response_what_is_anothers_or_the_engines_own_is_refused(
    fields: dict[str, Any], param: str, code: str
) -> None:
    refused(RESPONSES, param, code, **fields)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": None}, "max_tokens", "missing_required_parameter"),
        ({"messages": picture({"type": "url", "url": REMOTE})}, "messages[0].content[0].source", "invalid_image_url"),
        (
            {"messages": picture({**SOURCE, "media_type": "text/html"})},
            *("messages[0].content[0].source.media_type", "invalid_value"),
        ),
        (
            {"messages": picture({"url": REMOTE})},
            *("messages[0].content[0].source.type", "missing_required_parameter"),
        ),
        (
            {
                "messages": user(
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [{"type": "image", "source": {"type": "url", "url": REMOTE}}],
                    }
                )
            },
            *("messages[0].content[0].content[0].source", "invalid_image_url"),
        ),
        ({"messages": user({"type": "document", "source": {}})}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": user({"type": "tool_addition"})}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"system": [{"type": "image", "source": SOURCE}]}, "system[0].type", "invalid_value"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "unsupported_parameter"),
        (
            {"tools": taken(input_schema=PATTERN), "tool_choice": {"type": "any"}},
            *("tools[0].input_schema.pattern", "unsupported_parameter"),
        ),
        ({"tools": taken(), "tool_choice": {"type": "tool"}}, "tool_choice.name", "missing_required_parameter"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
        ({"mcp_servers": [{"url": REMOTE}]}, "mcp_servers", "unsupported_parameter"),
        ({"container": "c"}, "container", "unsupported_parameter"),
        ({"context_management": {}}, "context_management", "unsupported_parameter"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens", "invalid_value"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "missing_required_parameter"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": PATTERN}}},
            *("output_config.format.schema.pattern", "unsupported_parameter"),
        ),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences", "array_above_max_length"),
        ({"cache_salt": "x"}, "cache_salt", "unsupported_parameter"),
        ({"vllm_xargs": {}}, "vllm_xargs", "unknown_parameter"),
        ({"kv_transfer_params": {}}, "kv_transfer_params", "unknown_parameter"),
    ],
)
def test_of_a_message_what_the_engine_would_fetch_run_or_compile_is_refused(
    fields: dict[str, Any], param: str, code: str
) -> None:
    refused(MESSAGES, param, code, **fields)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "empty_array"),
        ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
        ({"input": [[1], [-1]]}, "input[1]", "invalid_value"),
        ({"input": [[{"role": "user", "content": "x"}]]}, "input[0]", "invalid_value"),
        ({"input": {}}, "input", "invalid_type"),
        ({"messages": HELLO}, "messages", "unknown_parameter"),
        ({"encoding_format": "bytes"}, "encoding_format", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"stream": False}, "stream", "unknown_parameter"),
        ({"priority": 1}, "priority", "unsupported_parameter"),
        ({"request_id": "x"}, "request_id", "unsupported_parameter"),
        ({"mm_processor_kwargs": {}}, "mm_processor_kwargs", "unknown_parameter"),
    ],
)
def test_of_embeddings_only_texts_and_tokens_within_bounds_are_taken(
    fields: dict[str, Any], param: str, code: str
) -> None:
    refused(EMBEDDINGS, param, code, **fields)
