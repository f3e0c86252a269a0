"""Judged answers as lines: what is written reads back the same, and what is wrong is refused with its line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidExample
from adapters.judgements import Judged, Other, Said, read_judged

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = st.text(max_size=40)


def said(**changed: object) -> Said:
    fields = {"id": "fb-1", "metric": "helpful", "kind": "boolean", "value": True, "created_at": NOW}
    return Said(**{**fields, **changed})  # type: ignore[arg-type]  # the fields are pydantic's to check


def judged(*feedback: Said, **changed: object) -> Judged:
    fields = {
        "inference_id": "0" * 44,
        "created_at": NOW,
        "messages": [{"role": "user", "content": "hello"}],
        "answer": "hi",
        "complete": True,
        "alias": "support",
        "variant": "tuned",
        "adapter": "acme/support@1",
        "propensity": 0.5,
        "unit": "0" * 32,
        "feedback": list(feedback) or [said()],
    }
    return Judged(**{**fields, **changed})  # type: ignore[arg-type]  # as above


@given(TEXT, TEXT, TEXT, st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_any_texts_and_numbers_read_back_the_same_from_one_line(
    asked: str, answered: str, comment: str, number: float, label: bool
) -> None:
    feedback = [
        said(value=label, comment=comment, correction=answered),
        said(kind="float", value=number, optimize="min"),
        said(kind="demonstration", value=answered, about="episode", source=comment),
        said(kind="preference", value="1" * 44, over=Other(inference_id="1" * 44, answer=answered, same_prompt=label)),
    ]
    one = judged(*feedback, messages=[{"role": "user", "content": asked}], answer=answered, episode=comment)
    line = one.to_json()
    assert line.isascii() and line.splitlines() == [line]
    assert list(read_judged([line])) == [one]
    assert list(read_judged([b"", line.encode(), "  "])) == [one]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        (judged().to_json().replace('"alias"', '"other"'), "alias"),
        (judged().to_json().replace('"kind":"boolean"', '"kind":"vote"'), "kind"),
        (judged().to_json().replace("hello", "\\ud800"), "UTF-8"),
        (judged().to_json().encode().replace(b"hello", b"\xff"), "decode"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(line: str | bytes, told: str) -> None:
    with pytest.raises(InvalidExample) as refused:
        list(read_judged([judged().to_json(), line], source="an export"))
    assert str(refused.value).startswith("an export:2: ") and told in str(refused.value)
