"""Whatever was said, in whatever order: it compiles, and what the compiler promises of its rows holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.judgements import Judged, Other, Said
from tests.trainer.feedback.judged import answered, at, thumb
from trainer import data, feedback
from trainer.feedback.compiler import Recipe
from trainer.settings.data import DataSettings, GatewayExport
from trainer.settings.rounds import FeedbackSettings

_TEXTS = st.sampled_from(["yes", "no", "maybe", "", " "])
_VALUES = st.booleans() | st.sampled_from([1.0, 2.5, 4.0, 5.0]) | _TEXTS
_KINDS = st.sampled_from(["boolean", "float", "comment", "demonstration", "preference"])
_OTHERS = st.builds(
    Other, inference_id=st.sampled_from(["i1", "i2"]), answer=_TEXTS | st.none(), same_prompt=st.booleans()
)


@st.composite
def streams(draw: st.DrawFn) -> list[Judged]:
    """Answers of few users to few prompts, with few different texts, so that they meet. Ids are unique."""
    number = 0

    def said() -> Said:
        nonlocal number
        number += 1
        fields: dict[str, Any] = {"id": f"f{number}", "created_at": at(draw(st.integers(0, 5)))}
        fields |= {"metric": draw(st.sampled_from(["m", "n"])), "kind": draw(_KINDS), "value": draw(_VALUES)}
        fields |= {"optimize": draw(st.sampled_from(["max", "min"])), "over": draw(st.none() | _OTHERS)}
        fields |= {"source": draw(st.sampled_from([None, "judge"])), "correction": draw(st.none() | _TEXTS)}
        return Said(**fields)

    return [
        Judged(
            inference_id=f"i{place}",
            created_at=at(draw(st.integers(0, 3))),
            messages=[{"role": draw(st.sampled_from(["user", "user", "owl"])), "content": draw(_TEXTS)}],
            answer=draw(_TEXTS | st.none()),
            complete=draw(st.booleans()),
            alias="support",
            variant=draw(st.sampled_from(["base", "tuned"])),
            adapter=None,
            propensity=draw(st.sampled_from([0.01, 0.5, 1.0])),
            unit=draw(st.sampled_from(["u", "v", "w"])),
            feedback=[said() for _ in range(draw(st.integers(1, 3)))],
        )
        for place in range(draw(st.integers(0, 8)))
    ]


_SETTINGS = st.builds(
    FeedbackSettings,
    user_share=st.sampled_from([0.2, 0.4, 1.0]),
    user_rows=st.integers(1, 4),
    distrust=st.sampled_from([None, 0.5]),
)


@settings(deadline=None)
@given(streams(), _SETTINGS, st.randoms(use_true_random=False))
def test_the_compilers_promises_hold(stream: list[Judged], chosen: FeedbackSettings, random: Any):
    found = feedback.compile(stream, chosen)
    answers = {judged.inference_id: judged for judged in stream}
    ids = {said.id for judged in stream for said in judged.feedback}
    for recipe, method in found.methods.items():
        used = Counter(feedback_id for row in method.rows for feedback_id in row.feedback_ids)
        assert set(used) <= ids and set(used.values()) <= {1}, recipe
        assert all(row.unit == answers[str(row.inference_id)].unit for row in method.rows)
        total = sum(row.weight for row in method.rows)
        assert total == pytest.approx(len(method.rows))
        of_user = Counter[str]()
        for row in method.rows:
            of_user[str(row.unit)] += row.weight
        if method.rows and not method.even:
            assert max(of_user.values()) <= chosen.user_share * total * (1 + 1e-6)
        assert 0 <= method.effective <= len(method.rows) + 1e-9
    shuffled = random.sample(stream, len(stream))
    again = feedback.compile(shuffled, chosen)
    assert again.methods == found.methods and again.counts == found.counts


def test_users_who_are_held_out_once_stay_held_out_in_every_later_round():
    def round_of(users: int, *, recipe: Recipe) -> tuple[set[str | None], set[str | None]]:
        judged = [answered(n, thumb(n, n % 3 > 0), unit=f"u{n % users}") for n in range(3 * users)]
        rows = feedback.compile(judged, FeedbackSettings()).rows(recipe)
        found = data.read(DataSettings(gateway=GatewayExport(alias="support")), rows, recipe=recipe)
        return {row.unit for row in found.train}, {row.unit for row in found.held_out}

    recipes: tuple[Recipe, ...] = ("kto", "sft")
    rounds = [round_of(users, recipe=recipe) for users in (40, 80) for recipe in recipes]
    held_out = set().union(*(held for _, held in rounds))
    assert held_out and all(not trained & held_out for trained, _ in rounds)
    assert rounds[0][1] <= rounds[2][1]
