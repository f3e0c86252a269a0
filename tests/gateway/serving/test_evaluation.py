"""Keys with the scope `evaluate`: what they may name and ask, which nobody else may, and what is kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.domain import Adapter, Scope, Shadow, Tenant
from gateway.identity import unit_of
from gateway.serving.request import ENDPOINTS, FOR_EVALUATION
from gateway.serving.routing import assign, names
from tests.gateway.serving.house import (
    ACME,
    BASE_MODEL,
    HELLO,
    ZETA,
    House,
    adapter,
    alias,
    key,
    open_house,
    picture,
    ref,
    until,
)

JUDGE = "key-of-acmes-judge"
IDS = [11, 22, 33, 44]


def versions() -> list[Adapter]:
    return [
        adapter("acme/support@1"),
        adapter("acme/support@2", verdict="accepted"),
        adapter("acme/support@3", verdict="refused"),
        adapter("acme/support.trial@1", verdict="undecided"),
        adapter("acme/support@4", retired=True),
        adapter("zeta/support@1"),
        adapter("zeta/support@2", verdict="refused"),
    ]


def snapshot(**tenant: Any) -> Any:
    aliases = [alias("acme", "tuned", ("tuned", 1, "acme/support@1"), shadow=Shadow(ref("acme/support@2"), 1.0))]
    return picture(
        tenants=[Tenant("acme", store_content=True, **tenant), Tenant("zeta", store_content=True)],
        keys={ACME: key("acme"), ZETA: key("zeta"), JUDGE: key("acme", Scope.INFERENCE, Scope.EVALUATE)},
        adapters=versions(),
        aliases=aliases,
        base_model=BASE_MODEL,
    )


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house(snapshot(allow_pinning=False)) as one:
        yield one


NAMED = {
    "acme/support@1": "acme/support@1",
    "support@2": "acme/support@2",
    "acme/support@3": "acme/support@3",
    "support.trial@1": "acme/support.trial@1",
    "base": "base",
    BASE_MODEL: "base",
}


async def test_it_may_name_any_version_and_the_base_whatever_the_tenant_allows(house: House) -> None:
    for model, served in NAMED.items():
        told = await house.post({"model": model, "messages": HELLO}, key=JUDGE)
        assert told.status_code == 200, told.text
        assert told.headers["x-adapter"] == served
        assert told.json()["choices"][0]["message"]["content"].startswith(f"{served} ")
        other = await house.post({"model": model, "messages": HELLO})
        assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")


async def test_it_may_not_name_what_is_retired_foreign_or_unknown(house: House) -> None:
    for model in ("support@4", "zeta/support@1", "zeta/support@2", "support@9", "other"):
        told = await house.post({"model": model, "messages": HELLO}, key=JUDGE)
        assert (told.status_code, told.json()["error"]["code"]) == (404, "model_not_found"), model


async def test_where_clients_may_pin_they_still_do_not_reach_what_the_gate_withholds() -> None:
    picture_, tenant = snapshot(), Tenant("acme")
    listed = ["tuned", "base", "support@1", "support@2"]
    assert list(names(picture_, tenant)) == listed
    for model in ("support@3", "support.trial@1", BASE_MODEL):
        with pytest.raises(Exception, match="does not exist or you do not have access"):
            assign(picture_, tenant, model, "ann")


async def test_the_list_of_models_names_what_the_key_may_name(house: House) -> None:
    told = await house.http.get(f"{house.url}/v1/models", headers={"authorization": f"Bearer {JUDGE}"})
    listed = [card["id"] for card in told.json()["data"]]
    assert listed == ["tuned", "base", "support@1", "support@2", "support@3", "support.trial@1"]


@pytest.mark.parametrize("model", ["support@3", "base"])
async def test_log_probabilities_of_a_prompt_of_token_ids_come_with_a_completion(house: House, model: str) -> None:
    body = {"model": model, "prompt": IDS, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 0}
    told = await house.post(body, key=JUDGE, path="/v1/completions")
    assert told.status_code == 200, told.text
    first, *rest = told.json()["choices"][0]["prompt_logprobs"]
    assert first is None
    assert [list(one) for one in rest] == [[str(token)] for token in IDS[1:]]
    assert all(one[str(token)]["logprob"] < 0 for one, token in zip(rest, IDS[1:], strict=True))
    sent = (await house.upstream())["body"]
    assert (sent["prompt"], sent["prompt_logprobs"]) == (IDS, 0)


async def test_each_of_several_prompts_has_its_own_and_a_chat_one_list(house: House) -> None:
    body = {"model": "base", "prompt": [IDS, IDS[:2]], "max_tokens": 1, "prompt_logprobs": 1}
    told = (await house.post(body, key=JUDGE, path="/v1/completions")).json()
    assert [len(choice["prompt_logprobs"]) for choice in told["choices"]] == [4, 2]
    assert [len(one) for one in told["choices"][0]["prompt_logprobs"][1:]] == [2, 2, 2]
    chat = {"model": "base", "messages": [{"role": "user", "content": "three small words"}], "prompt_logprobs": 0}
    assert len((await house.post(chat, key=JUDGE)).json()["prompt_logprobs"]) == 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_nobody_else_may_ask_for_them_and_bounds_hold_for_all(house: House, path: str) -> None:
    body = {"model": "tuned", "messages": HELLO, "prompt": "hello", "prompt_logprobs": 0}
    del body["prompt" if "chat" in path else "messages"]
    told = await house.post(body, path=path)
    assert (told.status_code, told.json()["error"]["code"]) == (400, "unsupported_parameter")
    for wrong in ({"prompt_logprobs": 21}, {"prompt_logprobs": -1}, {"prompt_logprobs": True}, {"stream": True}):
        refused = await house.post({**body, "model": "base", **wrong}, key=JUDGE, path=path)
        assert refused.status_code == 400, (wrong, refused.text)
    unknown = await house.post({**body, "model": "base", "bad_words": ["x"]}, key=JUDGE, path=path)
    assert unknown.json()["error"]["param"] == "bad_words"


async def test_what_it_asks_is_recorded_without_content_and_never_mirrored(house: House) -> None:
    await house.post({"model": "support@3", "messages": HELLO}, key=JUDGE)
    await house.post({"model": "tuned", "messages": HELLO}, key=JUDGE)
    await house.post({"model": "tuned", "messages": HELLO})
    await until(lambda: len(house.records.rows) == 4)
    judge, named, client, mirrored = house.records.rows
    assert (judge.served, judge.reason, judge.messages, judge.answer) == (
        "acme/support@3",
        "targeting_match",
        None,
        None,
    )
    assert (named.messages, named.answer) == (None, None)
    assert client.messages == HELLO and client.answer
    assert mirrored.shadow_of == client.id, "and nothing else was mirrored"


async def test_what_says_whose_words_it_repeats_is_kept_as_that_users(house: House) -> None:
    unit = unit_of(house.current.snapshot.secret, "acme", "ann")
    told = await house.post({"model": "support@3", "messages": HELLO}, key=JUDGE, x_unit=unit)
    assert told.status_code == 200, told.text
    await house.post({"model": "tuned", "messages": HELLO}, x_unit=unit)
    refused = await house.post({"model": "support@3", "messages": HELLO}, key=JUDGE, x_unit="ann")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-unit")
    await until(lambda: len(house.records.rows) == 3)
    repeated, client, _ = house.records.rows
    assert (repeated.unit, repeated.messages, repeated.reason) == (unit, HELLO, "targeting_match")
    assert repeated.answer and client.unit != unit, "a client's own requests are its own"


async def test_of_a_tenant_that_keeps_nothing_nothing_is_kept_whoever_it_is_of() -> None:
    keys = {JUDGE: key("acme", Scope.INFERENCE, Scope.EVALUATE)}
    async with open_house(picture(tenants=[Tenant("acme")], keys=keys)) as house:
        await house.post({"model": "base", "messages": HELLO}, key=JUDGE, x_unit="0" * 32)
        await until(lambda: len(house.records.rows) == 1)
        assert (house.records.rows[0].messages, house.records.rows[0].answer) == (None, None)


def test_only_generation_knows_the_field() -> None:
    changed = {path for path, one in FOR_EVALUATION.items() if one.fields != ENDPOINTS[path].fields}
    assert changed == {"/v1/chat/completions", "/v1/completions"}
