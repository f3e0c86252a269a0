"""The control plane's routes do what their names say, on a real database."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.examples import read_jsonl
from adapters.package import pack
from tests.adapters import sample
from tests.gateway.api.installation import Installation
from tests.gateway.feedback.stories import Story


async def test_a_tenant_is_created_listed_and_changed_by_the_operator(here: Installation):
    made = await here.request("POST", "/admin/v1/tenants", {"name": "acme"})
    assert made.status_code == 201 and made.json()["store_content"] is False
    changed = await here.call("PATCH", "/tenants/acme", {"store_content": True})
    flags = {"store_content": True, "allow_pinning": True}
    assert changed == {"object": "tenant", "name": "acme", **flags, "limits": {}, "weight": 1.0}
    assert [row["name"] for row in (await here.call("GET", "/tenants"))["data"]] == ["acme"]
    again = await here.request("POST", "/admin/v1/tenants", {"name": "acme"})
    assert again.status_code == 409


async def test_a_key_is_shown_once_works_and_stops_working_when_revoked(here: Installation):
    await here.tenant("acme")
    made = await here.request("POST", "/admin/v1/tenants/acme/keys", {"scopes": ["admin"]})
    assert made.status_code == 201
    text, key_id = made.json()["key"], made.json()["id"]
    await here.settle()
    assert (await here.request("GET", "/admin/v1/tenants", key=text)).status_code == 200
    listed = await here.request("GET", "/admin/v1/tenants/acme/keys")
    assert text not in listed.text and key_id in listed.text
    gone = await here.request("DELETE", f"/admin/v1/tenants/acme/keys/{key_id}")
    assert gone.status_code == 204 and gone.content == b""
    await here.settle()
    refused = await here.request("GET", "/admin/v1/tenants", key=text)
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"


async def test_a_key_expires(here: Installation):
    await here.tenant("acme")
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    made = await here.call("POST", "/tenants/acme/keys", {"scopes": ["admin"], "expires_at": soon.isoformat()})
    while datetime.now(UTC) < soon:
        await here.settle()
    assert (await here.request("GET", "/admin/v1/tenants", key=made["key"])).status_code == 401
    past = {"expires_at": "2001-01-01T00:00:00Z"}
    assert (await here.request("POST", "/admin/v1/tenants/acme/keys", past)).status_code == 400


async def test_metrics_are_declared_and_never_changed(here: Installation):
    await here.tenant("acme")
    body = {"name": "solved", "kind": "boolean", "description": "the ticket was closed"}
    made = await here.request("POST", "/admin/v1/tenants/acme/metrics", body)
    assert made.status_code == 201 and made.json()["optimize"] == "max"
    other = await here.request("POST", "/admin/v1/tenants/acme/metrics", {**body, "kind": "float"})
    assert other.status_code == 409
    names = [row["name"] for row in (await here.call("GET", "/tenants/acme/metrics"))["data"]]
    assert names == ["comment", "demonstration", "solved", "thumbs"]


async def test_an_alias_is_set_promoted_and_rolled_back(here: Installation):
    await here.tenant("acme")
    first, second = (here.control.publish(seed=seed) for seed in (1, 2))
    for ref in (first, second):
        registered = await here.request("POST", "/admin/v1/tenants/acme/adapters", {"ref": str(ref)})
        assert registered.status_code == 201 and registered.json()["ref"] == str(ref)
    variants = [{"name": "plain", "weight": 3, "ref": "base"}, {"name": "tuned", "weight": 1, "ref": "support@1"}]
    put = await here.call("PUT", "/tenants/acme/aliases/support", {"variants": variants, "fallback": "base"})
    assert put["variants"][1]["ref"] == "acme/support@1" and put["fallback"] == "base"
    assert set(put["timings_ms"]) == {"prepare", "commit", "acknowledge", "total"}
    assert "salt" not in put
    path = "/tenants/acme/aliases/support"
    one = await here.call("POST", f"{path}/promote", {"ref": "support@2", "variant": "tuned"})
    assert [(v["name"], v["weight"], v["ref"]) for v in one["variants"]][1] == ("tuned", 1, "acme/support@2")
    whole = await here.call("POST", f"{path}/promote", {"ref": "acme/support@2"})
    assert whole["variants"] == [{"name": "tuned", "weight": 1, "ref": "acme/support@2"}]
    back = await here.call("POST", f"{path}/rollback")
    assert back["variants"] == one["variants"] and back["revision"] == 4
    assert await here.call("GET", path) == {name: value for name, value in back.items() if name != "timings_ms"}
    in_use = await here.request("POST", "/admin/v1/tenants/acme/adapters/support/2/retire")
    assert in_use.status_code == 409


async def test_adapters_are_listed_in_pages_and_retired_for_good(here: Installation):
    await here.tenant("acme")
    refs = [str(here.control.publish(seed=seed)) for seed in range(3)]
    for ref in refs:
        await here.call("POST", "/tenants/acme/adapters", {"ref": ref})
    first = await here.call("GET", "/tenants/acme/adapters?limit=2")
    assert [row["ref"] for row in first["data"]] == refs[:2] and first["has_more"]
    rest = await here.call("GET", f"/tenants/acme/adapters?limit=2&after={first['next']}")
    assert [row["ref"] for row in rest["data"]] == refs[2:] and not rest["has_more"]
    retired = await here.call("POST", "/tenants/acme/adapters/support/1/retire")
    assert retired["retired"] is True
    again = await here.request("POST", "/admin/v1/tenants/acme/adapters", {"ref": refs[0]})
    assert again.status_code == 409


def tar_of(directory: Path) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(directory.iterdir()):
            tar.add(file, arcname=file.name)
    return archive.getvalue()


def packed(directory: Path, seed: int) -> Path:
    """A published adapter's directory, as a trainer on another machine has it."""
    made = sample.write_adapter(directory / f"made-{seed}", seed=seed)
    pack(made, directory / f"packed-{seed}", sample.manifest())
    return directory / f"packed-{seed}"


OPEN = {"/healthz", "/readyz", "/metrics"}
TAR = {"content-type": "application/x-tar"}


async def test_an_uploaded_adapter_is_published_and_the_same_upload_is_the_same_version(
    here: Installation, tmp_path: Path
):
    await here.tenant("acme")
    content = tar_of(packed(tmp_path, 5))
    path = "/admin/v1/tenants/acme/adapters?name=support"
    replies = [await here.request("POST", path, content=content, headers=TAR) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [201, 201], replies[0].text
    assert replies[0].json() == replies[1].json() and replies[0].json()["ref"] == "acme/support@1"
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_bad_upload_is_refused_with_what_to_do_and_leaves_nothing(here: Installation, tmp_path: Path):
    await here.tenant("acme")
    path = "/admin/v1/tenants/acme/adapters"
    junk = await here.request("POST", f"{path}?name=support", content=b"not a tar", headers=TAR)
    assert junk.status_code == 422 and junk.json()["error"]["code"] == "adapter_refused"
    for length in ({"content-length": "200001"}, {}):

        async def pieces() -> Any:
            for _ in range(5):
                yield bytes(50_000)

        large = await here.request("POST", f"{path}?name=support", content=pieces(), headers={**TAR, **length})
        assert large.status_code == 413, large.text
    nameless = await here.request("POST", path, content=b"", headers=TAR)
    assert nameless.status_code == 400 and nameless.json()["error"]["param"] == "name"
    assert list((tmp_path / "uploads").iterdir()) == []
    assert (await here.call("GET", "/tenants/acme/adapters"))["data"] == []


async def compare(here: Installation) -> dict[str, Any]:
    """Tenant acme with an experiment of base against a version; the experiment."""
    ref = here.control.publish(seed=1)
    await here.call("POST", "/tenants/acme/adapters", {"ref": str(ref)})
    await here.call("PUT", "/tenants/acme/aliases/support", {"variants": [{"name": "base", "weight": 1, "ref": None}]})
    variants = [{"name": "base", "weight": 1, "ref": "base"}, {"name": "tuned", "weight": 1, "ref": str(ref)}]
    body = {"alias": "support", "name": "is it better", "metric": "thumbs", "variants": variants}
    started = await here.request("POST", "/admin/v1/tenants/acme/experiments", body)
    assert started.status_code == 201, started.text
    await here.settle()
    found: dict[str, Any] = started.json()
    return found


async def test_an_experiment_starts_shows_results_by_variant_and_stops(here: Installation):
    key = await here.tenant("acme", store_content=True)
    experiment = await compare(here)
    alias = await here.call("GET", "/tenants/acme/aliases/support")
    assert alias["experiment"] == experiment["id"] and len(alias["variants"]) == 2
    await judged(here, key, experiment["id"])
    found = await here.call("GET", f"/experiments/{experiment['id']}/results")
    base, tuned = found["variants"]
    assert (found["metric"], found["inferences"]) == ("thumbs", 5)
    assert (base["name"], base["inferences"], base["mean"], base["difference"]) == ("base", 2, 0.0, None)
    assert (tuned["units"], tuned["feedback"], tuned["mean"], tuned["share"]) == (3, 3, pytest.approx(2 / 3), 0.6)
    low, high = tuned["interval"]
    assert 0 <= low < 2 / 3 < high <= 1
    assert tuned["difference"]["value"] == pytest.approx(2 / 3) and not tuned["difference"]["conclusive"]
    assert tuned["served"] == {"acme/support@1": 3} and tuned["operations"]["ttft_p50_ms"] == 20
    undeclared = await here.call("GET", f"/experiments/{experiment['id']}/results?metric=error_rate")
    assert [arm["feedback"] for arm in undeclared["variants"]] == [2, 3], "an automatic metric, of every request"
    assert (await here.call("POST", f"/experiments/{experiment['id']}/rebuild"))["id"] == experiment["id"]
    newest = (await here.call("GET", "/audit"))["data"][0]
    assert (newest["action"], newest["subject"], newest["tenant"]) == ("experiment.rebuild", experiment["id"], "acme")
    again = await here.call("GET", f"/experiments/{experiment['id']}/results")
    assert again == found, "worked out anew, it is the same"
    stopped = await here.call("POST", f"/experiments/{experiment['id']}/stop")
    assert stopped["status"] == "stopped" and stopped["stop_reason"]
    assert [row["id"] for row in (await here.call("GET", "/tenants/acme/experiments"))["data"]] == [experiment["id"]]


async def judged(here: Installation, key: str, experiment: str) -> None:
    """Two users of base and three of tuned; two of the latter are content."""
    story = Story(here.db, here.current, here.rooms.intake, iter(range(1, 100)))
    for user, (variant, value) in enumerate(
        [("base", False), ("base", False), ("tuned", True), ("tuned", True), ("tuned", False)]
    ):
        inference = await story.asked(f"user-{user}", variant, experiment=experiment)
        body = {"inference_id": f"chatcmpl-{inference}", "metric": "thumbs", "value": value}
        reply = await here.request("POST", "/v1/feedback", body, key=key)
        assert reply.status_code == 200, reply.text


async def test_an_unknown_metric_of_results_is_refused_with_the_declared_ones(here: Installation):
    await here.tenant("acme")
    experiment = await compare(here)
    reply = await here.request("GET", f"/admin/v1/experiments/{experiment['id']}/results?metric=nonsense")
    assert reply.status_code == 400 and "thumbs" in reply.json()["error"]["message"]


async def test_feedback_is_acknowledged_durably_and_a_repeat_says_so(here: Installation):
    key = await here.tenant("acme")
    story = Story(here.db, here.current, here.rooms.intake, iter(range(1, 100)))
    body = {"inference_id": story.inference("ann").id, "metric": "thumbs", "value": True, "idempotency_key": "k"}
    first, second = [await here.request("POST", "/v1/feedback", body, key=key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["id"] == second.json()["id"]
    assert (first.json()["duplicate"], second.json()["duplicate"]) == (False, True)
    other = await here.request("POST", "/v1/feedback", {**body, "value": False}, key=key)
    assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_reused"


async def test_an_export_streams_rows_that_the_contract_reads(here: Installation):
    key = await here.tenant("acme", store_content=True)
    await judged(here, key, "exp-none")
    reply = await here.request("GET", "/admin/v1/export?tenant=acme&alias=support")
    assert reply.headers["content-type"] == "application/jsonl"
    rows = list(read_jsonl(reply.content.splitlines()))
    assert [row.label for row in rows] == [False, False, True, True, False]
    mine = await here.request("GET", "/admin/v1/export", key=key)
    assert mine.content == reply.content
    later = await here.request("GET", "/admin/v1/export?tenant=acme&since=2027-01-01T00:00:00Z")
    assert later.status_code == 200 and later.content == b""


async def test_an_export_that_cannot_be_made_fails_with_a_status(here: Installation):
    await here.tenant("acme")
    refused = await here.request("GET", "/admin/v1/export?tenant=acme")
    assert refused.status_code == 409 and "store-content" in refused.json()["error"]["message"]
    assert (await here.request("GET", "/admin/v1/export")).status_code == 400


async def test_every_change_is_on_the_audit_log_with_who_did_it_and_no_secret(here: Installation):
    key = await here.tenant("acme")
    await here.call("POST", "/tenants/acme/metrics", {"name": "solved", "kind": "boolean"}, key=key)
    reply = await here.request("GET", "/admin/v1/audit?limit=2")
    newest, before = reply.json()["data"]
    assert (newest["action"], newest["subject"], newest["tenant"]) == ("metric.declare", "solved", "acme")
    assert newest["actor"].startswith("key:") and before["actor"] == "operator"
    assert key not in reply.text and key.rsplit("-", 1)[-1] not in reply.text


async def test_readiness_gives_its_reason_and_when_to_ask_again(here: Installation):
    assert (await here.request("GET", "/readyz", key=None)).status_code == 200
    here.state["not_ready"] = "draining"
    refused = await here.request("GET", "/readyz", key=None)
    assert refused.status_code == 503 and "draining" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) <= 60
    assert (await here.request("GET", "/healthz", key=None)).status_code == 200
    assert (await here.request("GET", "/metrics", key=None)).text == "# none\n"


async def test_the_interface_describes_itself_with_examples(here: Installation):
    described = (await here.request("GET", "/admin/v1/openapi.json", key=None)).json()
    assert "/admin/v1/tenants/{tenant}/aliases/{alias}/promote" in described["paths"]
    body = described["components"]["schemas"]["FeedbackBody"]
    assert body["examples"][0]["metric"] == "helpful" and body["additionalProperties"] is False
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert path in OPEN or operation["security"] == [{"HTTPBearer": []}], path
    assert "http" not in json.dumps(list(described["paths"]))
