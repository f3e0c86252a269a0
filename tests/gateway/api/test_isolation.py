"""A tenant's admin sees its own tenant; for everybody else's the answer is the one for what does not exist."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.identity import new_inference_id
from tests.gateway.api.installation import ADMIN_KEY, Installation
from tests.gateway.api.test_routes import OPEN, compare

VARIANTS = [{"name": "base", "weight": 1, "ref": "base"}]
BODIES: dict[tuple[str, str], Any] = {
    ("patch", "/admin/v1/tenants/{tenant}"): {"store_content": True},
    ("post", "/admin/v1/tenants"): {"name": "mine"},
    ("post", "/admin/v1/tenants/{tenant}/keys"): {"scopes": ["admin"]},
    ("patch", "/admin/v1/tenants/{tenant}/keys/{key_id}"): {"limits": None},
    ("post", "/admin/v1/tenants/{tenant}/metrics"): {"name": "mine", "kind": "boolean"},
    ("post", "/admin/v1/tenants/{tenant}/adapters"): {"ref": "support@1"},
    ("put", "/admin/v1/tenants/{tenant}/aliases/{alias}"): {"variants": VARIANTS},
    ("post", "/admin/v1/tenants/{tenant}/aliases/{alias}/promote"): {"ref": "support@1"},
    ("put", "/admin/v1/tenants/{tenant}/aliases/{alias}/shadow"): {"ref": "support@1", "share": 0.1},
    ("post", "/admin/v1/tenants/{tenant}/experiments"): {"alias": "support", "name": "mine"},
    ("post", "/admin/v1/experiments/{experiment}/advance"): {"why": "enough"},
    ("post", "/admin/v1/experiments/{experiment}/promote"): {"why": "better", "variant": "tuned"},
    ("post", "/admin/v1/experiments/{experiment}/rollback"): {"why": "worse"},
    ("post", "/admin/v1/experiments/{experiment}/weights"): {"why": "more", "weights": {"base": 1, "tuned": 2}},
    ("post", "/admin/v1/experiments/{experiment}/coverage"): {"coverage": 0.5},
    ("post", "/admin/v1/experiments/{experiment}/overrides"): {"targeting_key": "qa-4", "variant": "tuned"},
    ("post", "/admin/v1/power"): {"base": 0.3, "effect": 0.1},
    ("post", "/admin/v1/engine/render"): {"messages": [{"role": "user", "content": "hello"}]},
}


async def routes(here: Installation) -> list[tuple[str, str]]:
    """Every (method, path template) that needs a key."""
    described = (await here.request("GET", "/admin/v1/openapi.json", key=None)).json()["paths"]
    return [(method, path) for path, methods in described.items() if path not in OPEN for method in methods]


def filled(path: str, *, tenant: str, experiment: str = "exp-1", key_id: str = "key-1") -> str:
    return path.format(tenant=tenant, experiment=experiment, key_id=key_id, alias="support", name="support", version=1)


async def test_no_route_answers_without_a_key_or_with_an_unknown_one(here: Installation):
    for method, path in await routes(here):
        for key in (None, "", "tl-made-up", ADMIN_KEY + "x", "ключ"):
            reply = await here.request(method, filled(path, tenant="acme"), BODIES.get((method, path)), key=key)
            assert reply.status_code == 401, (method, path, key)
            assert reply.json()["error"]["code"] == "invalid_api_key"


async def test_no_admin_route_answers_to_a_key_without_the_scope(here: Installation):
    key = await here.tenant("acme", "inference", "feedback")
    for method, path in await routes(here):
        if path != "/v1/feedback":
            reply = await here.request(method, filled(path, tenant="acme"), BODIES.get((method, path)), key=key)
            assert reply.status_code == 403, (method, path, reply.text)
    inference = await here.key("acme", "inference")
    body = {"inference_id": "0" * 44, "metric": "thumbs", "value": True}
    assert (await here.request("POST", "/v1/feedback", body, key=inference)).status_code == 403
    assert (await here.request("POST", "/v1/feedback", body, key=ADMIN_KEY)).status_code == 403


async def test_every_tenant_route_treats_a_foreign_tenant_as_an_unknown_one(here: Installation):
    await here.tenant("acme", store_content=True)
    await compare(here)
    mine = await here.tenant("rival")
    before = await here.call("GET", "/audit?tenant=acme&limit=1000")
    key_id = (await here.call("GET", "/tenants/acme/keys"))["data"][0]["id"]
    seen = 0
    for method, path in await routes(here):
        if "{tenant}" not in path:
            continue
        body = BODIES.get((method, path))
        foreign = await here.request(method, filled(path, tenant="acme", key_id=key_id), body, key=mine)
        unknown = await here.request(method, filled(path, tenant="nobo", key_id=key_id), body, key=mine)
        assert (foreign.status_code, unknown.status_code) == (404, 404), (method, path, foreign.text)
        assert foreign.content.replace(b"acme", b"nobo") == unknown.content, (method, path)
        assert foreign.headers == unknown.headers
        seen += 1
    assert seen >= 15
    assert await here.call("GET", "/audit?tenant=acme&limit=1000") == before, "and nothing has happened"


async def test_a_foreign_experiment_is_an_unknown_one(here: Installation):
    await here.tenant("acme")
    theirs = (await compare(here))["id"]
    mine, unknown = await here.tenant("rival"), "exp-" + "0" * (len(theirs) - 4)
    reads = ["", "/results", "/results?metric=nonsense", "/verdict", "/looks"]
    steps = [path for _, path in await routes(here) if path.startswith("/admin/v1/experiments/{experiment}/")]
    steps = sorted({path.rpartition("}")[2] for path in steps} - set(reads))
    assert len(steps) >= 9
    for method, path in (*(("GET", path) for path in reads), *(("POST", path) for path in steps)):
        body = BODIES.get((method.lower(), f"/admin/v1/experiments/{{experiment}}{path}"))
        replies = [
            await here.request(method, f"/admin/v1/experiments/{one}{path}", body, key=mine)
            for one in (theirs, unknown)
        ]
        assert replies[0].status_code == 404, (path, replies[0].text)
        assert replies[0].content.replace(theirs.encode(), unknown.encode()) == replies[1].content
    assert (await here.call("GET", f"/experiments/{theirs}"))["status"] == "running"


async def test_exports_audits_and_lists_show_ones_own_only(here: Installation):
    await here.tenant("acme", store_content=True)
    mine = await here.tenant("rival", store_content=True)
    assert [row["name"] for row in (await here.call("GET", "/tenants", key=mine))["data"]] == ["rival"]
    assert {row["tenant"] for row in (await here.call("GET", "/audit", key=mine))["data"]} == {"rival"}
    for path in ("export", "audit"):
        foreign = await here.request("GET", f"/admin/v1/{path}?tenant=acme", key=mine)
        unknown = await here.request("GET", f"/admin/v1/{path}?tenant=nobo", key=mine)
        assert foreign.status_code == 404
        assert foreign.content.replace(b"acme", b"nobo") == unknown.content
    view = await here.call("GET", "/engine", key=mine)
    assert view == {"base_model": "demo/tiny", "resident": ["rival/own@1"]}
    reply = await here.request("POST", "/admin/v1/tenants", {"name": "new"}, key=mine)
    assert reply.status_code == 403


@pytest.mark.parametrize("way", ["register", "alias", "promote", "experiment"])
async def test_another_tenants_adapter_cannot_be_named(here: Installation, way: str):
    await here.tenant("acme")
    await compare(here)
    mine = await here.tenant("rival")
    await here.call("PUT", "/tenants/rival/aliases/support", {"variants": VARIANTS}, key=mine)
    answers = []
    for ref in ("acme/support@1", "nobo/support@1", "acme/support@9"):
        arms = [{"name": "a", "weight": 1, "ref": ref}, {"name": "b", "weight": 1, "ref": "base"}]
        method, path, body = {
            "register": ("POST", "adapters", {"ref": ref}),
            "alias": ("PUT", "aliases/support", {"variants": arms}),
            "promote": ("POST", "aliases/support/promote", {"ref": ref}),
            "experiment": ("POST", "experiments", {"alias": "support", "name": "x", "variants": arms}),
        }[way]
        reply = await here.request(method, f"/admin/v1/tenants/rival/{path}", body, key=mine)
        assert reply.status_code == 404, reply.text
        answers.append(reply.text.replace(ref, "REF"))
    assert len(set(answers)) == 1


async def test_feedback_on_a_foreign_inference_equals_feedback_on_an_unknown_one(here: Installation):
    theirs, mine = await here.tenant("acme"), await here.tenant("rival")
    secret = here.current.snapshot.secret
    foreign, own = new_inference_id(secret, "acme"), new_inference_id(secret, "rival")
    bodies = [{"inference_id": one, "metric": "thumbs", "value": True} for one in (foreign, "f" * 44, "nonsense", own)]
    replies = [await here.request("POST", "/v1/feedback", body, key=mine) for body in bodies]
    assert [reply.status_code for reply in replies] == [404, 404, 404, 200]
    assert len({reply.content for reply in replies[:3]}) == 1
    assert (await here.request("POST", "/v1/feedback", bodies[0], key=theirs)).status_code == 200


async def test_an_unknown_key_is_not_called_wrong_while_the_database_is_away(here: Installation):
    here.current.stale = True
    reply = await here.request("GET", "/admin/v1/tenants", key="tl-made-a-moment-ago")
    assert reply.status_code == 503 and "retry-after" in reply.headers
