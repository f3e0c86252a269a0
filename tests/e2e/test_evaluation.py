"""What an evaluation needs of the real engine: the chat's token ids, and log-probabilities of prompts, by version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from adapters.ref import AdapterRef
from gateway.domain import Scope, Tenant
from gateway.engine.client import HttpEngine
from gateway.settings import TimeoutSettings
from tests.e2e.conftest import RealEngine
from tests.gateway.serving.house import ACME, DirectoryShelf, House, adapter, key, open_house, picture, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

JUDGE = "key-of-acmes-judge"
REFUSED = "acme/support@1"
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Capital of France?"},
]
RENDERED = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCapital of France?<|im_end|>\n"
TURN = "<|im_start|>assistant\n"


@pytest.fixture
async def house(real_engine: RealEngine, adapters: list[Path]) -> AsyncIterator[House]:
    class Shelf(DirectoryShelf):
        async def path(self, ref: AdapterRef) -> Path:
            return adapters[0]

    snapshot = picture(
        tenants=[Tenant("acme", allow_pinning=False)],
        aliases=[],
        adapters=[adapter(REFUSED, verdict="refused", reason="worse")],
        keys={ACME: key("acme"), JUDGE: key("acme", Scope.INFERENCE, Scope.EVALUATE)},
        base_model=real_engine.base_model,
    )
    patient: Any = {"timeouts": TimeoutSettings(connect=5, first_byte=60, idle=60), "seconds": 400}
    async with open_house(snapshot, engine_url=real_engine.url, ready=False, shelf=Shelf, **patient) as one:
        await until(lambda: one.residency.ready, seconds=60)
        yield one


async def test_the_engine_renders_a_chat_as_its_template_says(real_engine: RealEngine, model_directory: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model_directory / "tokenizer.json"))
    engine = HttpEngine(real_engine.url, base_model=real_engine.base_model, timeouts=TimeoutSettings())
    for generate, text in ((True, RENDERED + TURN), (False, RENDERED)):
        told = await engine.render(CHAT, add_generation_prompt=generate)
        assert told == tokenizer.encode(text, add_special_tokens=False).ids
    await engine.aclose()


async def test_a_prompts_log_probabilities_are_those_with_which_it_was_generated(
    house: House, model_directory: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(model_directory / "tokenizer.json"))
    prompt = tokenizer.encode(RENDERED + TURN, add_special_tokens=False).ids
    sums = {}
    for model in ("base", REFUSED):
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": 4,
            "temperature": 0,
            "logprobs": 0,
            "return_token_ids": True,
        }
        told = await house.post(body, key=JUDGE, path="/v1/completions")
        assert told.status_code == 200, told.text
        choice = told.json()["choices"][0]
        generated, chosen = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        body = {"model": model, "prompt": prompt + generated, "max_tokens": 1, "prompt_logprobs": 0}
        told = await house.post(body, key=JUDGE, path="/v1/completions")
        assert told.status_code == 200, told.text
        first, *positions = told.json()["choices"][0]["prompt_logprobs"]
        values = [one[str(token)]["logprob"] for one, token in zip(positions, [*prompt, *generated][1:], strict=True)]
        assert first is None and values[-len(generated) :] == pytest.approx(chosen, abs=0.1)
        sums[model] = sum(values)
    assert abs(sums["base"] - sums[REFUSED]) > 1, "each from its own weights"


async def test_a_chats_prompt_has_them_too_and_clients_reach_nothing_of_it(
    house: House, real_engine: RealEngine
) -> None:
    body = {"model": real_engine.base_model, "messages": CHAT, "max_tokens": 1, "prompt_logprobs": 0}
    told = await house.post(body, key=JUDGE)
    assert told.status_code == 200 and len(told.json()["prompt_logprobs"]) == told.json()["usage"]["prompt_tokens"]
    assert (await house.post(body)).status_code == 400
    assert (await house.post({"model": REFUSED, "messages": CHAT})).status_code == 404
