"""What the gateway exports of judged answers is what the trainer reads, to the last character."""

from __future__ import annotations

from pathlib import Path

from adapters.judgements import Judged, read_judged
from gateway.store.database import Database
from tests.gateway.api.installation import Installation, installed
from tests.gateway.feedback import stories

ODD = 'tab\t, quote ", line \u2028\x85\r\n, \u202eright to left, 👍🏽, é é, \\u0000, {{ template }}, </s>'


async def _lines(here: Installation, query: str = "", *, status: int = 200) -> list[bytes]:
    reply = await here.request("GET", f"/admin/v1/export?tenant=acme&format=judged{query}")
    assert reply.status_code == status, reply.text
    return reply.content.split(b"\n")


async def test_judged_answers_read_back_as_they_were_said(db: Database, tmp_path: Path) -> None:
    story = await stories.begin(db)
    async with installed(db, tmp_path) as here:
        await here.call("POST", "/tenants/acme/metrics", {"name": "better", "kind": "preference"})
        asked = [{"role": "system", "content": ODD}, {"role": "user", "content": [{"type": "text", "text": ODD}]}]
        winner = await story.asked("ann", messages=asked, answer=ODD, episode=ODD)
        loser = await story.asked("bob", messages=asked, answer=ODD[::-1])
        await story.said("helpful", False, winner, comment=ODD, correction=ODD, source="s")
        await story.said("ideal", ODD, winner)
        await story.said("stars", -0.1, winner)
        await story.said("escalated", True, episode_id=ODD)
        await story.said("better", loser, winner)
        lines = await _lines(here)
        (one,) = read_judged(lines)
        assert [one.to_json().encode(), b""] == lines
        assert (one.messages, one.answer, one.episode) == (asked, ODD, ODD)
        values = [(said.kind, said.value, said.correction, said.comment) for said in one.feedback]
        assert values == [
            ("boolean", False, ODD, ODD),
            ("demonstration", ODD, None, None),
            ("float", -0.1, None, None),
            ("boolean", True, None, None),
            ("preference", loser, None, None),
        ]
        over = one.feedback[-1].over
        assert over is not None and (over.answer, over.same_prompt) == (ODD[::-1], True)
        assert list(read_judged(await _lines(here, "&metric=ideal"))) == [
            Judged(**{**dict(one), "feedback": [one.feedback[1]]})
        ]
        await _lines(here, "&format=other", status=400)
        old = await here.request("GET", "/admin/v1/export?tenant=acme")
        assert b'"kind":"demonstration"' in old.content and b'"feedback"' not in old.content
