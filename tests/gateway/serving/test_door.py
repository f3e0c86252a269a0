"""The door over real sockets, with the official client: what OpenAI's users may rely on."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from gateway.domain import Scope, Tenant
from gateway.identity import canonical_inference_id, is_inference_of
from tests.gateway.serving.house import ACME, HELLO, SECRET, ZETA, House, alias, key, open_house, picture


async def test_an_answer_carries_its_inference_id_everywhere(house: House) -> None:
    raw = await house.client().chat.completions.with_raw_response.create(model="tuned", messages=HELLO)
    answer, headers = raw.parse(), raw.headers
    told = canonical_inference_id(answer.id)
    assert told is not None and is_inference_of(SECRET, "acme", told)
    assert headers["x-inference-id"] == answer.id and headers["x-request-id"] == told
    assert headers["x-adapter"] == "acme/support@1" and headers["x-variant"] == "tuned"
    assert "x-experiment" not in headers and float(headers["x-overhead-ms"]) < 1000
    assert answer.choices[0].message.content is not None
    assert answer.choices[0].message.content.startswith("acme/support@1 ")
    assert [row.id for row in house.records.rows] == [told]


async def test_a_stream_says_what_the_whole_answer_says(house: House) -> None:
    client = house.client()
    whole = await client.chat.completions.create(model="tuned", messages=HELLO)
    async with client.chat.completions.stream(model="tuned", messages=HELLO) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_synchronous_client_works_from_another_thread() -> None:
    def ask(url: str) -> tuple[str, str]:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=ACME, max_retries=0)
        whole = client.completions.create(model="tuned", prompt="hello", max_tokens=4)
        pieces = client.completions.create(model="tuned", prompt="hello", max_tokens=4, stream=True)
        return whole.choices[0].text, "".join(piece.choices[0].text for piece in pieces)

    async def main() -> tuple[str, str]:
        async with open_house() as house:
            return await asyncio.to_thread(ask, house.url)

    whole, streamed = asyncio.run(main())
    assert whole == streamed and whole.startswith("acme/support@1 ")


@pytest.mark.parametrize("asked", [False, True])
async def test_usage_comes_only_if_asked_for_and_is_always_recorded(house: House, asked: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await house.client().chat.completions.create(model="tuned", messages=HELLO, stream=True, **options)
    pieces = [piece async for piece in stream]
    assert [bool(piece.usage) for piece in pieces if not piece.choices] == ([True] if asked else [])
    row = house.records.rows[-1]
    assert row.input_tokens and row.output_tokens == 6 and row.finish_reason == "stop" and row.ttft_ms is not None
    assert (await house.upstream())["body"]["stream_options"] == {"include_usage": True}


async def test_tools_logprobs_json_and_choices_pass(house: House) -> None:
    client = house.client()
    schema = {"type": "object", "properties": {"pattern": {"type": "string"}}, "required": ["pattern"]}
    made: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = await client.chat.completions.create(
        model="tuned", messages=HELLO, n=2, logprobs=True, top_logprobs=3, seed=7, temperature=0.5, response_format=made
    )
    assert len(answer.choices) == 2 and answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content and len(answer.choices[0].logprobs.content[0].top_logprobs) == 3
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": schema}}
    called = await client.chat.completions.create(
        model="tuned", messages=HELLO, tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    assert called.choices[0].message.tool_calls
    told = (await house.upstream())["body"]
    assert told["tools"] == [tool] and told["parallel_tool_calls"] is False and told["model"] == "acme/support@1"


async def test_errors_are_the_openai_clients_own_classes(house: House) -> None:
    client = house.client()
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nobody", messages=HELLO)
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="tuned", messages=HELLO, temperature=3)
    assert bad.value.code == "decimal_above_max_value" and bad.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError) as who:
        await house.client("made-up").chat.completions.create(model="tuned", messages=HELLO)
    assert who.value.code == "invalid_api_key" and who.value.request_id
    with pytest.raises(openai.BadRequestError) as long:
        await client.chat.completions.create(model="tuned", messages=[{"role": "user", "content": "word " * 5000}])
    assert long.value.code == "context_length_exceeded"
    await house.faults(fail_requests=1)
    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(model="tuned", messages=HELLO)
    assert broken.value.status_code == 502 and "EngineCore" not in str(broken.value)


async def test_a_key_without_the_scope_is_told_so() -> None:
    keys = {ACME: key("acme", Scope.FEEDBACK)}
    async with open_house(picture(keys=keys)) as house:
        with pytest.raises(openai.PermissionDeniedError):
            await house.client().chat.completions.create(model="tuned", messages=HELLO)


async def test_an_unknown_key_is_not_called_wrong_while_the_database_is_away(house: House) -> None:
    house.current.stale = True
    assert (await house.client().chat.completions.create(model="tuned", messages=HELLO)).id
    refused = await house.post({}, key="perhaps new")
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0


async def test_another_tenants_names_are_unknown_names(house: House) -> None:
    for name in ("zeta/support@1", "zeta/support@9", "zeta", "acme/none@1", "support@9", "support:none", "@", ":"):
        refused = await house.post({"model": name, "messages": HELLO})
        assert refused.status_code == 404
        assert (
            refused.json()["error"]["message"] == f"The model `{name}` does not exist or you do not have access to it."
        )
    salts = set()
    for whose in (ACME, ZETA):
        answer = await house.client(whose).chat.completions.create(model="tuned", messages=HELLO)
        assert str(answer.choices[0].message.content).startswith(f"{'acme' if whose == ACME else 'zeta'}/support@1 ")
        salts.add((await house.upstream())["body"]["cache_salt"])
    assert len(salts) == 2


async def test_the_list_of_models_is_the_tenants_own() -> None:
    tenants = (Tenant("acme"), Tenant("zeta", allow_pinning=False))
    async with open_house(picture(tenants=tenants)) as house:
        names = [model.id async for model in house.client().models.list()]
        assert names == ["support", "tuned", "base", "support@1", "support@2"]
        assert [model.id async for model in house.client(ZETA).models.list()] == ["support", "tuned"]
        assert (await house.client().models.retrieve("support@1")).owned_by == "acme"
        with pytest.raises(openai.NotFoundError):
            await house.client(ZETA).models.retrieve("base")


async def test_pinned_names_are_served_where_the_tenant_allows_it(house: House) -> None:
    for name, adapter in {
        "base": "base",
        "support@2": "acme/support@2",
        "acme/support@2": "acme/support@2",
        "support:base": "base",
        "support:tuned": "acme/support@1",
    }.items():
        answer = await house.post({"model": name, "messages": HELLO})
        assert answer.status_code == 200 and answer.headers["x-adapter"] == adapter, name
        row = house.records.rows[-1]
        assert (row.reason, row.propensity, row.experiment) == ("targeting_match", 1.0, None)
    house.current.snapshot = picture(tenants=(Tenant("acme", allow_pinning=False),))
    assert (await house.post({"model": "base", "messages": HELLO})).status_code == 404


async def test_wrong_methods_and_paths_are_refused_in_openais_shape(house: House) -> None:
    answer = await house.http.get(house.url + "/v1/chat/completions")
    assert answer.status_code == 405 and answer.json()["error"]["type"] == "invalid_request_error"
    answer = await house.http.post(house.url + "/v1/models", headers={"authorization": f"Bearer {ACME}"})
    assert answer.status_code == 405
    answer = await house.http.get(house.url + "/v1/modelsandmore")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_url"


async def test_nothing_of_the_clients_headers_reaches_the_engine(house: House) -> None:
    await house.post(
        {"model": "tuned", "messages": HELLO},
        x_request_id="mine",
        x_vllm_priority="-5",
        x_data_parallel_rank="3",
        x_session_id="s",
        cookie="a=b",
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )
    told = (await house.upstream())["headers"]
    assert set(told) == {"host", "content-type", "content-length", "x-request-id", "traceparent"}
    assert told["x-request-id"] == house.records.rows[-1].id
    assert told["traceparent"].startswith(f"00-{'a' * 32}-") and told["traceparent"].endswith("-01")
    assert ACME not in str(told)


async def test_a_user_keeps_the_variant_and_the_record_says_why(house: House) -> None:
    seen = set()
    for _ in range(5):
        answer = await house.post({"model": "support", "messages": HELLO, "user": "u-1"})
        seen.add(answer.headers["x-variant"])
    assert len(seen) == 1
    row = house.records.rows[-1]
    assert (row.reason, row.propensity, row.alias, row.variant) == ("split", 0.5, "support", seen.pop())
    assert "u-1" not in str(row) and len(row.unit) == 32
    by_header = await house.post({"model": "support", "messages": HELLO, "user": "u-2"}, x_targeting_key="u-1")
    assert house.records.rows[-1].unit == row.unit and by_header.headers["x-variant"] == row.variant


async def test_an_episode_stays_on_its_version_over_a_swap(house: House) -> None:
    body = {"model": "tuned", "messages": HELLO}
    first = await house.post(body, x_episode_id="talk-1")
    assert first.headers["x-adapter"] == "acme/support@1"
    moved = alias("acme", "tuned", ("tuned", 1, "acme/support@2"), revision=2)
    house.current.snapshot = picture(version=2, aliases=[moved])
    stayed = await house.post(body, x_episode_id="talk-1")
    assert stayed.headers["x-adapter"] == "acme/support@1" and house.records.rows[-1].reason == "cached"
    assert house.records.rows[-1].episode == "talk-1"
    assert (await house.post(body, x_episode_id="talk-2")).headers["x-adapter"] == "acme/support@2"
    assert (await house.post(body)).headers["x-adapter"] == "acme/support@2"


async def test_content_is_kept_only_for_tenants_that_want_it() -> None:
    tenants = (Tenant("acme", store_content=True), Tenant("zeta"))
    async with open_house(picture(tenants=tenants)) as house:
        for stream in (False, True):
            told = await house.client().chat.completions.create(model="tuned", messages=HELLO)
            await house.post({"model": "tuned", "messages": HELLO, "stream": stream})
            row = house.records.rows[-1]
            assert row.messages == HELLO and row.answer == told.choices[0].message.content
            await house.post({"model": "tuned", "messages": HELLO, "stream": stream}, key=ZETA)
            assert house.records.rows[-1].messages is None and house.records.rows[-1].answer is None
        await house.post({"model": "tuned", "prompt": "hello", "max_tokens": 4}, path="/v1/completions")
        assert house.records.rows[-1].messages == HELLO
        assert str(house.records.rows[-1].answer).startswith("acme/support@1 ")


async def test_bodies_beyond_the_limit_are_refused_with_the_reason() -> None:
    async with open_house(max_body_bytes=10_000) as house:
        for size in (20_000, 200_000):
            answer = await house.post({"model": "tuned", "messages": [{"role": "user", "content": "x" * size}]})
            assert answer.status_code == 413 and answer.json()["error"]["code"] == "payload_too_large"

        async def pieces() -> Any:
            for _ in range(20):
                yield b"x" * 1000

        told = {"authorization": f"Bearer {ACME}"}
        answer = await house.http.post(house.url + "/v1/chat/completions", content=pieces(), headers=told)
        assert answer.status_code == 413
