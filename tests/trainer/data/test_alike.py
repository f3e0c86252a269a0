"""How alike texts are: datasketch's signatures, 5-grams, templates."""

from __future__ import annotations

import random
from pathlib import Path

from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.alike import PERMUTATIONS, Shingler, Signatures, jaccard, signed

SHINGLER = Shingler()
PERMUTED = MinHash(num_perm=PERMUTATIONS, scheme="affine32").permutations


@given(st.lists(st.text(max_size=80) | st.text("ab c.", max_size=60), min_size=1, max_size=6))
def test_the_signatures_are_those_that_datasketch_makes(texts: list[str]):
    values = signed(*SHINGLER.grams([SHINGLER.words(text) for text in texts]), PERMUTED)
    for text, mine in zip(texts, values, strict=True):
        theirs = MinHash(num_perm=PERMUTATIONS, scheme="affine32", hashfunc=int)
        theirs.update_batch(SHINGLER.own(text))
        assert (theirs.hashvalues == mine).all()


def test_case_and_punctuation_do_not_count_and_scripts_without_spaces_are_compared_by_sign():
    assert SHINGLER.own("Where is my new card?") == SHINGLER.own("where - is my NEW card")
    assert (
        0.3 < jaccard(SHINGLER.own("私の新しいカードはどこですか"), SHINGLER.own("私の新しいカードはどこにある")) < 0.9
    )
    assert SHINGLER.own("über alles in der welt") == SHINGLER.own("Über alles, in der Welt!")


def test_texts_that_are_alike_share_a_band_and_others_do_not(tmp_path: Path):
    chance = random.Random(7)
    signatures = Signatures(tmp_path)
    alike = []
    for _ in range(300):
        words = [f"w{chance.randrange(3000)}" for _ in range(120)]
        signatures.add(" ".join(words))
        words[60] = "another"
        signatures.add(" ".join(words))
        alike.append((len(words) - 9) / (len(words) + 1))
    bands = list(signatures.bands())
    signatures.close()
    shared = [any(band[2 * n] == band[2 * n + 1] for band in bands) for n in range(300)]
    assert min(alike) > 0.9 and sum(shared) > 290
    assert not any(band[2 * n] == band[2 * n + 2] for band in bands for n in range(299))


def test_what_a_tenth_of_the_texts_say_is_a_templates():
    shingler = Shingler()
    texts = [f"please classify the following message of ours: w{n} x{n} y{n}" for n in range(600)]
    shingler.learn(*shingler.grams([shingler.words(text) for text in texts]))
    assert jaccard(shingler.own(texts[0]), shingler.own(texts[1])) == 0
    assert shingler.own("please classify the following message of ours") != set()
