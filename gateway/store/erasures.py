"""Erasing what one user asked, was answered and was judged, and remembering that, for what is written later.

What is remembered hides the rows from exports at once (`exports.py`), and whatever is written afterwards of a request
that began before is written without its content (`inferences.py`). So it is remembered first, while nobody writes:
a batch that was on its way is there by then, and the next one knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.store import marks
from gateway.store.changes import note
from gateway.store.database import Connection, Database

BATCH = 5000
"""Inferences in one transaction: some hundred milliseconds, in which nobody waits for them."""

_REMEMBER = """
INSERT INTO erasures (tenant, unit, erased_at) VALUES ($1, $2, clock_timestamp())
ON CONFLICT (tenant, unit) DO UPDATE SET erased_at = EXCLUDED.erased_at
"""
_FORGET_FEEDBACK = """
DELETE FROM feedback f USING inferences i
WHERE i.tenant = $1 AND i.unit = $2 AND f.tenant = $1 AND f.inference_id = i.id
"""
_FORGET_FEEDBACK_ON_CONVERSATIONS = """
DELETE FROM feedback f
USING (SELECT DISTINCT episode FROM inferences WHERE tenant = $1 AND unit = $2 AND episode IS NOT NULL) i
WHERE f.tenant = $1 AND f.episode_id = i.episode
"""
# Figures and parts of experiments rest on content, too, and who asked first in a conversation may be somebody else now.
_FORGET_CONTENT = """
WITH kept AS (
    SELECT id, tenant, episode FROM inferences
    WHERE tenant = $1 AND unit = $2 AND created_at <= (SELECT erased_at FROM erasures WHERE tenant = $1 AND unit = $2)
      AND num_nonnulls(messages, answer, episode) > 0
    LIMIT $3
), marked AS (
    INSERT INTO marks (tenant, inference, episode)
    SELECT tenant, id, NULL FROM kept
    UNION ALL
    SELECT DISTINCT tenant, NULL, episode FROM kept WHERE episode IS NOT NULL
)
UPDATE inferences SET messages = NULL, answer = NULL, episode = NULL WHERE id IN (SELECT id FROM kept)
"""


@dataclass(frozen=True, slots=True)
class Erased:
    """How many inferences lost their content, and how many feedbacks are gone."""

    inferences: int
    feedback: int


async def erase(db: Database, tenant: str, unit: str, *, actor: str) -> Erased:
    """Erase what is kept of a user up to now, durably. Doing it again erases what came since, or finishes one that was
    cut off. Raises `Unavailable`; then what was remembered stays so.
    """
    async with db.transaction() as connection:
        await _settle(connection)
        # Waits for those who are writing, and holds up the next: they queue in the gateways' memory, for milliseconds.
        await connection.execute("LOCK TABLE inferences, feedback IN SHARE ROW EXCLUSIVE MODE")
        await connection.execute(_REMEMBER, tenant, unit)
        await marks.append_user(connection, tenant, unit)
        feedback = 0
        for forget in (_FORGET_FEEDBACK, _FORGET_FEEDBACK_ON_CONVERSATIONS):
            feedback += _count(await connection.execute(forget, tenant, unit))
        # Under the hash: the targeting key itself is written nowhere.
        await note(connection, "user.erase", unit, {"feedback": feedback}, tenant=tenant, actor=actor)
    inferences = 0
    while True:
        async with db.transaction() as connection:
            await _settle(connection)
            done = _count(await connection.execute(_FORGET_CONTENT, tenant, unit, BATCH))
        inferences += done
        if done < BATCH:
            return Erased(inferences, feedback)


async def _settle(connection: Connection) -> None:
    """Whatever the server's default: once it is answered, a power cut cannot bring anything back."""
    await connection.execute("SET LOCAL synchronous_commit = on")


def _count(status: str) -> int:
    return int(status.split()[-1])
