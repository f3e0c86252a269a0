"""Every figure against the library that is known for it, and what rows are allowed to say.

scikit-learn is imported in the tests and not above them: other processes of the tests only collect this page.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import sacrebleu

from adapters.examples import Example
from trainer.gate.figures import Measure, Outcome, auc, label_set, macro, measures
from trainer.gate.texts import is_refusal, is_repetitive, normal, score, token_f1

ONES = np.ones((1, 5))


def row(completion: str, **more: Any) -> Example:
    return Example.model_validate({"messages": [{"role": "user", "content": "x"}], "completion": completion} | more)


def found(rows: list[Example], **answers: list[str | None]) -> dict[str, Measure]:
    versions = {name: [Outcome(text) for text in texts] for name, texts in answers.items()}
    return {one.name: one for one in measures(rows, versions, labels=label_set([one.completion for one in rows]))}


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        ("Paris", " paris\n", True),
        ("a  b\nc", "a b c", True),
        ('{"b": 1, "a": [2]}', '{"a":[2],"b":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ("Paris.", "Paris", False),  # what the reference does not say is not thrown away
        ("true", "True", True),  # words, and no JSON objects
    ],
)
def test_what_no_reader_minds_makes_no_difference(answer: str, reference: str, equal: bool):
    assert (normal(answer) == normal(reference)) is equal


def test_token_f1_counts_words_as_often_as_both_have_them():
    assert token_f1("the cat sat", "the cat sat") == 1
    assert token_f1("the the cat", "the cat sat") == pytest.approx(2 / 3)
    assert (token_f1("", "x"), token_f1("", "")) == (0, 1)


def test_rouge_knows_other_alphabets():
    assert score("καλημέρα κόσμε", "καλημέρα κόσμε").rouge_l == 1


@pytest.mark.parametrize(
    "said", ["I'm sorry, but I can't help with that.", "As an AI language model, I", "I cannot assist"]
)
def test_a_refusal_is_seen_at_its_beginning(said: str):
    assert is_refusal(said) and is_refusal(said.replace("'", "\u2019"))
    assert not is_refusal("The answer is 4. " * 20 + said)
    assert not is_refusal("Sorry for the delay! Your card is on its way, and I can help with the rest.")


def test_what_repeats_itself_is_seen_and_a_short_answer_is_not():
    assert is_repetitive("I do not know why. " * 8)
    assert not is_repetitive("no no no no no")
    assert not is_repetitive("one two three four five six seven eight nine ten eleven twelve")


def test_bleu_is_sacrebleus_over_the_whole_corpus():
    references = ["the cat sat on the mat today", "a dog barked at the tall postman", "nothing"]
    answers = ["the cat sat on a mat today", "the dog barked at the postman", "something else"]
    one = found([row(text) for text in references], base=answers)["bleu"]
    assert one.value("base") == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score, abs=1e-3)
    twice = np.array([[2.0, 1.0, 0.0]])
    resampled = [answers[0], answers[0], answers[1]], [[references[0], references[0], references[1]]]
    assert one.of["base"](twice)[0] == pytest.approx(sacrebleu.corpus_bleu(*resampled).score, abs=1e-3)


@pytest.mark.parametrize("what", ["f1", "precision", "recall"])
def test_macro_figures_are_scikit_learns(what: str):
    from sklearn import metrics

    oracle = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}[what]
    random = np.random.default_rng(4)
    wanted, said = random.choice(["a", "b", "c"], 40).tolist(), random.choice(["a", "b", "c", "none"], 40).tolist()
    weights = random.integers(0, 3, 40).astype(float)
    for some in (np.ones(40), weights):
        theirs = oracle(wanted, said, labels=["a", "b", "c"], average="macro", zero_division=0, sample_weight=some)
        assert macro(wanted, said, what)(some[None, :])[0] == pytest.approx(theirs)


def test_the_area_under_the_curve_is_scikit_learns_with_ties_and_weights():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(5)
    good, scores = random.random(50) < 0.4, random.integers(0, 8, 50).astype(float)
    weights = random.integers(0, 3, 50).astype(float)
    for some in (np.ones(50), weights):
        theirs = roc_auc_score(good, scores, sample_weight=some)
        assert auc(good, scores)(some[None, :])[0] == pytest.approx(theirs)


def test_a_row_that_one_version_did_not_answer_counts_for_none():
    one = found([row("a"), row("b"), row("c")], base=["a", None, "x"], candidate=["a", "b", "c"])["exact_match"]
    assert one.rows == (0, 2)
    assert (one.value("base"), one.value("candidate")) == (0.5, 1.0)


def test_json_is_asked_of_those_rows_only_whose_reference_is_json():
    one = found([row('{"a": 1}'), row("text")], base=['{"a": 1', "text"])["json_valid"]
    assert (one.rows, one.value("base")) == ((0,), 0.0)


def test_a_few_labels_are_a_label_task_and_free_text_is_none():
    labels = [json.dumps({"intent": name}) for name in ("card", "fee", "pin")] * 6
    measured = found([row(label) for label in labels], base=[*labels[:-1], "pin"])
    assert measured["accuracy"].value("base") == pytest.approx(17 / 18)
    assert "macro_f1" in measured and "roc_auc" not in measured
    assert label_set([f"answer {n}" for n in range(100)]) is None


def test_labels_probabilities_draw_a_roc_curve():
    rows = [row("yes"), row("no")] * 10
    sure = {"yes": {"yes": -0.1, "no": -3.0}, "no": {"yes": -3.0, "no": -0.1}}
    outcomes = [Outcome(one.completion, labels=sure[one.completion]) for one in rows]
    measured = {one.name: one for one in measures(rows, {"base": outcomes}, labels=frozenset({"yes", "no"}))}
    assert measured["roc_auc"].value("base") == 1.0


def test_a_preference_is_right_when_the_better_answer_gained_more_than_the_worse():
    rows = [row("good", kind="preference", rejected="bad")] * 2
    base = [Outcome(None, None, (-1.0,), (-1.0,))] * 2
    tuned = [Outcome(None, None, (-0.5,), (-1.5,)), Outcome(None, None, (-0.6,), (-0.2,))]
    measured = {one.name: one for one in measures(rows, {"base": base, "candidate": tuned})}
    assert measured["preference_accuracy"].value("candidate") == 0.5
    assert measured["preference_accuracy"].each["candidate"].tolist() == [1.0, 0.0]
    assert measured["preference_accuracy"].value("base") == 0.5  # it gained nothing on either


def test_thumbs_are_told_apart_by_what_was_gained_and_a_bad_answer_is_no_reference():
    rows = [row("good", kind="label", label=True), row("bad", kind="label", label=False)]
    base = [Outcome("good", None, (-1.0,)), Outcome("bad", None, (-1.0,))]
    tuned = [Outcome("good", None, (-0.2,)), Outcome("good", None, (-2.0,))]
    measured = {one.name: one for one in measures(rows, {"base": base, "candidate": tuned})}
    assert (measured["thumbs_auc"].value("base"), measured["thumbs_auc"].value("candidate")) == (0.5, 1.0)
    assert measured["exact_match"].rows == measured["loss"].rows == (0,)
    assert measured["length"].rows == (0, 1)
