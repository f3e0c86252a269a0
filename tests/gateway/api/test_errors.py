"""Whatever is sent, the answer is an answer: never a 500, and every error in OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import APIRouter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.api.installation import ADMIN_KEY, Installation
from tests.gateway.api.test_isolation import BODIES, routes

QUERY = ("tenant", "alias", "metric", "since", "limit", "after", "name")
FIELDS = {"message", "type", "param", "code"}


def check(reply: httpx.Response) -> None:
    """Below 400, or a well-formed error that tells nothing of the inside."""
    assert reply.status_code != 500 and reply.status_code < 600, reply.text
    if reply.status_code >= 400:
        error = reply.json()["error"]
        assert reply.headers["content-type"] == "application/json"
        assert set(error) == FIELDS and isinstance(error["message"], str) and error["message"]
        assert "Traceback" not in reply.text and "/gateway/" not in reply.text


texts = st.text(max_size=40) | st.sampled_from(
    ["acme", "support", "base", "support@1", "..", "\x00", "a/b", "-1", "1e9"]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from([10**400, 1e308, "x" * 5000])
)
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))


@st.composite
def mangled(draw: st.DrawFn, body: Any) -> Any:
    """A good body with some fields replaced, dropped or added."""
    changed = dict(body)
    for name in draw(st.lists(st.sampled_from([*changed, "surplus"]), max_size=3)):
        if draw(st.booleans()):
            changed[name] = draw(junk)
        else:
            changed.pop(name, None)
    return changed


FEEDBACK = {"episode_id": "talk", "metric": "thumbs", "value": True, "comment": "fine", "source": "s"}


@st.composite
def requests(draw: st.DrawFn, known: list[tuple[str, str]]) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers: a known route with junk in every place."""
    method, template = draw(st.sampled_from(known))
    places = {name: quote(draw(texts), safe="") or "x" for name in ("alias", "name", "version", "experiment", "key_id")}
    tenant = draw(st.just("acme") | texts.map(lambda text: quote(text, safe="") or "x"))
    path = template.format(tenant=tenant, **places)
    query = draw(st.dictionaries(st.sampled_from(QUERY), texts))
    path += "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    good = FEEDBACK if template == "/v1/feedback" else BODIES.get((method, template), {})
    body = draw(mangled(good) | junk)
    raw = draw(st.just(json.dumps(body).encode()) | st.binary(max_size=60))
    kind = draw(st.sampled_from(["application/json", "application/json", "application/x-tar", "text/plain", ""]))
    return method, path, raw, {"content-type": kind}


@pytest.mark.long
@settings(
    max_examples=3 * settings().max_examples // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_no_request_makes_the_gateway_fail(here: Installation, data: st.DataObject):
    if "acme" not in here.current.snapshot.tenants:
        here.state["key"] = await here.tenant("acme", store_content=True)
    known = await routes(here)
    method, path, raw, headers = data.draw(requests(known))
    key = here.state["key"] if path.startswith("/v1/") else data.draw(st.sampled_from([ADMIN_KEY, here.state["key"]]))
    check(await here.request(method.upper(), path, content=raw, headers=headers, key=key))


REFUSED = (
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b'{"value": NaN}', "invalid_json"),
    (b'{"value": -Infinity}', "invalid_json"),
    (b'{"value": 1e999}', "invalid_json"),
    (b'{"value": 1' + b"0" * 5000 + b"}", "invalid_json"),
    (b'{"value": 1, "value": 2}', "invalid_json"),
    (b'{"comment": "\\ud800"}', "invalid_json"),
    (b'{"comment": "\xff"}', "invalid_json"),
    (b'{"comment": "\\u0000"}', "invalid_text"),
    (b"[" * 100_000, "invalid_json"),
    (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "invalid_json"),
    (b"[]", "invalid_type"),
    (b'{"metric": "thumbs", "value": true}', "invalid_value"),
    (b'{"episode_id": "e", "metric": "thumbs"}', "missing_required_parameter"),
    (b'{"episode_id": "e", "metric": "thumbs", "value": true, "tenant": "x"}', "unknown_parameter"),
    (b'{"episode_id": 7, "metric": "thumbs", "value": true}', "invalid_type"),
)


async def test_a_body_that_cannot_be_taken_is_a_400_that_says_why(here: Installation):
    key = await here.tenant("acme")
    headers = {"content-type": "application/json"}
    for raw, code in REFUSED:
        reply = await here.request("POST", "/v1/feedback", content=raw, headers=headers, key=key)
        check(reply)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, code), (raw[:40], reply.text)


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(here: Installation):
    key = await here.tenant("acme")
    body = {"episode_id": "e", "metric": "comment", "value": "x" * 1_100_000}
    reply = await here.request("POST", "/v1/feedback", body, key=key)
    check(reply)
    assert reply.status_code == 413


async def test_unknown_paths_and_wrong_methods_have_the_same_shape(here: Installation):
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/admin/v1/tenants/", 404),
        # What an engine may serve beside what we do: it is behind the door for good.
        ("GET", "/v1/responses/resp_1", 404),
        ("POST", "/v1/responses/resp_1/cancel", 404),
        ("POST", "/v1/messages/count_tokens", 404),
        ("POST", "/tokenize", 404),
        ("POST", "/v1/audio/transcriptions", 404),
        ("POST", "/rerank", 404),
        ("POST", "/pooling", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("DELETE", "/v1/feedback", 405),
        ("POST", "/healthz", 405),
    ):
        reply = await here.request(method, path)
        check(reply)
        assert reply.status_code == status
    assert (await here.request("DELETE", "/v1/feedback")).headers["allow"] == "POST"


async def test_what_nobody_expected_is_logged_under_the_id_that_the_client_gets(
    here: Installation, caplog: pytest.LogCaptureFixture
):
    broken = APIRouter()

    @broken.get("/broken")
    async def fail() -> None:
        raise RuntimeError("the secret is tl-123")

    here.app.include_router(broken)
    reply = await here.request("GET", "/broken")
    error = reply.json()["error"]
    assert reply.status_code == 500 and set(error) == FIELDS and "secret" not in reply.text
    (record,) = [record for record in caplog.records if record.name == "gateway.api"]
    assert record.__dict__["error_id"] in error["message"] and record.__dict__["route"] == "/broken"
    assert "tl-123" not in record.getMessage() + str(record.__dict__["frames"])
