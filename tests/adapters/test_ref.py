"""A ref's text and its parts are the same thing, and nothing else parses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidRef
from adapters.ref import AdapterRef, is_slug

slugs = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True).filter(lambda text: ".." not in text)
refs = st.builds(AdapterRef, slugs, slugs, st.integers(1, 999_999_999))


@given(refs)
def test_parse_is_the_inverse_of_str(ref: AdapterRef) -> None:
    assert AdapterRef.parse(str(ref)) == ref


@given(st.text(max_size=80))
def test_any_text_parses_to_itself_or_is_refused(text: str) -> None:
    try:
        assert str(AdapterRef.parse(text)) == text
    except InvalidRef as error:
        assert "write it as" in str(error) or "use 1 to 64" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        *("", "acme/support", "acme/support@0", "acme/support@01", "acme/support@-1", "acme/support@1\n"),
        *("Acme/support@1", "../x@1", "a/../b@1", "a..b/x@1", "a/b/c@1", "a/b@1@2", "a/b@٣", "acme/ support@1"),
        *("/x@1", "a/b@1000000000"),
    ],
)
def test_what_looks_like_a_ref_but_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(InvalidRef):
        AdapterRef.parse(text)


@given(st.text(max_size=70))
def test_a_slug_is_safe_in_a_path(text: str) -> None:
    if is_slug(text):
        assert text not in {".", ".."} and not set(text) & set("/\\\0\n :@%?#*\"'") and ".." not in text
