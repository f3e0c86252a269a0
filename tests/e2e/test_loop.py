"""The closed loop on the real engine, with real training: what must be true once it has been gone through."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import openai
import psutil
import pytest

from loadtests.demo.gateway import running
from tests.e2e.loop import (
    BASE_MODEL,
    MODEL,
    THINGS,
    WORDS,
    Loop,
    ask,
    bearer,
    compare,
    export,
    swap_under_streams,
    train,
    words_of,
)

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The whole loop, once for all tests of this page."""
    home = tmp_path_factory.mktemp("loop")
    with running(home / "gateway", base_model=BASE_MODEL, model_path=MODEL, say=lambda _: None) as gateway:
        loop = Loop(gateway, {}, home)
        for tenant in ("acme", "globex"):
            gateway.tenant(tenant, store_content=tenant == "acme")
            loop.keys[tenant] = gateway.key(tenant, ["inference", "feedback"])
        gateway.point("globex", "assistant", {"base": (1, "base")})
        metric = {"name": "resolved", "kind": "boolean", "optimize": "max"}
        gateway.call("POST", "/tenants/acme/metrics", metric)
        seed = home / "seed.jsonl"
        seed.write_text("".join(json.dumps({"prompt": ask(t), "completion": WORDS[1]}) + "\n" for t in THINGS))
        loop.published.append(train(loop, "round-1", f"data.train=[{seed}]"))
        gateway.point("acme", "support", {"base": (1, "base")})
        compare(loop)
        loop.exported = export(loop)
        parent = str(loop.published[0]["ref"])
        loop.published.append(train(loop, "round-2", "data.gateway.alias=support", f"publish.parent={parent}"))
        gateway.call("POST", "/tenants/acme/aliases/support/promote", {"ref": parent})
        asyncio.run(swap_under_streams(loop, str(loop.published[1]["ref"])))
        yield loop


def test_a_user_stays_on_one_variant_and_both_variants_are_used(loop: Loop) -> None:
    assert all(len(variants) == 1 for variants in loop.seen.values())
    assert set.union(*loop.seen.values()) == {"base", "tuned"}


def test_the_results_count_units_and_see_every_judgement(loop: Loop) -> None:
    results = loop.gateway.call("GET", f"/experiments/{loop.experiment['id']}/results?metric=resolved")
    assert [variant["name"] for variant in results["variants"]] == ["base", "tuned"]
    assert sum(variant["units"] for variant in results["variants"]) == 16
    assert sum(variant["feedback"] for variant in results["variants"]) == 32
    assert all(variant["mean"] == 0 for variant in results["variants"])


def test_every_correction_becomes_an_example_that_names_its_origin(loop: Loop) -> None:
    assert len(loop.exported) == 32
    assert {row["completion"] for row in loop.exported} == {WORDS[2]}
    assert {row["adapter"] for row in loop.exported} == {"base", loop.published[0]["ref"]}
    assert all(row["inference_id"] and row["feedback_ids"] and row["propensity"] == 0.5 for row in loop.exported)


def test_version_two_is_traced_to_the_feedback_and_to_version_one(loop: Loop) -> None:
    first, second = loop.published
    assert (first["ref"], second["ref"]) == ("acme/support@1", "acme/support@2")
    lineage = loop.gateway.call("GET", "/tenants/acme/adapters/support/2")["manifest"]["lineage"]
    assert lineage["parent"] == "acme/support@1"
    rows = json.loads((loop.home / "round-2" / "lineage.json").read_text())["feedback"]
    assert set(rows) <= {said for row in loop.exported for said in row["feedback_ids"]}
    assert lineage["feedback"] == len(rows) > 0


def test_no_stream_failed_across_the_swap(loop: Loop) -> None:
    assert [stream.error for stream in loop.streams if stream.error] == []
    assert all(stream.finished for stream in loop.streams)
    assert sum(stream.began < loop.asked < stream.ended for stream in loop.streams) >= 20
    outlived = [s for s in loop.streams if s.began < loop.asked and s.ended > loop.acknowledged]
    assert all(stream.adapter == "acme/support@1" for stream in outlived)


def test_every_stream_ends_on_the_weights_it_began_with(loop: Loop) -> None:
    for stream in loop.streams:
        assert stream.models == {stream.adapter}
        assert stream.text.strip().startswith(words_of(int(stream.adapter[-1]))), (stream.adapter, stream.text)


def test_after_the_acknowledgement_only_the_new_version_answers(loop: Loop) -> None:
    later = [stream for stream in loop.streams if stream.began > loop.acknowledged]
    assert later
    assert {stream.adapter for stream in later} == {"acme/support@2"}


def test_a_neighbour_sees_nothing_of_another_tenant(loop: Loop) -> None:
    globex = loop.client("globex")
    assert {model.id for model in globex.models.list()} & {"support", "support@1", "acme/support@1"} == set()
    unknown = not_found(globex, "no-such-thing")
    for name in ("support", "support@1", "acme/support@1", "support:tuned"):
        assert not_found(globex, name).replace(name, "no-such-thing") == unknown


def not_found(client: openai.OpenAI, model: str) -> str:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    return refused.value.response.text


def test_feedback_outlives_a_kill_of_the_whole_gateway_right_after_its_acknowledgement(loop: Loop) -> None:
    answer = loop.client("acme").chat.completions.create(
        model="support", messages=[{"role": "user", "content": ask("kite")}], max_tokens=4
    )
    body = {"inference_id": answer.id, "metric": "resolved", "value": True, "idempotency_key": "the-last-word"}
    reply = httpx.post(f"{loop.gateway.url}/v1/feedback", json=body, headers=bearer(loop.keys["acme"]))
    family = [
        loop.gateway.process.pid,
        *(p.pid for p in psutil.Process(loop.gateway.process.pid).children(recursive=True)),
    ]
    loop.gateway.process.kill()
    assert reply.status_code == 200
    loop.gateway.process.wait(10)
    assert gone(family), "a worker or an engine process outlived its supervisor"
    with running(loop.home / "gateway", base_model=BASE_MODEL, model_path=MODEL, say=lambda _: None) as again:
        repeated = httpx.post(f"{again.url}/v1/feedback", json=body, headers=bearer(loop.keys["acme"]))
        assert repeated.json() == {**reply.json(), "duplicate": True}
        loop.gateway = again
        an_engine_that_is_killed_mid_stream_comes_back_with_its_adapters(loop)


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and "postgres" not in psutil.Process(pid).name()]
        if not [pid for pid in alive if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]:
            return True
        time.sleep(0.2)
    return False


def an_engine_that_is_killed_mid_stream_comes_back_with_its_adapters(loop: Loop) -> None:
    """On the restarted gateway, since a start of the engine takes most of a minute."""
    messages = [{"role": "user", "content": ask("kite")}]
    body = {"model": "support", "messages": messages, "stream": True, "max_tokens": 400, "ignore_eos": True}
    lines: list[str] = []
    with httpx.stream(
        "POST", f"{loop.gateway.url}/v1/chat/completions", json=body, headers=bearer(loop.keys["acme"]), timeout=60
    ) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            if len(lines) == 9:
                for process in psutil.Process(loop.gateway.process.pid).children(recursive=True):
                    with suppress(psutil.Error):  # one may die of the other's end
                        if any("vllm" in part for part in process.cmdline()):
                            process.kill()
    events = [line for line in lines if line]
    assert "error" in json.loads(events[-1].removeprefix("data: "))
    assert "[DONE]" not in events[-1]
    wrong, deadline = [], time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            answer = loop.client("acme").chat.completions.create(
                model="support", messages=[{"role": "user", "content": ask("lamp")}], max_tokens=8, temperature=0
            )
        except openai.InternalServerError as away:
            assert away.status_code == 503 and away.response.headers["retry-after"]
            time.sleep(1)
            continue
        if not (answer.choices[0].message.content or "").strip().startswith(words_of(2)):
            wrong.append(answer)
        break
    else:
        pytest.fail("the engine did not come back within three minutes")
    assert wrong == []
