"""Units that cannot be worked out: everybody else's figures go on, and what could not be done is tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.experiment import Evidence, Experiment
from gateway.feedback.results import results
from gateway.feedback.tallies import Tallies
from gateway.store import experiments, set_aside
from gateway.store.automatic import automatic
from gateway.store.database import Database
from tests.gateway.feedback.stories import EXPERIMENT, Story, begin


async def evidence(story: Story, experiment: Experiment = EXPERIMENT) -> Evidence:
    tallies = Tallies(story.db)
    while await tallies.catch_up():
        pass
    return await tallies.evidence(experiment, automatic("acme"))


async def put_other(story: Story) -> Experiment:
    other = replace(EXPERIMENT, id="exp-2", alias="search")
    async with story.db.transaction() as connection:
        await experiments.put(connection, other)
    return other


async def break_users(story: Story, *users: str) -> None:
    """What the database refuses to keep of them, with a sentence that quotes the row."""
    units = [story.inference(user).unit for user in users]
    async with story.db.transaction() as connection:
        await connection.execute("ALTER TABLE tallies DROP CONSTRAINT IF EXISTS unsound")
        if units:
            listed = ", ".join(f"'{unit}'" for unit in units)
            await connection.execute(f"ALTER TABLE tallies ADD CONSTRAINT unsound CHECK (unit NOT IN ({listed}))")


async def test_a_user_who_cannot_be_worked_out_holds_up_nobody_and_is_tried_again(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    story = await begin(db)
    other = await put_other(story)
    await break_users(story, "ann")
    for user in ("ann", "bob", "cat"):
        await story.asked(user)
    await story.asked("eve", alias="search", experiment=other.id)
    assert (await evidence(story, other)).exposed == {(0, "tuned"): 1}
    assert (await evidence(story)).exposed == {(0, "tuned"): 2}, "of her own experiment, too"
    assert await Tallies(story.db).set_aside() == 1
    assert (await results(story.db, EXPERIMENT, None)).behind and not (await results(story.db, other, None)).behind
    await story.asked("ann")
    await story.asked("bob")
    assert (await evidence(story)).sums["error_rate", 0, "tuned"].n == 3, "what comes later of others counts"
    [told] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (vars(told)["error"], vars(told)["units"], told.exc_info) == ("CheckViolationError", 3, None)
    await break_users(story)
    await Tallies(story.db).rebuild(EXPERIMENT.id)
    assert (await evidence(story)).sums["error_rate", 0, "tuned"].n == 5, "nothing was lost"
    assert await Tallies(story.db).set_aside() == 0
    assert not (await results(story.db, EXPERIMENT, None)).behind


@pytest.mark.long
async def test_a_rebuild_comes_to_its_end_without_the_few_of_many_who_cannot_be_worked_out(db: Database) -> None:
    story = await begin(db)
    await story.thumbs(set_aside.PIECE + 2, a_second=10)
    await break_users(story, "user-3", "user-7")
    await Tallies(story.db).rebuild(EXPERIMENT.id)
    assert (await evidence(story)).exposed == {(0, "tuned"): set_aside.PIECE}
    assert await Tallies(story.db).set_aside() == 2


async def test_a_statement_that_takes_too_long_holds_up_nobody_else(db: Database) -> None:
    story = await begin(db)
    other = await put_other(story)
    async with story.db.transaction() as connection:
        await connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE query_canceled; END $$;"
            f" CREATE TRIGGER slow BEFORE INSERT ON tallies FOR EACH ROW"
            f" WHEN (NEW.unit = '{story.inference('ann').unit}') EXECUTE FUNCTION slow()"
        )
    for user in ("ann", "bob"):
        await story.asked(user)
    await story.asked("eve", alias="search", experiment=other.id)
    assert (await evidence(story, other)).exposed == {(0, "tuned"): 1}
    assert (await evidence(story)).exposed == {(0, "tuned"): 1}
