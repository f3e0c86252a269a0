"""What the limits let through, what they answer, and what a change of them does. The clock is the test's."""

from __future__ import annotations

import json

import pytest

from gateway.domain import ApiKey, Tenant
from gateway.errors import QuotaExceeded, RequestsLimited, TokensLimited
from gateway.serving.allowance import span
from gateway.serving.ledger import Ledger
from gateway.serving.limits import estimate
from tests.gateway.serving.limited import Gate, headers, key, tenant


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_without_limits_nothing_is_counted(gate: Gate):
    assert gate.limiter.reserve(Tenant("acme"), ApiKey("k", "acme", frozenset()), 10**9) is None


def test_a_minutes_requests_come_in_at_once_and_then_at_the_rate(gate: Gate):
    who = tenant(requests_per_minute=60)
    assert gate.admitted(who) == 60
    gate.clock.move(0.999)
    assert gate.admitted(who) == 0
    gate.clock.move(0.001)
    assert gate.admitted(who) == 1
    gate.clock.move(30)
    assert gate.admitted(who) == 30
    gate.clock.move(10_000)
    assert gate.admitted(who) == 60, "never more than a minute's worth"


def test_tokens_are_held_while_a_request_runs_and_count_as_they_were(gate: Gate):
    who = tenant(tokens_per_minute=600)
    running = gate.ask(who, tokens=500)
    gate.clock.move(60)
    assert gate.admitted(who, tokens=101) == 0, "what may still be used does not refill"
    running.settle(40)
    assert headers(gate.ask(who, tokens=100))["x-ratelimit-remaining-tokens"] == str(600 - 40 - 100)
    gate.clock.move(4)
    assert gate.admitted(who, tokens=500) == 1, "40 tokens have refilled after 4 s"


def test_more_tokens_than_were_reserved_are_paid_by_the_next_requests(gate: Gate):
    who = tenant(tokens_per_minute=600)
    gate.ask(who, tokens=10).settle(900)
    refused = gate.refused(who, tokens=1)
    assert headers(refused)["x-ratelimit-remaining-tokens"] == "0"
    gate.clock.move(30.1)
    assert gate.admitted(who, tokens=1) == 1


def test_a_request_that_came_to_nothing_does_not_count_at_all(gate: Gate):
    who = tenant(requests_per_minute=1, tokens_per_minute=100, concurrent_requests=1, tokens_per_day=100)
    for _ in range(100):
        gate.ask(who, tokens=100).settle(None)
    reservation = gate.ask(who, tokens=100)
    for tokens in (60, None, 100):
        reservation.settle(tokens)
    assert isinstance(gate.refused(who), RequestsLimited), "the first end is the one that counts"
    gate.clock.move(60)
    gate.ask(who, tokens=40)


def test_at_one_time_no_more_than_allowed_and_each_end_makes_room(gate: Gate):
    who = tenant(concurrent_requests=3)
    first = gate.ask(who)
    assert gate.admitted(who) == 2
    first.settle(5)
    first.settle(5)
    assert gate.admitted(who) == 1


def test_a_request_takes_from_tenant_and_key_or_from_neither(gate: Gate):
    who = tenant(requests_per_minute=10, tokens_per_minute=100)
    tight, wide = key("tight", requests_per_minute=2), key("wide", tokens_per_minute=1000)
    assert gate.admitted(who, tight) == 2
    for _ in range(50):
        gate.refused(who, tight)
    assert gate.admitted(who, wide) == 8, "the refused took nothing of the tenant's"
    gate.clock.move(60)
    gate.refused(who, wide, tokens=101)
    assert gate.admitted(who, wide, tokens=9) == 10, "nor of the key's"


def test_keys_are_limited_without_their_tenant_too(gate: Gate):
    assert gate.admitted(Tenant("acme"), key("one", requests_per_minute=4)) == 4
    assert gate.admitted(Tenant("acme"), key("other", requests_per_minute=5)) == 5
    assert gate.admitted(tenant("key:one", requests_per_minute=6)) == 6, "a tenant's name is no key's"


def test_headers_are_openais_and_of_whoever_has_less_left(gate: Gate):
    who = tenant(requests_per_minute=600, tokens_per_minute=6000)
    assert headers(gate.ask(who, tokens=500)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5500",
        "x-ratelimit-reset-tokens": "5s",
    }
    both = headers(gate.ask(who, key(requests_per_minute=2, tokens_per_minute=9000), tokens=1))
    assert (both["x-ratelimit-limit-requests"], both["x-ratelimit-limit-tokens"]) == ("2", "6000")
    assert headers(gate.ask(tenant("globex", concurrent_requests=1))) == {}
    assert list(headers(gate.ask(tenant("initech", tokens_per_minute=9)))) == [
        f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"0ms"),
        (0.12, b"120ms"),
        (0.0001, b"1ms"),
        (8.64, b"8.64s"),
        (59.9996, b"60s"),
        (60, b"1m0s"),
        (359.2, b"6m0s"),
    ],
)
def test_a_time_is_written_as_openai_writes_it(seconds: float, text: bytes):
    assert span(seconds) == text


def test_a_refusal_says_when_and_whether_to_come_again(gate: Gate):
    who = tenant(requests_per_minute=6)
    gate.admitted(who)
    gate.clock.move(2.5)
    error = gate.refused(who)
    told = headers(error)
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert (told["retry-after"], told["retry-after-ms"]) == ("8", "7500")
    assert told["x-ratelimit-remaining-requests"] == "0" and "x-should-retry" not in told
    assert json.loads(error.body())["error"]["message"] == (
        "Rate limit reached for your organization on requests per min (RPM): Limit 6, Used 6, Requested 1."
        " Please try again in 7.5s."
    )


def test_who_comes_again_when_told_to_is_let_in(gate: Gate):
    who, by = tenant(requests_per_minute=7, tokens_per_minute=977), key(requests_per_minute=5)
    for _ in range(200):
        try:
            gate.ask(who, by, tokens=301).settle(301)
        except (RequestsLimited, TokensLimited) as error:
            gate.clock.move(int(headers(error)["retry-after-ms"]) / 1000)
            gate.ask(who, by, tokens=301).settle(301)


def test_of_two_reasons_the_one_that_lasts_is_told(gate: Gate):
    who = tenant(requests_per_minute=60, tokens_per_minute=60, concurrent_requests=1)
    gate.ask(who, tokens=60)
    error = gate.refused(who, tokens=60)
    assert isinstance(error, TokensLimited) and error.retry_after == 60


def test_a_request_larger_than_the_limit_is_not_to_be_tried_again(gate: Gate):
    error = gate.refused(tenant(tokens_per_minute=100), tokens=101)
    assert "too large" in error.message and headers(error)["x-should-retry"] == "false"
    assert int(headers(error)["retry-after"]) <= 60


def test_a_used_up_budget_is_insufficient_quota_until_the_day_ends(gate: Gate):
    who = tenant(tokens_per_day=1000)
    gate.ask(who, tokens=400).settle(900)
    assert gate.admitted(who, tokens=100) == 1
    error = gate.refused(who, tokens=1)
    assert not isinstance(error, QuotaExceeded), "what is reserved may yet come back"
    error = gate.refused(who, tokens=101)
    assert isinstance(error, QuotaExceeded) and (error.type, error.code) == ("insufficient_quota", "insufficient_quota")
    assert headers(error)["x-should-retry"] == "false" and headers(error)["retry-after"] == "60"
    gate.clock.move(12 * 3600)
    assert gate.admitted(who, tokens=100) == 9, "a new day, less the hundred that are still reserved"


def test_a_month_is_the_calendars(gate: Gate):
    who = tenant(tokens_per_month=100)
    gate.ask(who).settle(100)
    gate.clock.move(24 * 3600)
    assert isinstance(gate.refused(who), QuotaExceeded), "31 March"
    gate.clock.move(12 * 3600)
    gate.ask(who, tokens=100)


def test_a_clock_that_jumps_changes_budgets_at_most(gate: Gate):
    who = tenant(requests_per_minute=10, tokens_per_day=100)
    assert gate.admitted(who, tokens=1) == 10
    gate.clock.wall += 365 * 86400
    assert isinstance(gate.refused(who), RequestsLimited)
    gate.clock.wall -= 365 * 86400
    assert isinstance(gate.refused(who), RequestsLimited)


def test_just_after_midnight_a_slower_clock_does_not_open_yesterday_again():
    ledger = Ledger.create()
    early, late = Gate(ledger), Gate(ledger)
    who = tenant(tokens_per_day=100)
    early.clock.wall = late.clock.wall + 86400 / 2 + 0.001
    late.clock.wall += 86400 / 2 - 0.001
    early.ask(who, tokens=1).settle(60)
    late.ask(who, tokens=1).settle(30)
    assert early.admitted(who, tokens=10) == late.admitted(who, tokens=10) + 1 == 1


@pytest.mark.parametrize(("before", "after", "more"), [(10, 15, 5), (10, 4, 0), (4, 10, 6)])
def test_a_changed_limit_holds_at_once_for_what_was_counted_before(gate: Gate, before: int, after: int, more: int):
    assert gate.admitted(tenant(requests_per_minute=before)) == before
    assert gate.admitted(tenant(requests_per_minute=after)) == more


def test_a_limit_made_much_smaller_refills_at_its_own_rate(gate: Gate):
    assert gate.admitted(tenant(requests_per_minute=6000), tokens=1) == 6000
    gate.refused(small := tenant(requests_per_minute=60))
    gate.clock.move(1)
    assert gate.admitted(small) == 1


def test_a_limit_made_larger_does_not_rewrite_the_past(gate: Gate):
    gate.admitted(tenant(requests_per_minute=60))
    gate.clock.move(6)
    assert gate.admitted(tenant(requests_per_minute=600)) == 600 - 54


def test_limits_that_come_and_go_find_what_is_under_way(gate: Gate):
    running = gate.ask(tenant(requests_per_minute=100), tokens=50)
    assert gate.admitted(tenant(concurrent_requests=3), tokens=1) == 2
    assert gate.refused(tenant(tokens_per_minute=60), tokens=9).type == "tokens"
    assert gate.limiter.reserve(Tenant("acme"), key(), 1) is None
    running.settle(10)
    assert gate.admitted(tenant(concurrent_requests=3), tokens=1) == 1
    assert gate.admitted(tenant(tokens_per_minute=60), tokens=47) == 1, "10 used, 3 held"


def test_the_estimate_is_a_token_for_four_bytes_and_the_answers_bound():
    assert estimate(0, 0) == 0
    assert estimate(9, 100) == 103
    assert estimate(400, None) == 356


def test_accounts_that_are_gone_are_forgotten_and_still_settle(gate: Gate):
    who = tenant(concurrent_requests=2, tokens_per_day=100)
    running = gate.ask(who)
    gate.limiter.keep((), ())
    gate.limiter.active.clear()
    running.settle(7)
    assert [account.unwritten for account in gate.limiter.active] == [{int(gate.clock.wall // 86400): 7}]
    assert gate.admitted(who) == 2
