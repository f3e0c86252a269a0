"""The console tells what the feedback supports in the trainer's numbers, which it may not import."""

from __future__ import annotations

from gateway.console import rounds
from gateway.store.heard import Heard
from trainer.settings.rounds import RoundSettings


def test_the_console_and_the_trainer_call_the_same_enough():
    enough = RoundSettings()
    console = (rounds.SFT_ROWS, rounds.DPO_PAIRS, rounds.KTO_LABELS, rounds.KTO_LESSER)
    assert console == (enough.sft_rows, enough.dpo_pairs, enough.kto_labels, enough.kto_lesser)


def test_what_is_missing_is_missing_in_the_trainers_words():
    heard = Heard("support", answers=90, users=30, corrections=12, good=30, bad=60, ratings=0, preferences=5)
    sft, dpo, kto = rounds.supports(heard)
    assert (sft.have, sft.missing) == ("12 corrections, 30 liked answers", "8 more corrections or liked answers")
    assert dpo.missing == "483 more pairs"
    assert kto.missing == "410 more thumbs or ratings, 20 more of them up"
    plenty = Heard("support", answers=900, users=300, corrections=0, good=450, bad=50, ratings=0, preferences=500)
    assert [one.missing for one in rounds.supports(plenty)] == ["", "", ""]
