"""Limits and weights through the control plane: who may set them, what they may be, what the data plane then sees."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.domain import Limits
from gateway.identity import hash_key
from tests.gateway.api.installation import Installation


async def test_a_tenants_limits_reach_the_snapshot_change_one_by_one_and_go(here: Installation):
    body = {"name": "acme", "limits": {"requests_per_minute": 60, "tokens_per_day": None}, "weight": 3}
    made = await here.call("POST", "/tenants", body)
    assert (made["limits"], made["weight"]) == ({"requests_per_minute": 60}, 3)
    tenant = here.current.snapshot.tenants["acme"]
    assert (tenant.limits, tenant.weight) == (Limits(requests_per_minute=60), 3)

    await here.call("PATCH", "/tenants/acme", {"limits": {"concurrent_requests": 4}})
    limits = here.current.snapshot.tenants["acme"].limits
    assert limits == Limits(requests_per_minute=60, concurrent_requests=4)

    await here.call("PATCH", "/tenants/acme", {"store_content": True, "weight": 0.5})
    assert here.current.snapshot.tenants["acme"].limits == limits, "what is left out stays"
    assert here.current.snapshot.tenants["acme"].weight == 0.5

    await here.call("PATCH", "/tenants/acme", {"limits": {"requests_per_minute": None, "concurrent_requests": None}})
    assert here.current.snapshot.tenants["acme"].limits is None, "without limits nothing is counted"


async def test_a_keys_limits_reach_the_snapshot_and_null_removes_them_all(here: Installation):
    await here.tenant("acme")
    made = await here.call("POST", "/tenants/acme/keys", {"limits": {"tokens_per_minute": 1000}})
    digest = hash_key(made["key"])
    assert made["limits"] == {"tokens_per_minute": 1000}
    assert here.current.snapshot.keys[digest].limits == Limits(tokens_per_minute=1000)
    path = f"/tenants/acme/keys/{made['id']}"
    changed = await here.call("PATCH", path, {"limits": {"tokens_per_month": 5}})
    assert changed["limits"] == {"tokens_per_minute": 1000, "tokens_per_month": 5}
    assert (await here.call("GET", "/tenants/acme/keys"))["data"][-1]["limits"] == changed["limits"]
    assert (await here.call("PATCH", path, {"limits": None}))["limits"] == {}
    assert here.current.snapshot.keys[digest].limits is None


async def test_a_tenant_cannot_grant_itself_more_but_limits_its_own_keys(here: Installation):
    own = await here.tenant("acme")
    await here.tenant("rival")
    for body in ({"limits": {"requests_per_minute": 10**6}}, {"limits": None}, {"weight": 9}):
        refused = await here.request("PATCH", "/admin/v1/tenants/acme", body, key=own)
        assert refused.status_code == 403, refused.text
    made = await here.call("POST", "/tenants/acme/keys", {"limits": {"requests_per_minute": 5}}, key=own)
    theirs = await here.request("PATCH", f"/admin/v1/tenants/rival/keys/{made['id']}", {"limits": None}, key=own)
    assert theirs.status_code == 404
    foreign = await here.request("PATCH", f"/admin/v1/tenants/rival/keys/{made['id']}", {"limits": None})
    assert foreign.status_code == 404
    assert (await here.call("PATCH", f"/tenants/acme/keys/{made['id']}", {"limits": None}, key=own))["limits"] == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"limits": {"tokens_per_minute": -1}}, "limits.tokens_per_minute"),
        ({"limits": {"tokens_per_day": 1.5}}, "limits.tokens_per_day"),
        ({"limits": {"tokens_per_month": "many"}}, "limits.tokens_per_month"),
        ({"limits": {"concurrent_requests": True}}, "limits.concurrent_requests"),
        ({"limits": {"tokens_per_month": 2**63}}, "limits.tokens_per_month"),
        ({"limits": {"requests_per_second": 5}}, "limits.requests_per_second"),
        ({"limits": []}, "limits"),
        ({"weight": 0}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": 1e9}, "weight"),
    ],
)
async def test_a_limit_that_is_none_is_a_400_that_names_it(here: Installation, body: dict[str, Any], param: str):
    await here.tenant("acme")
    for method, path, extra in (("POST", "/tenants", {"name": "new"}), ("PATCH", "/tenants/acme", {})):
        refused = await here.request(method, f"/admin/v1{path}", {**extra, **body})
        assert refused.status_code == 400, refused.text
        assert refused.json()["error"]["param"] == param
