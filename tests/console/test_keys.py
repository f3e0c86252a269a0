"""Keys, limits, tenants and the audit log, as HTTP: who may see and do what, and that the log has it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.console.audit import told
from gateway.domain import Limits
from gateway.identity import hash_key
from gateway.store import usage
from gateway.store.audit import Entry
from gateway.store.changes import change
from gateway.store.database import Database
from tests.console.visits import Visits, visits

XSS = "<script>alert(1)</script>\"'>{{7*7}}"


@pytest.fixture
async def here(db: Database, tmp_path: Path) -> AsyncIterator[Visits]:
    async with visits(db, tmp_path) as one:
        yield one


@pytest.mark.long
async def test_a_key_is_shown_once_limited_and_revoked(here: Visits) -> None:
    form = {"scope-inference": "yes", "scope-evaluate": "yes", "days": "1.5", "requests_per_minute": "60"}
    made = await here.acme.send("keys", **form)
    found = re.search(r'id="new-key">(tl-[^<]+)<', made.text)
    assert made.status_code == 200 and found is not None and made.headers["cache-control"] == "no-store"
    await here.here.settle()
    key = here.here.current.snapshot.keys[hash_key(found[1])]
    assert (sorted(key.scopes), key.limits) == (["evaluate", "inference"], Limits(requests_per_minute=60))
    assert key.expires_at is not None and 35 < (key.expires_at - datetime.now(UTC)).total_seconds() / 3600 < 37
    page = await here.acme.page("keys")
    assert found[1] not in page and found[1][:11] in page and "60 requests per minute" in page
    limited = await here.acme.send(f"keys/{key.id}/limits", requests_per_minute="", tokens_per_day="1000")
    assert limited.headers["location"] == here.acme.at("keys")
    await usage.settle(here.here.db, {(f"key:{key.id}", datetime.now(UTC).date()): 250}, [], datetime.now(UTC).date())
    page = await here.acme.page("keys")
    assert "1,000 tokens per day" in page and "250 tokens today" in page
    for path in (f"keys/{key.id}/revoke", f"keys/{key.id}/limits"):
        assert (await here.rival.send(path)).status_code == 404
        assert (await here.acme.send(path, token="")).status_code == 403
    await here.acme.send(f"keys/{key.id}/revoke")
    await here.here.settle()
    assert hash_key(found[1]) not in here.here.current.snapshot.keys
    assert "1 key that ended" in await here.acme.page("keys")
    log = await here.acme.page("audit", subject=key.id)
    assert list(re.findall(r"<code>(key\.\w+)</code>", log)) == ["key.revoke", "key.limit", "key.create"]
    assert found[1] not in log
    for wrong in (
        {"scope-ghost": "yes"},
        {**form, "days": "-1"},
        {**form, "tokens_per_day": "many"},
        {**form, "days": "x"},
    ):
        assert (await here.acme.send("keys", **wrong)).status_code == 400, wrong


async def test_limits_are_the_operators_and_settings_the_tenants_too(here: Visits) -> None:
    refused = await here.acme.send("limits", weight="5", tokens_per_day="1000000")
    assert refused.status_code == 403 and "The operator sets these" in await here.acme.page("keys")
    for wrong in (
        {"weight": "0"},
        {"weight": ""},
        {"weight": "1", "tokens_per_day": "-5"},
        {"weight": "1", "concurrent_requests": "0"},
    ):
        assert (await here.operator.send("limits", **wrong)).status_code == 400, wrong
    await here.operator.send("limits", weight="2.5", tokens_per_day="1000000", concurrent_requests="8")
    await here.acme.send("settings", allow_pinning="yes")
    await here.here.settle()
    tenant = here.here.current.snapshot.tenants["acme"]
    assert (tenant.weight, tenant.limits) == (2.5, Limits(tokens_per_day=1_000_000, concurrent_requests=8))
    assert (tenant.store_content, tenant.allow_pinning) == (False, True)
    today = datetime.now(UTC).date()
    await usage.settle(here.here.db, {("tenant:acme", today): 250_000}, [], today)
    page = await here.acme.page("keys")
    assert "250,000 (25 %)" in page and "weight 2.5" in page
    await here.operator.send("limits", weight="1")
    await here.here.settle()
    assert here.here.current.snapshot.tenants["acme"].limits is None


@pytest.mark.long
async def test_tenants_are_the_operators_to_see_and_make(here: Visits) -> None:
    for path in ("/console/tenants", "/console/log"):
        assert (await here.acme.get(path)).status_code == 403
    assert (await here.acme.send("/console/tenants", name="sneaky")).status_code == 403
    made = await here.operator.send("/console/tenants", name="third", store_content="yes", weight="3")
    assert made.headers["location"] == "/console/tenants", made.text
    await here.here.settle()
    tenant = here.here.current.snapshot.tenants["third"]
    assert (tenant.store_content, tenant.allow_pinning, tenant.weight) == (True, False, 3.0)
    page = await here.operator.page("/console/tenants")
    assert all(f'/console/t/{name}/keys"' in page for name in ("acme", "rival", "third"))
    for wrong in ({"name": "No Name"}, {"name": "acme"}, {"name": ""}, {"name": "ok", "weight": "x"}):
        assert (await here.operator.send("/console/tenants", **wrong)).status_code in (400, 409), wrong


@pytest.mark.long
async def test_the_log_is_filtered_page_by_page_and_each_tenants_own(here: Visits) -> None:
    for n in range(120):
        async with change(here.here.db, "alias.set", f"alias-{n}", tenant="acme", actor=XSS) as new:
            new.detail.update(why=XSS, variants=[{"name": XSS, "weight": 1, "ref": None}])
    first = await here.acme.page("audit", action="alias")
    assert "<script>alert" not in first and "&lt;script&gt;" in first
    assert len(re.findall(r"<code>alias\.set</code>", first)) == 100
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    second = await here.acme.page(here.acme.at("audit") + older[1].replace("&amp;", "&"))
    assert len(re.findall(r"<code>alias\.set</code>", second)) == 20 and "alias-0<" in second
    assert "alias-1<" not in await here.rival.page("audit")
    everybody = await here.operator.page("/console/log", action="tenant.create")
    assert ">rival</a>" in everybody and ">acme</a>" in everybody and "alias-119<" not in everybody
    assert "alias-119<" in await here.operator.page("/console/log")
    assert "Nothing fits" in await here.acme.page("audit", actor="nobody")
    assert (await here.acme.get("audit", actor="\0")).status_code == 400


def test_a_step_of_the_rule_is_read_with_its_sentence_and_figures() -> None:
    figure = {
        "metric": "thumbs",
        "variant": "tuned",
        "difference": 0.1,
        "low": 0.02,
        "high": 0.2,
        "role": "primary",
        "status": "better",
    }
    verdict = {"word": "ship", "sentence": "Ship 'tuned'.", "units": {"base": 35}, "moved": 0, "blocks": []}
    detail = {"why": "Ship 'tuned'.", "alias": "support", "revision": 3, "figures": {**verdict, "figures": [figure]}}
    row = told(Entry(1, datetime.now(UTC), "rule", "acme", "experiment.promote", "exp-1", detail))
    assert (row.by_rule, row.why, row.figures) == (True, "Ship 'tuned'.", [figure])
    assert row.facts == [
        ("alias", "support"),
        ("revision", "3"),
        ("word", "ship"),
        ("units base", "35"),
        ("moved", "0"),
    ]
    sent = {"figures": [{"difference": "a lot"}], "digest": 7, "size": 10**400}
    strange = told(Entry(1, datetime.now(UTC), "key:k", "acme", "experiment.advance", "exp-1", {"figures": sent}))
    assert strange.figures == [] and strange.facts[:2] == [
        ("figures", '[{"difference": "a lot"}]'),
        ("digest", "7"),
    ]
    odd = told(
        Entry(
            1,
            datetime.now(UTC),
            "operator",
            None,
            "x.y",
            "z",
            {"figures": "none", "why": None, "on": True, "at": [{"a": 1}]},
        )
    )
    assert odd.facts == [("figures", "none"), ("on", "yes"), ("at", '[{"a": 1}]')] and not odd.by_rule


async def test_figures_that_somebody_made_up_are_on_the_log_as_they_came(here: Visits) -> None:
    usual = {"metric": "thumbs", "variant": "tuned", "role": "primary", "status": "better", "low": None, "high": None}
    rows = (
        {"figures": {"figures": [{**usual, "difference": 0.25}]}},  # as it was before units were told
        {"figures": {"figures": [{**usual, "difference": 0.25, "share": True, "unit": ""}]}},
        {"figures": {"figures": [{**usual, "unit": 7}], "why": ["not"]}},
    )
    async with here.here.db.transaction() as connection:
        for detail in rows:
            await connection.execute(
                "INSERT INTO audit (actor, tenant, action, subject, detail) VALUES ('key:k', 'acme', 'x.y', 'z', $1)",
                json.dumps(detail),
            )
    page = await here.acme.page("audit", action="x.y")
    assert "+0.250<" in page and "+25.0 pp<" in page and "&#34;unit&#34;: 7" in page
