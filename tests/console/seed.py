"""A gateway with something to look at: `gateway serve` on the fake engine, and what a tenant did with it over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from adapters.package import sizes_of, tar_of
from tests.adapters import sample

XSS = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>{{7*7}}"
"""Goes into every name and text that people can give: it must stay text."""

EVERYTHING = ("inference", "feedback", "admin")


@dataclass
class Site:
    """`admin` calls the API as the operator, and insists that it works."""

    url: str
    admin_key: str
    http: httpx.Client
    tenant_key: str = ""

    def admin(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        reply = self.http.request(method, f"/admin/v1{path}", json=body, **more)
        assert reply.is_success, (path, reply.text)
        return reply.json() if reply.content else None

    def ask(self, user: str, content: str, *, model: str = "support", **extra: Any) -> httpx.Response:
        """One request of a tenant's user."""
        body = {"model": model, "user": user, "max_tokens": 12, "messages": [{"role": "user", "content": content}]}
        headers = {"authorization": f"Bearer {self.tenant_key}"}
        reply = self.http.post("/v1/chat/completions", json=body | extra, headers=headers)
        assert reply.is_success, reply.text
        return reply

    def say(self, inference: str, metric: str, value: object, **extra: Any) -> None:
        """One feedback; waits for the recorder."""
        body = {"inference_id": inference, "metric": metric, "value": value} | extra
        reply = self.http.post("/v1/feedback", json=body, headers={"authorization": f"Bearer {self.tenant_key}"})
        assert reply.is_success, reply.text

    def upload(self, tenant: str, name: str, directory: Path) -> str:
        """Publish a version; its ref."""
        tar = b"".join(tar_of(sizes_of(directory)))
        headers = {"content-type": "application/x-tar"}
        reply = self.http.post(
            f"/admin/v1/tenants/{tenant}/adapters", params={"name": name}, content=tar, headers=headers
        )
        assert reply.is_success, reply.text
        return str(reply.json()["ref"])


@contextmanager
def seeded(home: Path) -> Iterator[Site]:
    """A running gateway until the block ends."""
    log = home / "serve.log"
    command = [sys.executable, "-m", "gateway", "serve", "--engine", "fake", "--port", "0", "--home", str(home)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--base-model", sample.BASE_MODEL], stderr=out, env={**os.environ, "GATEWAY_WORKERS": "1"}
        )
    try:
        url = _ready(process, log)
        admin_key = (home / "admin.key").read_text().strip()
        headers = {"authorization": f"Bearer {admin_key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
            site = Site(url, admin_key, http)
            _fill(site, home)
            yield site
    finally:
        process.terminate()
        process.wait(60)


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        url = next((str(line["url"]) for line in lines if line["message"] == "listening"), None)
        try:
            if url is not None and httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def _fill(site: Site, home: Path) -> None:
    site.admin("POST", "/tenants", {"name": "acme", "store_content": True})
    site.admin("POST", "/tenants", {"name": "rival"})
    site.tenant_key = site.admin("POST", "/tenants/acme/keys", {"scopes": list(EVERYTHING)})["key"]
    directory = sample.write_adapter(home / "made", seed=1)
    ref = site.upload("acme", "support", directory)
    arms = [{"name": "base", "weight": 1, "ref": "base"}, {"name": "tuned", "weight": 1, "ref": ref}]
    site.admin("PUT", "/tenants/acme/aliases/support", {"variants": arms})
    site.admin("POST", "/tenants/acme/experiments", {"alias": "support", "name": f"is it better {XSS}"})
    for number in range(20):
        answered = site.ask(f"user-{number}", f"My order is late. {XSS}")
        site.say(answered.headers["x-inference-id"], "thumbs", number % 3 > 0, comment=XSS)
