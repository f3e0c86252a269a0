"""A shadow by way of the control plane's routes, and what they tell of its candidates."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.gateway.api.installation import Installation
from tests.gateway.feedback.stories import Story

PLAIN = {"name": "plain", "weight": 1, "ref": "base"}


async def test_a_shadow_is_set_shown_and_removed(here: Installation):
    await here.tenant("acme")
    await here.call("POST", "/tenants/acme/adapters", {"ref": str(here.control.publish())})
    alias = await here.call("PUT", "/tenants/acme/aliases/support", {"variants": [PLAIN]})
    assert alias["shadow"] is None
    path = "/tenants/acme/aliases/support/shadow"
    put = await here.call("PUT", path, {"ref": "support@1", "share": 0.1})
    assert put["shadow"] == {"ref": "acme/support@1", "share": 0.1} and put["variants"] == alias["variants"]
    assert set(put["timings_ms"]) == {"prepare", "commit", "acknowledge", "total"}
    assert (await here.call("GET", "/tenants/acme/aliases/support"))["shadow"] == put["shadow"]
    empty = {"object": "shadow", "tenant": "acme", "alias": "support", "shadow": put["shadow"], "candidates": []}
    assert await here.call("GET", path) == empty
    await mirrored(here)
    (found,) = (await here.call("GET", path))["candidates"]
    assert (found["ref"], found["requests"], found["error_rate"]) == ("acme/support@1", 2, 0.5)
    assert (found["pairs"], found["p50_ms"], found["original_p50_ms"]) == (1, 30.0, 20.0)
    assert (await here.call("PUT", path, {"ref": "base", "share": 1}))["shadow"] == {"ref": "base", "share": 1}
    for _ in range(2):
        assert (await here.call("DELETE", path))["shadow"] is None
    assert len((await here.call("GET", path))["candidates"]) == 1, "what was learnt stays"
    actions = [row["action"] for row in (await here.call("GET", "/audit?tenant=acme"))["data"]]
    assert actions[:3] == ["alias.shadow", "alias.shadow", "alias.shadow"]


async def mirrored(here: Installation) -> None:
    """A request and its two copies at support@1, of which one failed."""
    story = Story(here.db, here.current, here.rooms.intake, itertools.count(1))
    original = await story.asked("ann", "base", experiment=None, duration_ms=20.0)
    copy = {"experiment": None, "assigned": "acme/support@1", "shadow_of": original, "duration_ms": 30.0}
    await story.asked("ann", "shadow", **copy)
    await story.asked("ann", "shadow", outcome="timeout", **copy)


@pytest.mark.parametrize(
    "body",
    [
        {"ref": "support@1"},
        {"share": 0.1},
        {"ref": "support@1", "share": 0},
        {"ref": "support@1", "share": 1.01},
        {"ref": "support@1", "share": "0.1"},
        {"ref": "no such name!", "share": 0.1},
        {"ref": "support@1", "share": 0.1, "sticky": True},
    ],
)
async def test_what_is_no_shadow_is_refused(here: Installation, body: dict[str, Any]):
    await here.tenant("acme")
    await here.call("PUT", "/tenants/acme/aliases/support", {"variants": [PLAIN]})
    reply = await here.request("PUT", "/admin/v1/tenants/acme/aliases/support/shadow", body)
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"
