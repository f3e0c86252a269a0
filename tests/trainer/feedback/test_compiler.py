"""One stream of mixed feedback becomes rows, pairs and labels, by the rules that the compiler states."""

from __future__ import annotations

import pytest

from adapters.judgements import Judged
from tests.trainer.feedback.judged import answered, at, better_than, ideal, said, stars, thumb
from trainer import feedback
from trainer.feedback import heard, pairs, votes
from trainer.settings.rounds import FeedbackSettings


def compiled(*judged: Judged, **changed: object) -> feedback.Compiled:
    return feedback.compile(judged, FeedbackSettings(**{"user_share": 1.0, **changed}))


def labels(*judged: Judged, **changed: object) -> dict[str, bool]:
    return {row.completion: bool(row.label) for row in compiled(*judged, **changed).rows("kto")}


def test_a_correction_is_a_row_and_a_pair_over_the_original():
    found = compiled(answered(1, thumb(1, False, correction="better")))
    (row,), (pair,), (label,) = found.rows("sft"), found.rows("dpo"), found.rows("kto")
    assert (row.kind, row.completion, row.feedback_ids, row.inference_id) == ("demonstration", "better", ["f1"], "i1")
    assert (pair.completion, pair.rejected) == ("better", "answer 1")
    assert (label.completion, label.label) == ("answer 1", False)


def test_a_row_says_where_it_comes_from():
    about = answered(1, thumb(7, True), adapter="acme/support@3", variant="tuned", propensity=0.25)
    (row,) = compiled(about).rows("kto")
    told = (row.inference_id, row.feedback_ids, row.adapter, row.variant, row.propensity, row.unit, row.alias)
    assert told == ("i1", ["f7"], "acme/support@3", "tuned", 0.25, "u1", "support")
    assert row.created_at == at(1007)


def test_a_correction_beats_a_thumb_up():
    found = compiled(answered(1, thumb(1, True), ideal(2, "better")))
    assert [row.completion for row in found.rows("sft")] == ["better"] and not found.rows("kto")
    assert found.counts[votes.OVERRULED] == 1


def test_a_correction_that_repeats_the_answer_makes_no_pair():
    found = compiled(answered(1, ideal(1, "answer 1 ")))
    assert len(found.rows("sft")) == 1 and not found.rows("dpo") and found.counts[pairs.SAME] == 1


def test_the_latest_of_two_corrections_counts():
    found = compiled(answered(1, ideal(2, "second", source="b"), ideal(1, "first", source="a")))
    assert [row.completion for row in found.rows("sft")] == ["second"]


def test_a_liked_answer_is_a_row_for_sft_and_a_disliked_one_is_not():
    found = compiled(answered(1, thumb(1, True)), answered(2, thumb(2, False)))
    assert [row.completion for row in found.rows("sft")] == ["answer 1"]
    assert [row.label for row in found.rows("kto")] == [True, False]


def test_what_is_better_when_smaller_is_turned_round():
    assert labels(answered(1, thumb(1, True, optimize="min"))) == {"answer 1": False}
    cheap, dear = stars(1, 1, optimize="min"), stars(2, 9, optimize="min")
    assert labels(answered(1, cheap), answered(2, dear)) == {"answer 1": True, "answer 2": False}


def test_ratings_are_cut_in_three_and_the_middle_is_counted():
    given = [answered(n, stars(n, n)) for n in range(1, 6)]
    assert labels(*given) == {"answer 1": False, "answer 2": False, "answer 4": True, "answer 5": True}
    assert compiled(*given).counts[votes.MIDDLE] == 1
    assert labels(*given, scales={"stars": (0, 10)}) == {"answer 1": False, "answer 2": False, "answer 3": False}


def test_one_wild_rating_does_not_stretch_the_scale():
    given = [answered(n, stars(n, 1 + n % 5)) for n in range(40)]
    usual = labels(*given)
    assert labels(*given, answered(40, stars(40, 1e9))).items() >= usual.items()


def test_ratings_that_are_all_alike_say_nothing():
    assert not labels(*(answered(n, stars(n, 5)) for n in range(9)))


def test_comments_make_no_row_and_are_counted():
    found = compiled(answered(1, said(1, "comment", "hm", metric="note"), thumb(2, True, comment="because")))
    assert found.counts[heard.COMMENTS] == 2 and len(found.rows("kto")) == 1


@pytest.mark.parametrize("changed", [{"answer": None}, {"complete": False}, {"answer": "  "}])
def test_an_answer_that_is_not_whole_gets_no_label_and_no_pair_but_its_correction_is_a_row(changed: dict[str, object]):
    found = compiled(answered(1, thumb(1, False), ideal(2, "better"), **changed))
    assert [len(found.rows(recipe)) for recipe in ("sft", "dpo", "kto")] == [1, 0, 0]
    assert found.counts[votes.NOT_WHOLE] == 1 and found.counts[pairs.CUT] == 1


def test_two_sources_that_disagree_make_no_label():
    found = compiled(answered(1, thumb(1, True, source="user"), thumb(2, False, source="judge")))
    assert not found.rows("kto") and found.counts[votes.TIED] == 2


def test_a_voter_whose_metrics_disagree_makes_no_label():
    found = compiled(answered(1, thumb(1, True), thumb(2, False, metric="polite")))
    assert not found.rows("kto") and found.counts[votes.TORN] == 2


def test_the_latest_word_on_a_metric_counts():
    found = compiled(answered(1, thumb(2, False), thumb(1, True)))
    assert [row.label for row in found.rows("kto")] == [False] and found.counts[heard.SUPERSEDED] == 1


def test_the_majority_holds_on_one_answer_to_prompts_alike_but_for_case_and_spaces():
    asked = ["Hours?", "hours?  ", "HOURS?"]
    given = [answered(n, thumb(n, n > 0), answer="at nine", asks=asks) for n, asks in enumerate(asked)]
    found = compiled(*given)
    assert [row.inference_id for row in found.rows("kto")] == ["i1", "i2"] and found.counts[votes.OUTVOTED] == 1


def test_a_user_whom_most_others_contradict_is_left_out_everywhere():
    def told(n: int, unit: str, up: bool) -> Judged:
        return answered(n, thumb(n, up), answer="the same", asks=f"question {n // 10}", unit=unit)

    given = [told(10 * q + n, f"u{n}", True) for q in range(5) for n in range(3)]
    given += [told(10 * q + 9, "flipper", False) for q in range(5)]
    alone = answered(99, thumb(99, False), unit="flipper")
    found = compiled(*given, alone)
    assert all(row.label for row in found.rows("kto")) and len(found.rows("kto")) == 15
    assert (found.counts[votes.USERS_DISTRUSTED], found.counts[votes.DISTRUSTED]) == (1, 6)
    trusting = compiled(*given, alone, distrust=None)
    assert [row.unit for row in trusting.rows("kto") if not row.label] == ["flipper"]


def test_three_users_who_flip_a_twentieth_of_all_thumbs_teach_nothing_where_others_judged_the_same():
    def told(n: int, unit: str, up: bool) -> Judged:
        return answered(n, thumb(n, up), answer="an answer", asks=f"question {n % 90}", unit=unit)

    honest = [told(n, f"u{n % 57}", n % 90 < 60) for n in range(570)]
    poison = [told(n, f"flipper-{n % 3}", n % 90 >= 60) for n in range(570, 600)]
    found = compiled(*honest, *poison, user_share=0.05)
    assert not any(row.unit and row.unit.startswith("flipper") for row in found.rows("kto"))
    assert len(found.rows("kto")) == 570 and found.counts[votes.USERS_DISTRUSTED] == 3
    alone = compiled(*honest, *[answered(n, thumb(n, False), unit="flipper") for n in range(600, 630)], user_share=0.05)
    weight = sum(row.weight for row in alone.rows("kto") if row.unit == "flipper")
    assert weight == pytest.approx(0.05 * len(alone.rows("kto")))  # nobody else judged those: the cap is all there is


def test_only_the_latest_of_a_users_flood_counts_for_each_metric():
    given = [answered(n, thumb(n, True), unit="loud") for n in range(20)] + [answered(30, stars(30, 5), unit="loud")]
    found = compiled(*given, user_rows=5, scales={"stars": (1, 5)})
    assert [row.inference_id for row in found.rows("kto")] == ["i15", "i16", "i17", "i18", "i19", "i30"]
    assert found.counts[heard.FLOOD] == 15


def test_a_preference_is_a_pair():
    (pair,) = compiled(answered(1, better_than(1, "worse"))).rows("dpo")
    assert (pair.completion, pair.rejected, pair.feedback_ids) == ("answer 1", "worse", ["f1"])
    (turned,) = compiled(answered(1, better_than(1, "worse", optimize="min"))).rows("dpo")
    assert (turned.completion, turned.rejected) == ("worse", "answer 1")


@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        (answered(1, better_than(1, "worse", same_prompt=False)), pairs.OTHER_PROMPT),
        (answered(1, better_than(1, None)), pairs.PARTIAL),
        (answered(1, better_than(1, "worse"), complete=False), pairs.PARTIAL),
        (answered(1, better_than(1, "answer 1 ")), pairs.EQUAL),
    ],
)
def test_a_preference_needs_two_whole_and_different_answers_to_one_prompt(judged: Judged, reason: str):
    found = compiled(judged)
    assert not found.rows("dpo") and found.counts[reason] == 1


def test_preferences_that_disagree_evenly_make_no_pair_and_a_majority_does():
    def prefers(n: int, better: str, worse: str) -> Judged:
        return answered(n, better_than(n, worse), answer=better, asks="which?")

    even = compiled(prefers(1, "a", "b"), prefers(2, "b", "a"))
    assert not even.rows("dpo") and even.counts[pairs.TIED] == 2
    found = compiled(prefers(1, "a", "b"), prefers(2, "b", "a"), prefers(3, "a", "b"))
    assert [row.inference_id for row in found.rows("dpo")] == ["i1", "i3"] and found.counts[pairs.OUTVOTED] == 1


def test_one_users_thumbs_on_two_answers_to_one_prompt_make_a_mined_pair():
    tries = [answered(1, thumb(1, False), asks="q", unit="u"), answered(2, thumb(2, True), asks="q", unit="u")]
    found = compiled(*tries)
    (pair,) = found.rows("dpo")
    assert (pair.completion, pair.rejected, pair.feedback_ids) == ("answer 2", "answer 1", ["f1", "f2"])
    assert found.counts[pairs.MINED] == 1
    apart = [answered(1, thumb(1, False), asks="q"), answered(2, thumb(2, True), asks="q")]
    assert not compiled(*apart).rows("dpo")


def test_a_conversations_feedback_counts_for_its_last_answer_once():
    spoken = thumb(5, True, about="episode")
    found = compiled(answered(1, spoken, episode="e"), answered(2, spoken, episode="e"))
    assert [row.inference_id for row in found.rows("kto")] == ["i2"]


def test_what_no_trainer_takes_is_counted_and_stops_nothing():
    odd = answered(1, thumb(1, True), messages=[{"role": "owl", "content": "hoo"}])
    half = answered(2, thumb(2, True), answer="half a \ud83d character")
    found = compiled(odd, half, answered(3, thumb(3, True), said(4, "boolean", "yes", metric="odd")))
    assert [row.inference_id for row in found.rows("kto")] == ["i3"]
    assert (found.counts[heard.UNUSABLE], found.counts[heard.ODD]) == (2, 1)


def test_the_balance_of_labels_names_trls_window():
    found = compiled(*(answered(n, thumb(n, n > 3)) for n in range(20)))
    assert "undesirable_weight belongs between 3.01 and 4.00" in str(found.balance)
    assert "KTO needs both" in str(compiled(answered(1, thumb(1, True))).balance)
    assert str(compiled(*(answered(n, thumb(n, n % 2 == 0)) for n in range(4))).balance).endswith("balanced")
