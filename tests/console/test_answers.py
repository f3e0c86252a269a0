"""Feedback, answers, pairs and the playground, as HTTP: what is shown to whom, and what a form does."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from gateway.identity import hash_key, unit_of
from gateway.store.database import Database
from tests.console.visits import Visits, field_of, visits

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


@pytest.fixture
async def here(db: Database, tmp_path: Path) -> AsyncIterator[Visits]:
    async with visits(db, tmp_path) as one:
        yield one


def ids_in(page: str) -> list[str]:
    return re.findall(r"/feedback/answers/([0-9a-f]{44})", page)


@pytest.mark.long
async def test_feedback_is_filtered_and_leads_from_page_to_page(here: Visits) -> None:
    key = here.keys[0]
    base, tuned = await here.asked(), await here.asked(served="acme/support@1", variant="tuned")
    for n in range(60):
        await here.said(key, tuned if n % 2 else base, "thumbs", n % 3 == 0, source="end-user")
    first = await here.acme.page("feedback")
    assert len(ids_in(first)) == 50
    older = re.search(r'rel="next" href="(\?[^"]+)"', first)
    assert older is not None
    second = await here.acme.page(here.acme.at("feedback") + older[1].replace("&amp;", "&"))
    assert len(ids_in(second)) == 10 and 'rel="next"' not in second
    filtered = await here.acme.page("feedback", variant="tuned", value="yes", source="end-user", metric="thumbs")
    assert set(ids_in(filtered)) == {tuned} and len(ids_in(filtered)) == 10
    assert "Nothing fits" in await here.acme.page("feedback", source="nobody")
    for params in ({"since": "yesterday"}, {"before": "x"}, {"corrected": "perhaps"}, {"value": "\0"}):
        assert (await here.acme.get("feedback", **params)).status_code in (400, 422), params


async def test_what_people_wrote_stays_text_on_every_page(here: Visits) -> None:
    one = await here.asked(XSS, answer=XSS, variant=XSS, episode=XSS, params={"stop": XSS})
    await here.asked(XSS, answer=XSS, served="acme/support@1")
    await here.said(here.keys[0], one, "comment", XSS, comment=XSS, correction=XSS, source=XSS[:60])
    pages = ("traffic", "feedback", "feedback/pairs", f"feedback/answers/{one}", "playground")
    told = [await here.acme.page(path) for path in pages]
    told.append(await here.acme.page("feedback", value=XSS, variant=XSS, source=XSS[:60]))
    told.append(await here.acme.page("feedback/conversation", episode=XSS))
    told.append(await here.acme.page("traffic", alias=XSS[:60]))
    for page in told:
        assert "<script>alert" not in page and "<img src=x" not in page
    assert all("&lt;script&gt;alert(1)" in page for page in told[:-2] if page is not told[4])


async def test_half_of_a_surrogate_pair_in_what_a_client_sent_is_shown_as_a_question_mark(here: Visits) -> None:
    one = await here.asked("\ud83d cut off", params={"stop": "\ud83d"})
    assert "<code>stop: ?</code>" in await here.acme.page(f"feedback/answers/{one}")


async def test_nobody_sees_or_judges_anothers(here: Visits) -> None:
    mine = await here.asked("a secret of acme")
    await here.said(here.keys[0], mine, "comment", "a secret about it")
    pages = (f"feedback/answers/{mine}", f"feedback/pairs?one={mine}&other={mine}", f"feedback/answers/{'0' * 44}")
    found = {(await here.rival.get(path)).status_code for path in pages}
    assert found == {404}
    assert (await here.rival.get("/console/t/acme/feedback")).status_code == 404
    for path in ("feedback", "feedback/pairs", "traffic", "playground"):
        assert "secret" not in await here.rival.page(path)
        assert (await here.rival.get(here.acme.at(path))).text == (
            await here.rival.get("/console/t/ghost/feedback")
        ).text.replace("ghost", "acme")
    form = {"metric": "demonstration", "correction": "mine now", "nonce": "n" * 32}
    assert (await here.rival.send(f"feedback/answers/{mine}/correct", **form)).status_code == 404
    assert (await here.rival.send(here.acme.at(f"feedback/answers/{mine}/correct"), **form)).status_code == 404
    assert len(await here.export()) == 1


async def test_no_form_does_anything_without_the_sessions_token(here: Visits) -> None:
    mine = await here.asked()
    sent = (
        (f"feedback/answers/{mine}/correct", {"metric": "demonstration", "correction": "x", "nonce": "n" * 32}),
        (f"feedback/answers/{mine}/again", {"version": "base"}),
        ("feedback/pairs", {"winner": mine, "loser": mine, "nonce": "n" * 32}),
        ("feedback/metrics", {"kind": "preference"}),
        ("playground/answer", {"version": "base", "prompt": "x", "temperature": "1", "max_tokens": "9"}),
        ("playground/vote", {"winner": mine, "losers": mine, "nonce": "n" * 32}),
    )
    for path, form in sent:
        for token in ("", here.rival.token):
            assert (await here.acme.send(path, token=token, **form)).status_code == 403, path
    assert here.echo.calls == [] and await here.export() == []


@pytest.mark.long
async def test_a_correction_sent_twice_is_in_the_judged_export_once(here: Visits) -> None:
    mine = await here.asked()
    page = await here.acme.page(f"feedback/answers/{mine}")
    form = {
        "nonce": field_of(page, "nonce"),
        "metric": "demonstration",
        "correction": "Better.",
        "comment": "too short",
    }
    for _ in range(2):
        reply = await here.acme.send(f"feedback/answers/{mine}/correct", **form)
        assert (reply.status_code, reply.headers["location"]) == (303, here.acme.at(f"feedback/answers/{mine}"))
    changed = await here.acme.send(f"feedback/answers/{mine}/correct", **{**form, "correction": "Else."})
    assert changed.status_code == 422, "the same form with other words is no repetition"
    [row] = await here.export()
    [said] = row["feedback"]
    assert (row["inference_id"], said["correction"], said["value"]) == (mine, "Better.", "Better.")
    assert (said["source"], said["comment"], said["kind"]) == ("console", "too short", "demonstration")
    assert "Better." in await here.acme.page(f"feedback/answers/{mine}")
    for wrong in ({"correction": ""}, {"metric": ""}, {"metric": "ghost"}, {"nonce": "short"}):
        assert (await here.acme.send(f"feedback/answers/{mine}/correct", **{**form, **wrong})).status_code == 400


@pytest.mark.long
async def test_a_pair_is_judged_blind_and_the_next_round_hears_of_it(here: Visits) -> None:
    base, tuned = await here.asked(answer="one"), await here.asked(answer="two", served="acme/support@1")
    page = await here.acme.page("feedback/pairs")
    assert "Declare the metric" in page and "acme/support@1" not in page
    declared = await here.acme.send("feedback/metrics", kind="preference", back="feedback/pairs")
    assert declared.headers["location"] == here.acme.at("feedback/pairs")
    page = await here.acme.page("feedback/pairs")
    assert "support@1" not in page and "1 pair " in page
    form = {"nonce": field_of(page, "nonce"), "metric": field_of(page, "metric"), "winner": tuned, "loser": base}
    voted = await here.acme.send("feedback/pairs", **form)
    assert voted.status_code == 303, voted.text
    page = await here.acme.page(voted.headers["location"])
    assert "<code>acme/support@1</code> is better than <code>base</code>" in page and "No pairs wait" in page
    [row] = await here.export()
    [said] = row["feedback"]
    assert (row["inference_id"], said["value"], said["source"], said["metric"]) == (
        tuned,
        base,
        "console",
        "preference",
    )
    assert (said["over"]["answer"], said["over"]["same_prompt"]) == ("one", True)
    other = await here.asked("something else")
    unlike = await here.acme.send("feedback/pairs", **{**form, "loser": other, "nonce": "n" * 32})
    assert unlike.status_code == 409


@pytest.mark.long
async def test_an_answer_is_compared_with_a_fresh_one_in_its_users_name(here: Visits) -> None:
    mine = await here.asked("what now?", user="ann", params={"temperature": 0.2, "stop": "x"})
    reply = await here.acme.send(f"feedback/answers/{mine}/again", version="support@1")
    assert reply.status_code == 303, reply.text
    [call] = here.echo.calls
    assert json.loads(call.body) == {
        "model": "support@1", "messages": [{"role": "user", "content": "what now?"}], "temperature": 0.2
    }  # fmt: skip
    assert call.headers[b"x-unit"].decode() == unit_of(here.here.current.snapshot.secret, "acme", "ann")
    page = await here.acme.page(reply.headers["location"])
    assert "support@1 says what now?" in page and "an answer" in page
    here.echo.refuse = b'{"error": {"message": "The model does not exist."}}'
    refused = await here.acme.send(f"feedback/answers/{mine}/again", version="ghost@1")
    assert refused.status_code == 400 and "The model does not exist." in refused.text
    unkept = await here.asked(messages=None, answer=None)
    assert (await here.acme.send(f"feedback/answers/{unkept}/again", version="base")).status_code == 409


PROMPT = {"version": "base", "prompt": "hi there", "system": "Be kind.", "temperature": "0.5", "max_tokens": "20"}


@pytest.mark.long
async def test_the_playground_streams_with_a_key_of_its_own_that_no_browser_sees(here: Visits) -> None:
    reply = await here.acme.send("playground/answer", **PROMPT)
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert "".join(line["text"] for line in lines[:-1]).strip() == "base says hi there"
    assert lines[-1]["done"]["tokens"] == 3
    await here.acme.send("playground/answer", **PROMPT)
    await here.operator.send("playground/answer", **PROMPT)
    shown = [call.headers[b"authorization"].decode().removeprefix("Bearer ") for call in here.echo.calls]
    assert shown[0] == shown[1] != shown[2], "one for each who asks, as long as it is good"
    key = here.here.current.snapshot.keys[hash_key(shown[0])]
    assert (key.tenant, sorted(key.scopes)) == ("acme", ["evaluate", "inference"]) and key.expires_at is not None
    assert shown[0] not in reply.text + await here.acme.page("playground")
    asked = json.loads(here.echo.calls[0].body)
    assert [line["role"] for line in asked["messages"]] == ["system", "user"]
    assert (asked["model"], asked["max_tokens"], asked["stream"]) == ("base", 20, True)
    await here.here.call("DELETE", f"/tenants/acme/keys/{key.id}")
    await here.acme.send("playground/answer", **PROMPT)
    assert here.echo.calls[-1].headers[b"authorization"].decode().removeprefix("Bearer ") != shown[0]


@pytest.mark.long
async def test_what_the_playground_cannot_ask_is_said(here: Visits) -> None:
    for wrong in ({"prompt": " "}, {"temperature": "hot"}, {"max_tokens": "1e99"}, {"prompt": "x" * 100_001}):
        assert (await here.acme.send("playground/answer", **{**PROMPT, **wrong})).status_code == 400, wrong
    here.echo.refuse = b'{"error": {"message": "No such model."}}'
    reply = await here.acme.send("playground/answer", **PROMPT)
    assert [json.loads(line) for line in reply.text.splitlines()] == [{"error": "No such model."}]


@pytest.mark.long
async def test_a_vote_in_the_playground_is_a_preference_over_each_other_answer_once(here: Visits) -> None:
    await here.acme.send("feedback/metrics", kind="preference", back="playground")
    ids = []
    for version in ("base", "support@1", "support@2"):
        reply = await here.acme.send("playground/answer", **{**PROMPT, "version": version})
        ids.append(json.loads(reply.text.splitlines()[-1])["done"]["id"])
    form = {"winner": ids[1], "losers": f"{ids[0]},{ids[2]}", "metric": "preference", "nonce": "n" * 32}
    for _ in range(2):
        reply = await here.acme.send("playground/vote", **form)
        assert reply.json() == {"kept": 2}, reply.text
    [row] = await here.export()
    assert row["inference_id"] == ids[1]
    assert [(said["value"], said["over"]["same_prompt"]) for said in row["feedback"]] == [
        (ids[0], True),
        (ids[2], True),
    ]
    foreign = await here.rival.send("playground/vote", **form)
    assert foreign.status_code in (400, 404) and "error" in foreign.json()
    assert (await here.acme.send("playground/vote", **{**form, "losers": ""})).status_code == 400


@pytest.mark.long
async def test_who_closes_the_page_hangs_up_on_the_engine(here: Visits) -> None:
    here.echo.endless = True
    async with (
        served(here.here.app) as url,
        httpx.AsyncClient(base_url=url, cookies=dict(here.acme.http.cookies)) as http,
    ):
        body = {"csrf": here.acme.token, **PROMPT}
        path = here.acme.at("playground/answer")
        async with http.stream("POST", path, data=body, headers={"origin": url}) as reply:
            assert reply.status_code == 200
            async for line in reply.aiter_lines():
                assert json.loads(line) == {"text": "and "}
                break
        async with asyncio.timeout(5):
            await here.echo.hung_up.wait()
        assert here.echo.calls[-1].gone


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The application on a real socket."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listening]))
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            server.should_exit = server.force_exit = True
