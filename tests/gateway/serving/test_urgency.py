"""What clients may say about their requests' urgency, and what they may not."""

from __future__ import annotations

import pytest

from gateway.domain import Tenant
from gateway.errors import InvalidRequest
from gateway.serving.urgency import Priority, deadline_of, priority_of


@pytest.mark.parametrize(
    ("tier", "weight", "priority"),
    [
        (None, 1, Priority.NORMAL),
        ("auto", 5, Priority.NORMAL),
        ("default", 1, Priority.NORMAL),
        ("flex", 5, Priority.LOW),
        ("priority", 1, Priority.NORMAL),
        ("priority", 1.5, Priority.HIGH),
        ("something new", 5, Priority.NORMAL),
    ],
)
def test_the_service_tier_is_the_class_and_going_first_is_for_tenants_that_count_for_more(
    tier: str | None, weight: float, priority: Priority
) -> None:
    assert priority_of(tier, Tenant("acme", weight=weight)) is priority


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1", 0.001), (b"250", 0.25), (b"86400000", 86400.0), (b"0007", 0.007)]
)
def test_a_deadline_is_a_number_of_milliseconds(value: bytes, seconds: float) -> None:
    assert deadline_of({b"x-request-timeout-ms": value}) == seconds
    assert deadline_of({}) is None


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-5", b"+5", b"1_000", b"1.5", b" 5", b"1e3", b"86400001", b"9" * 5000, b"\xb2", b"soon"]
)
def test_any_other_deadline_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        deadline_of({b"x-request-timeout-ms": value})
    assert (refused.value.status, refused.value.param) == (400, "x-request-timeout-ms")
