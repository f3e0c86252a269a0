"""Identity: what is told apart without a database."""

from hypothesis import given
from hypothesis import strategies as st

from gateway import identity

SECRET = b"s" * 32
tenants = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)


@given(tenants)
def test_an_id_belongs_to_the_tenant_it_was_given_to_and_to_no_other(tenant: str) -> None:
    given_id = identity.new_inference_id(SECRET, tenant)
    assert len(given_id) == 44
    assert given_id[12] == "7" and given_id[16] in "89ab"
    assert identity.is_inference_of(SECRET, tenant, given_id)
    assert not identity.is_inference_of(SECRET, tenant + "x", given_id)
    assert not identity.is_inference_of(b"other", tenant, given_id)


@given(st.text(max_size=60))
def test_a_made_up_id_is_refused(text: str) -> None:
    assert not identity.is_inference_of(SECRET, "acme", text)


def test_ids_are_told_by_any_of_their_spellings() -> None:
    bare = identity.new_inference_id(SECRET, "acme")
    for text in (bare, *(prefix + bare for prefix in ("chatcmpl-", "cmpl-", "resp_", "msg_", "embd-"))):
        assert identity.canonical_inference_id(text) == bare
    for text in ("", bare + "0", bare.upper(), f"chat-{bare}", "chatcmpl-", f"resp_msg_{bare}", f"{bare}\n"):
        assert identity.canonical_inference_id(text) is None


def test_ids_grow_with_time_and_never_repeat() -> None:
    made = [identity.new_inference_id(SECRET, "acme") for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert [one[:12] for one in made] == sorted(one[:12] for one in made)


def test_units_are_one_per_user_and_tenant_and_survive_any_text() -> None:
    assert identity.unit_of(SECRET, "acme", "u1") == identity.unit_of(SECRET, "acme", "u1")
    assert identity.unit_of(SECRET, "acme", "u1") != identity.unit_of(SECRET, "zeta", "u1")
    assert len(identity.unit_of(SECRET, "acme", "\ud800 lone")) == 32


def test_a_salt_is_the_tenants_own_and_fit_for_the_engine() -> None:
    one, other = identity.cache_salt(SECRET, "acme"), identity.cache_salt(SECRET, "zeta")
    assert one != other
    assert len(one) <= 128 and one.isalnum()


def test_a_new_key_opens_by_its_digest_and_shows_only_its_prefix() -> None:
    key, prefix, digest = identity.new_api_key()
    assert key.startswith(prefix + "-") and len(prefix) == 11
    assert identity.hash_key(key) == digest and len(digest) == 32
    assert len(key) >= len(prefix) + 1 + 43
