"""Lineage over HTTP: said by a trainer, read back, looked up from both ends; and erasing a user."""

from __future__ import annotations

from adapters.lineage import LineageRow, read_lineage
from gateway.identity import new_inference_id, unit_of
from gateway.store.lineage import PAGE
from tests.gateway.api.installation import Installation

WHERE = "/admin/v1/tenants/acme/adapters/support/1/lineage"


async def _registered(here: Installation) -> str:
    key = await here.tenant("acme", "admin", store_content=True)
    await here.call("POST", "/tenants/acme/adapters", {"ref": str(here.control.publish(seed=1))})
    await here.call("PUT", "/tenants/acme/aliases/help", {"variants": [{"name": "t", "weight": 1, "ref": "support@1"}]})
    return key


def _lines(rows: list[LineageRow]) -> bytes:
    return b"".join(row.to_json().encode() + b"\n" for row in rows)


async def test_rows_read_back_in_their_order_and_saying_them_again_changes_nothing(here: Installation):
    key = await _registered(here)
    rows = [LineageRow(row=f"sha256:{i}", unit="0" * 32, feedback_ids=[f"fb-{i}"]) for i in range(PAGE + 7)]
    rows += [rows[0], LineageRow(row="sha256:seed")]
    for _ in range(2):
        said = await here.request("POST", WHERE, content=_lines(rows), key=key)
        assert said.json() == {"object": "lineage", "ref": "acme/support@1", "rows": len(rows)}, said.text
        told = await here.request("GET", WHERE, key=key)
        assert list(read_lineage(told.content.split(b"\n"))) == rows
    said = await here.request("POST", WHERE, content=_lines(rows[:2]))
    assert (said.json()["rows"], len((await here.request("GET", WHERE)).content.split())) == (2, 2)
    assert list((here.rooms.upload_dir).iterdir()) == []


BAD = [b"{", b'{"row": "x", "other": 1}', b'{"row": 5}', b'{"row": "\\u0000"}', b"\xff", b'{"row": "%s"}' % (b"x" * 81)]


async def test_a_bad_line_is_named_and_nothing_changes(here: Installation):
    await _registered(here)
    good = _lines([LineageRow(row="sha256:1")])
    await here.request("POST", WHERE, content=good)
    for line in BAD:
        reply = await here.request("POST", WHERE, content=good + line + b"\n" + good)
        assert reply.status_code == 400 and "lineage:2: " in reply.json()["error"]["message"], (line, reply.text)
        assert (await here.request("GET", WHERE)).content == good


async def test_an_unregistered_version_has_no_lineage(here: Installation):
    await _registered(here)
    for method in ("GET", "POST"):
        reply = await here.request(method, WHERE.replace("support/1", "support/2"))
        assert reply.status_code == 404, reply.text
    assert (await here.request("GET", WHERE)).content == b""


async def test_versions_are_found_by_user_answer_and_feedback(here: Installation):
    await _registered(here)
    secret = here.current.snapshot.secret
    unit, inference = unit_of(secret, "acme", "ann"), new_inference_id(secret, "acme")
    rows = [LineageRow(row="sha256:1", unit=unit), LineageRow(row="sha256:2", inference_id=inference)]
    rows.append(LineageRow(row="sha256:3", feedback_ids=["fb-1", "fb-2"]))
    await here.request("POST", WHERE, content=_lines(rows))
    found = {"ref": "acme/support@1", "rows": 1, "retired": False, "serving": ["help"]}
    for query, whose in (
        ("targeting_key=ann", unit),
        (f"unit={unit}", unit),
        (f"inference_id=chatcmpl-{inference}", None),
        ("feedback_id=fb-2", None),
    ):
        told = await here.call("GET", f"/tenants/acme/lineage?{query}")
        assert told == {"object": "list", "unit": whose, "data": [found]}, query
    for query in ("targeting_key=bob", "feedback_id=fb-9"):
        assert (await here.call("GET", f"/tenants/acme/lineage?{query}"))["data"] == []
    for query, status in (
        ("", 400),
        ("unit=x", 400),
        ("unit=x&feedback_id=y", 400),
        ("inference_id=x", 404),
        ("feedback_id=%00", 400),
    ):
        assert (await here.request("GET", f"/admin/v1/tenants/acme/lineage?{query}")).status_code == status
    await here.call("PUT", "/tenants/acme/aliases/help", {"variants": [{"name": "b", "weight": 1, "ref": "base"}]})
    assert (await here.call("GET", "/tenants/acme/lineage?targeting_key=ann"))["data"] == [{**found, "serving": []}]


async def test_erasing_a_user_answers_with_what_to_train_again_and_does_not_repeat_the_name(here: Installation):
    key = await _registered(here)
    unit = unit_of(here.current.snapshot.secret, "acme", "ann@example.com")
    await here.request("POST", WHERE, content=_lines([LineageRow(row="sha256:1", unit=unit)]))
    reply = await here.request("DELETE", "/admin/v1/tenants/acme/users?targeting_key=ann@example.com", key=key)
    erased = {"inferences": 0, "feedback": 0}
    assert reply.json() == {"object": "erasure", "unit": unit, "erased": erased, "retrain": ["acme/support@1"]}
    for query in ("", "?unit=x", f"?unit={unit}&targeting_key=ann@example.com"):
        refused = await here.request("DELETE", f"/admin/v1/tenants/acme/users{query}", key=key)
        assert refused.status_code == 400 and "ann@" not in refused.text
