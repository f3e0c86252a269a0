"""Verdicts and archives over HTTP: what a trainer sends, and what it and an operator get back."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from adapters.manifest import Gate
from adapters.package import FILES, pack
from tests.adapters import sample
from tests.gateway.api.installation import Installation
from tests.gateway.api.test_routes import TAR, packed, tar_of

GATE = Gate(verdict="refused", reason="it lost on f1", compared_with="base", figures={"candidate.f1": 0.5})


def refused(directory: Path) -> Path:
    made = sample.write_adapter(directory / "made", seed=3)
    pack(made, directory / "packed", sample.manifest(gate=GATE))
    return directory / "packed"


async def test_a_refused_upload_is_listed_with_its_verdict_and_never_promoted(here: Installation, tmp_path: Path):
    await here.tenant("acme")
    path = "/admin/v1/tenants/acme/adapters?name=support"
    reply = await here.request("POST", path, content=tar_of(refused(tmp_path)), headers=TAR)
    assert reply.status_code == 201, reply.text
    assert (reply.json()["verdict"], reply.json()["reason"]) == ("refused", "it lost on f1")
    [row] = (await here.call("GET", "/tenants/acme/adapters"))["data"]
    assert row == reply.json()
    shown = await here.call("GET", "/tenants/acme/adapters/support/1")
    assert shown["manifest"]["gate"] == GATE.model_dump()
    body = {"variants": [{"name": "tuned", "weight": 1, "ref": "support@1"}]}
    reply = await here.request("PUT", "/admin/v1/tenants/acme/aliases/support", body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (409, "version_refused", "ref")
    assert error["message"].startswith("acme/support@1 was refused by its gate: it lost on f1. Train again")


async def test_an_archive_is_a_plain_tar_that_uploads_as_the_same_version(here: Installation, tmp_path: Path):
    key = await here.tenant("acme", "admin")
    source = packed(tmp_path, 5)
    path = "/admin/v1/tenants/acme/adapters"
    made = await here.request("POST", f"{path}?name=support", content=tar_of(source), headers=TAR)
    await here.settle()
    archive = await here.request("GET", f"{path}/support/1/archive", key=key)
    assert archive.status_code == 200 and archive.headers["content-type"] == "application/x-tar"
    assert int(archive.headers["content-length"]) == len(archive.content)
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        assert sorted(tar.getnames()) == sorted(FILES)
        for name in FILES:
            member = tar.extractfile(name)
            assert member is not None and member.read() == (source / name).read_bytes()
    again = await here.request("POST", f"{path}?name=support", content=archive.content, headers=TAR)
    assert again.json() == made.json()
    await here.call("POST", "/tenants/acme/adapters/support/1/retire")
    assert (await here.request("GET", f"{path}/support/1/archive")).content == archive.content, "a retired one's too"


@pytest.mark.parametrize("place", ["support/1", "other/1", "support/x"])
async def test_an_archive_of_what_is_not_registered_is_not_found(here: Installation, place: str):
    await here.tenant("acme")
    here.control.publish(seed=1)  # in the store, and not registered
    reply = await here.request("GET", f"/admin/v1/tenants/acme/adapters/{place}/archive")
    assert reply.status_code == (400 if place.endswith("x") else 404), reply.text
