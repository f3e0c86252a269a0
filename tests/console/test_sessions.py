"""Who may look, and what a browser can be made to send: sessions, forms, headers, tenants. No browser is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, Route

from gateway.console import session
from gateway.console.guard import POLICY
from gateway.console.here import COOKIE
from gateway.errors import GatewayError
from gateway.store.database import Database
from tests.console.visits import HOST, Visits, visits
from tests.gateway.api.installation import ADMIN_KEY
from tests.gateway.api.test_routes import compare

OPEN = ("/static/{mark}/{name}", "/sign-in")
VALUES = {"experiment": "exp-0", "name": "support", "version": "1", "step": "stop", "key": "key-0", "key_id": "key-0"}


@pytest.fixture
async def here(db: Database, tmp_path: Path) -> AsyncIterator[Visits]:
    async with visits(db, tmp_path) as one:
        yield one


def routes(here: Visits) -> list[tuple[str, str]]:
    """(method, path template) of every page that needs a session."""
    mounted = next(route for route in here.here.app.routes if isinstance(route, Mount))
    found = [route for route in mounted.routes if isinstance(route, Route) and route.path not in OPEN]
    return [(method, route.path) for route in found for method in sorted(route.methods or ()) if method != "HEAD"]


def filled(path: str, tenant: str) -> str:
    known = {part.strip("{}"): "0" * 44 for part in path.split("/") if part.startswith("{")}
    return "/console" + path.format(**{**known, **{k: v for k, v in VALUES.items() if k in known}, "tenant": tenant})


async def stranger(here: Visits, method: str, path: str, **more: object) -> httpx.Response:
    """A request of a browser that shows no cookie."""
    transport = httpx.ASGITransport(app=here.here.app)
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as http:
        return await http.request(method, path, headers={"origin": HOST}, **more)  # type: ignore[arg-type]  # any of httpx's


async def test_no_page_shows_itself_without_a_session(here: Visits) -> None:
    found = routes(here)
    assert len(found) > 10
    for method, path in found:
        reply = await stranger(here, method, filled(path, "acme"))
        where, _, rest = reply.headers.get("location", "").partition("?")
        assert (reply.status_code, where) == (303, "/console/sign-in"), (method, path)
        assert not rest or (method == "GET" and rest == f"to={filled(path, 'acme')}")


async def test_who_follows_a_link_signs_in_and_is_there_and_nowhere_else(here: Visits) -> None:
    asked = "/console/t/acme/feedback?metric=thumbs"
    page = await stranger(here, "GET", asked)
    form = await stranger(here, "GET", page.headers["location"])
    assert f'name="to" value="{asked}"' in form.text
    elsewhere = ["http://evil/", "//evil", "/console//evil", "/console/\\evil", "/admin", "/console/a b", "/console/\n"]
    for to, leads in [(asked, asked), ("", "/console/"), *((to, "/console/") for to in elsewhere)]:
        reply = await stranger(here, "POST", "/console/sign-in", data={"key": here.keys[0], "to": to})
        assert (reply.status_code, reply.headers["location"]) == (303, leads), to


async def test_no_form_is_taken_without_the_sessions_token_or_from_another_site(here: Visits) -> None:
    for method, path in routes(here):
        if method == "GET":
            continue
        at = filled(path, "acme")
        for token in ("", "0" * 32, here.rival.token):
            reply = await here.acme.http.request(method, at, data={"csrf": token}, headers={"origin": HOST})
            assert reply.status_code == 403, (method, path, token)
        for headers in ({"origin": "http://evil"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {}):
            reply = await here.acme.http.request(method, at, data={"csrf": here.acme.token}, headers=headers)
            assert reply.status_code == 403, (method, path, headers)
    reply = await here.acme.http.post("/console/sign-in", data={"key": ADMIN_KEY}, headers={"origin": "http://evil"})
    assert reply.status_code == 403 and "set-cookie" not in reply.headers


async def test_every_page_of_a_foreign_tenant_is_the_page_of_no_tenant(here: Visits) -> None:
    for method, path in routes(here):
        if "{tenant}" not in path:
            continue
        replies = [
            await here.acme.http.request(
                method, filled(path, tenant), data={"csrf": here.acme.token}, headers={"origin": HOST}
            )
            for tenant in ("rival", "nobod")
        ]
        assert [reply.status_code for reply in replies] == [404, 404], (method, path)
        assert replies[0].text.replace("rival", "nobod") == replies[1].text


@pytest.mark.long
async def test_the_operators_pages_are_not_a_tenants(here: Visits) -> None:
    for method, path in routes(here):
        if "{tenant}" in path or path in ("/", "/sign-out"):
            continue
        data = {"csrf": here.acme.token}
        reply = await here.acme.http.request(method, filled(path, "acme"), data=data, headers={"origin": HOST})
        assert reply.status_code == 403, (method, path)


async def test_a_foreign_experiment_is_the_page_of_none(here: Visits) -> None:
    theirs = str((await compare(here.here))["id"])
    assert (await here.acme.get(f"experiments/{theirs}")).status_code == 200
    made_up = "exp-" + "0" * (len(theirs) - 4)
    for path in ("", "/findings", "/served"):
        replies = [await here.rival.get(f"experiments/{one}{path}") for one in (theirs, made_up)]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert replies[0].text.replace(theirs, made_up) == replies[1].text
    sent = await here.rival.send(f"experiments/{theirs}/stop", why="I would like to")
    assert sent.status_code == 404
    assert (await here.here.call("GET", f"/experiments/{theirs}"))["status"] == "running"


@pytest.mark.long
async def test_the_cookie_is_for_this_console_alone_and_holds_no_key(here: Visits) -> None:
    for key in (ADMIN_KEY, here.keys[0]):
        for origin, secure in ((HOST, False), ("https://gateway", True)):
            transport = httpx.ASGITransport(app=here.here.app)
            async with httpx.AsyncClient(transport=transport, base_url=HOST) as http:
                reply = await http.post("/console/sign-in", data={"key": key}, headers={"origin": origin})
            said = reply.headers["set-cookie"].lower()
            assert "httponly" in said and "samesite=lax" in said and "path=/console" in said
            assert ("secure" in said) is secure
            assert key.lower() not in said and key[-20:].lower() not in said


@pytest.mark.long
@pytest.mark.parametrize(("scopes", "status"), [(("inference", "feedback"), 403), ((), 401)])
async def test_only_a_key_that_administers_opens_it(here: Visits, scopes: tuple[str, ...], status: int) -> None:
    key = await here.here.key("acme", *scopes) if scopes else "tl-made-up"
    reply = await stranger(here, "POST", "/console/sign-in", data={"key": key})
    assert reply.status_code == status and "set-cookie" not in reply.headers
    assert key not in reply.text


@pytest.mark.long
async def test_a_revoked_key_ends_its_session_at_once(here: Visits) -> None:
    assert (await here.acme.get("experiments")).status_code == 200
    for one in (await here.here.call("GET", "/tenants/acme/keys"))["data"]:
        await here.here.call("DELETE", f"/tenants/acme/keys/{one['id']}")
    assert (await here.acme.get("experiments")).status_code == 303
    assert (await here.operator.get("experiments")).status_code == 200


async def test_a_session_ends_by_itself_and_with_the_admin_key_and_is_no_ones_to_make(here: Visits) -> None:
    current, now = here.here.current, datetime.now(UTC)
    cookie = session.sign_in(ADMIN_KEY, admin_key=ADMIN_KEY, current=current, now=now)
    assert session.read(cookie, admin_key=ADMIN_KEY, current=current, now=now).caller.actor == "operator"
    tenants = session.sign_in(here.keys[0], admin_key=ADMIN_KEY, current=current, now=now)
    forged = [
        None,
        "",
        "x",
        cookie[:-1],
        cookie.replace("operator", "tenant"),
        f"{tenants.rpartition('.')[0]}.",
        "a.b.c.d.é",
    ]
    late = now + session.LIFETIME + timedelta(seconds=1)
    wrong = [(one, ADMIN_KEY, now) for one in forged] + [(cookie, ADMIN_KEY, late), (cookie, "another-admin-key", now)]
    for one, admin_key, at in wrong:
        with pytest.raises(GatewayError):
            session.read(one, admin_key=admin_key, current=current, now=at)


@pytest.mark.long
async def test_every_answer_carries_the_policy(here: Visits) -> None:
    asked = ["/console/", "/console/sign-in", "/console/t/acme/experiments", "/console/nothing", "/console/t/rival/x"]
    asked.append((await here.acme.page("experiments")).split('src="')[1].split('"')[0])
    for path in asked:
        reply = await here.acme.http.get(path)
        assert reply.headers["content-security-policy"] == POLICY, path
        assert "unsafe" not in POLICY and "http" not in POLICY
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert ("no-store" in reply.headers["cache-control"]) is ("/static/" not in path)


@pytest.mark.long
async def test_what_goes_wrong_is_a_page_and_for_htmx_a_notice(here: Visits) -> None:
    headers = {"origin": HOST, "hx-request": "true", "x-csrf-token": here.acme.token}
    reply = await here.acme.http.post("/console/t/acme/experiments/exp-0/stop", data={"why": "x"}, headers=headers)
    assert (reply.status_code, reply.headers["hx-retarget"]) == (404, "#notice")
    assert "<html" not in reply.text
    assert "<html" in (await here.acme.get("experiments/exp-0")).text
    expired = await stranger(here, "GET", "/console/t/acme/experiments")
    assert expired.status_code == 303
    big = await here.acme.http.post(
        "/console/t/acme/power", content=b"a=" + b"b" * 1_100_000,
        headers={"origin": HOST, "content-type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert big.status_code == 413


@pytest.mark.long
async def test_where_htmx_is_sent_is_no_place_for_another_header(here: Visits) -> None:
    headers = {"origin": HOST, "hx-request": "true", "x-csrf-token": here.acme.token}
    data = {"kind": "preference", "back": "feedback/answers/\r\nx-other: ü"}
    reply = await here.acme.http.post("/console/t/acme/feedback/metrics", data=data, headers=headers)
    assert reply.status_code == 204 and "x-other" not in reply.headers
    assert reply.headers["hx-redirect"].startswith("/console/t/acme/feedback/answers/%0D%0A")


@pytest.mark.long
async def test_a_page_is_told_from_a_way_to_ask_for_it(here: Visits) -> None:
    wrong = await here.acme.http.get("/console/t/acme/power")
    assert wrong.status_code == 405 and "cannot be asked like that" in wrong.text
    missing = await here.acme.http.get("/console/nothing")
    assert missing.status_code == 404 and "There is no such page." in missing.text


@pytest.mark.long
async def test_signing_out_forgets_the_cookie(here: Visits) -> None:
    reply = await here.acme.send("/console/sign-out")
    assert reply.status_code == 303 and COOKIE not in here.acme.http.cookies
    assert (await here.acme.get("experiments")).status_code == 303
