"""Looking at what was asked, answered and said: filters, pages, one answer, pairs; one tenant's only, erased hidden."""

from __future__ import annotations

from dataclasses import astuple
from datetime import timedelta
from typing import Any

import pytest

from gateway.domain import Metric, MetricKind, Tenant
from gateway.feedback.intake import FeedbackBody
from gateway.identity import unit_of
from gateway.store import browsing, erasures, metrics
from gateway.store.browsing import Wanted
from gateway.store.database import Database
from tests.gateway.feedback.stories import Story, begin

ASKED: Any = [{"role": "user", "content": "the same question"}]


@pytest.fixture
async def story(db: Database) -> Story:
    one = await begin(db)
    async with db.transaction() as connection:
        for name in ("acme", "globex"):
            await metrics.insert(connection, Metric(name, "better", MetricKind.PREFERENCE))
    return one


async def found(story: Story, tenant: str = "acme", **wanted: Any) -> list[str]:
    return [one.id for one in (await browsing.feedback(story.db, tenant, Wanted(**wanted))).found]


async def test_each_filter_keeps_what_fits_the_newest_first(story: Story) -> None:
    base, tuned = await story.asked("ann", "base"), await story.asked("bob")
    thumb = await story.said("helpful", True, base, source="end-user")
    stars = await story.said("stars", 4.5, tuned, comment="Fine, 100 % fine")
    ideal = await story.said("helpful", False, tuned, correction="Better words", source="console")
    early = await story.said("note", "nothing <b>bold</b>", story.inference("eve").id)
    told = await story.said("stars", 2, episode_id="talk-1")
    assert await found(story) == [told, early, ideal, stars, thumb]
    for wanted, expected in (
        ({"metric": "stars"}, [told, stars]),
        ({"variant": "base"}, [thumb]),
        ({"version": "acme/support@1"}, [ideal, stars]),
        ({"alias": "support"}, [ideal, stars, thumb]),
        ({"alias": "other"}, []),
        ({"source": "console"}, [ideal]),
        ({"corrected": True}, [ideal]),
        ({"corrected": False, "metric": "helpful"}, [thumb]),
        ({"number": 1.0}, [thumb]),
        ({"number": 4.5, "metric": "stars"}, [stars]),
        ({"text": "BETTER w"}, [ideal]),
        ({"text": "100 %"}, [stars]),
        ({"text": "<b>"}, [early]),
    ):
        assert await found(story, **wanted) == expected, wanted
    last = (await browsing.feedback(story.db, "acme", Wanted())).found[0]
    assert await found(story, since=last.created_at) == [told]
    assert await found(story, since=last.created_at + timedelta(seconds=1)) == []


async def test_pages_follow_each_other_without_gap_or_overlap(story: Story) -> None:
    answer = await story.asked("ann")
    said = [await story.said("stars", n, answer) for n in range(20)]
    pages, before = list[list[str]](), None
    while True:
        page = await browsing.feedback(story.db, "acme", Wanted(), before=before, limit=4, span=3)
        pages.append([one.id for one in page.found])
        before = page.older
        if before is None:
            break
    assert [one for page in pages for one in page] == said[::-1] and [len(page) for page in pages[:5]] == [4] * 5
    rare = await browsing.feedback(story.db, "acme", Wanted(number=0.0), limit=4, span=3)
    assert (rare.found, rare.looked_at) == ([], 12), "it stops, and says where to go on from"
    again = await browsing.feedback(story.db, "acme", Wanted(number=0.0), before=rare.older, limit=4, span=3)
    assert ([one.id for one in again.found], again.older) == ([said[0]], None)


async def test_an_answer_comes_with_all_that_was_said_about_it_and_nothing_of_anothers(story: Story) -> None:
    one = await story.asked("ann", messages=ASKED, episode="talk-1")
    other = await story.asked("bob", "base", messages=ASKED)
    said = [
        await story.said("helpful", True, one),
        await story.said("stars", 3, episode_id="talk-1"),
        await story.said("better", one, other),
    ]
    await story.said("helpful", False, other)
    [answer] = await browsing.answers(story.db, "acme", [one])
    assert (answer.messages, answer.answer, answer.variant) == (ASKED, "an answer to ann", "tuned")
    assert [each.id for each in await browsing.said_about(story.db, "acme", answer)] == said
    assert [each.id for each in await browsing.conversation(story.db, "acme", "talk-1")] == [one]
    assert [each.id for each in await browsing.answers(story.db, "acme", [other, "0" * 44, one])] == [other, one]
    assert await browsing.answers(story.db, "globex", [one, other]) == []
    assert await browsing.said_about(story.db, "globex", answer) == []
    assert await browsing.conversation(story.db, "globex", "talk-1") == []
    assert await found(story, "globex") == []


async def test_two_versions_answers_to_the_same_messages_are_a_pair_until_somebody_has_compared_them(
    story: Story,
) -> None:
    base = await story.asked("ann", "base", messages=ASKED)
    await story.asked("ann", "tuned", messages=ASKED)
    tuned = await story.asked("bob", "tuned", messages=ASKED)
    await story.asked("cat", "base", messages=[*ASKED, *ASKED])
    for changed in ({"answer": None}, {"outcome": "engine_error"}, {"shadow_of": base}, {"messages": None}):
        await story.asked("dan", "tuned", **{"messages": [{"role": "user", "content": "cut"}], **changed})
    await story.asked("dan", "base", messages=[{"role": "user", "content": "cut"}])
    assert await browsing.pairs(story.db, "acme") == [(tuned, base)], "the newest of each version"
    assert await browsing.pairs(story.db, "globex") == []
    await story.said("better", base, tuned)
    assert await browsing.pairs(story.db, "acme") == []


async def test_what_a_user_had_erased_is_not_shown_from_that_moment_on(story: Story) -> None:
    one = await story.asked("ann", messages=ASKED)
    await story.asked("bob", "base", messages=ASKED)
    unit = unit_of(story.current.snapshot.secret, "acme", "ann")
    async with story.db.transaction() as connection:  # as if the erasure were half-way
        await connection.execute(erasures._REMEMBER, "acme", unit)
    [answer] = await browsing.answers(story.db, "acme", [one])
    assert (answer.messages, answer.answer) == (None, None)
    assert await browsing.pairs(story.db, "acme") == []


async def test_feedback_of_two_tenants_never_meets(story: Story) -> None:
    mine = await story.asked("ann")
    await story.said("note", "secret of acme", mine)
    await story.asked("ann", tenant="globex")
    accepted, _ = await story.intake.accept(
        Tenant("globex"), FeedbackBody(episode_id="talk", metric="thumbs", value=True)
    )
    page = await browsing.feedback(story.db, "globex", Wanted())
    assert [one.id for one in page.found] == [accepted.id]
    assert "secret of acme" not in str([astuple(one) for one in page.found])
