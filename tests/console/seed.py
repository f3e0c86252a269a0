"""A gateway with something to look at: `gateway serve` on the fake engine, and what a tenant did with it over HTTP.

The tenant `acme` is a story: versions with lineage and gates, an experiment that its rule has promoted, one that runs,
feedback. `probe` has markup in every name and text that people can give. `rival` has nothing: its pages are empty.
Run as a module it stays up until Ctrl-C, for a look by hand:  python -m tests.console.seed
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from adapters.manifest import MANIFEST, Gate, Lineage
from adapters.package import sizes_of, tar_of
from tests.adapters import sample

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>{{7*7}}"
"""Given as every name and text of `probe`: it must stay text."""

SCOPES = ("inference", "feedback", "admin")
QUESTIONS = (
    "My parcel was to come on Friday and it is Monday. Where is it?",
    "How do I change the address of an order that I have just placed?",
    "I was charged twice for one order. Please give me back one of the two.",
    "The zip of the jacket broke on the second day. What can I do?",
)


@dataclass
class Site:
    """A running gateway. `admin` calls its API as the operator; `keys` has a key with all scopes for each tenant."""

    url: str
    admin_key: str
    http: httpx.Client
    keys: dict[str, str] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=dict)

    @property
    def tenant_key(self) -> str:
        return self.keys["acme"]

    def admin(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """Insists that it works."""
        reply = self.http.request(method, f"/admin/v1{path}", json=body, **more)
        assert reply.is_success, (path, reply.text)
        return reply.json() if reply.content else None

    def tenant(self, name: str, **options: Any) -> None:
        self.admin("POST", "/tenants", {"name": name, **options})
        self.keys[name] = self.admin("POST", f"/tenants/{name}/keys", {"scopes": list(SCOPES)})["key"]

    def ask(self, tenant: str, user: str, content: str, *, model: str = "support", **extra: Any) -> httpx.Headers:
        """One request of a tenant's user; the answer's headers."""
        body = {"model": model, "user": user, "max_tokens": 12, "messages": [{"role": "user", "content": content}]}
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        reply = self.http.post("/v1/chat/completions", json=body | extra, headers=headers)
        assert reply.is_success, reply.text
        return reply.headers

    def say(self, tenant: str, inference: str, metric: str, value: object, **extra: Any) -> None:
        body = {"inference_id": inference, "metric": metric, "value": value} | extra
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        reply = self.http.post("/v1/feedback", json=body, headers=headers)
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

    def point(self, tenant: str, alias: str, ref: str) -> None:
        """An alias with one variant."""
        body = {"variants": [{"name": "tuned" if ref != "base" else "base", "weight": 1, "ref": ref}]}
        self.admin("PUT", f"/tenants/{tenant}/aliases/{alias}", body)

    def compare(self, tenant: str, alias: str, ref: str, **more: Any) -> str:
        """Start an experiment against what the alias serves; its id."""
        arm = {"name": "candidate", "weight": 1, "ref": ref}
        return str(
            self.admin("POST", f"/tenants/{tenant}/experiments", {"alias": alias, "candidates": [arm], **more})["id"]
        )

    def until(self, path: str, done: Mapping[str, Any], seconds: float = 40) -> None:
        """Wait until what is at `path` has these fields."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.admin("GET", path)
            if all(found.get(name) == value for name, value in done.items()):
                return
            time.sleep(0.2)
        raise AssertionError((path, found))


@contextmanager
def seeded(home: Path, *, pace: float = 0.0) -> Iterator[Site]:
    """A running gateway until the block ends. `pace`: seconds between some users and the next."""
    log = home / "serve.log"
    command = [sys.executable, "-m", "gateway", "serve", "--engine", "fake", "--port", "0", "--home", str(home)]
    env = {**os.environ, "GATEWAY_EVALUATION_SECONDS": "0.5"}
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--base-model", sample.BASE_MODEL], stderr=out, env=env)
    try:
        url = _ready(process, log)
        admin_key = (home / "admin.key").read_text().strip()
        headers = {"authorization": f"Bearer {admin_key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
            site = Site(url, admin_key, http)
            _tell(site, home, pace)
            _probe(site, home)
            site.tenant("rival")
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


def made(
    home: Path, seed: int, *, gate: Gate | None = None, metrics: Mapping[str, float] | None = None, **how: Any
) -> Path:
    """A version's directory as a trainer publishes it; `how` is its lineage."""
    directory = sample.write_adapter(home / f"made-{seed}", seed=seed)
    lineage = Lineage(
        run_id=f"2026110{seed}T090000Z-5e1f30a{seed}",
        dataset_digest=f"sha256:{hashlib.sha256(bytes([seed])).hexdigest()}",
        **how,
    )
    when = datetime(2026, 11, seed, 9, 30, tzinfo=UTC)
    manifest = sample.manifest(lineage=lineage, gate=gate, metrics=dict(metrics or {}), created_at=when)
    (directory / MANIFEST).write_bytes(manifest.to_json())
    return directory


def _gate(verdict: Any, reason: str, against: str, better: float) -> Gate:
    figures = {"rows": 200.0, "candidate.exact_match": 0.61 + better, "base.exact_match": 0.61}
    figures |= {"difference.exact_match": better, "difference.exact_match.low": better - 0.03}
    figures |= {"difference.exact_match.high": better + 0.03, "candidate.length": 212.0, "base.length": 240.0}
    figures |= {"regression.candidate.token_f1": 0.71, "regression.base.token_f1": 0.72}
    figures |= {"regression.difference.token_f1": -0.01, "regression.difference.token_f1.low": -0.02}
    figures |= {"regression.difference.token_f1.high": 0.0}
    return Gate(verdict=verdict, reason=reason, compared_with=against, figures=figures)


def _tell(site: Site, home: Path, pace: float) -> None:
    site.tenant("acme", store_content=True)
    good = _gate("accepted", "Exact match is better by 0.09 (0.06 to 0.12), and nothing is forgotten.", "base", 0.09)
    sft = made(home, 1, gate=good, metrics={"held_out_loss": 1.482}, recipe="sft", examples=412, feedback=96)
    first = site.upload("acme", "support", sft)
    bad = _gate("refused", "Exact match is worse by 0.05 (0.02 to 0.08).", first, -0.05)
    site.upload(
        "acme",
        "support",
        made(home, 2, gate=bad, recipe="kto", continues=first, parent=first, examples=900, feedback=900),
    )
    better = _gate("accepted", "Exact match is better by 0.04 (0.01 to 0.07).", first, 0.04)
    third = site.upload(
        "acme",
        "support",
        made(home, 3, gate=better, recipe="dpo", continues=first, parent=first, examples=640, feedback=640),
    )
    site.point("acme", "support", first)
    site.point("acme", "triage", "base")
    plan = {"primary": "thumbs", "burn_in": 20, "planned_units": 80, "ship": "rule"}
    plan["guardrails"] = [{"metric": "output_tokens", "margin": 0.5, "relative": True}]
    finished = site.compare("acme", "triage", first, name="Does tuning help triage?", plan=plan)
    site.experiments["finished"] = finished
    for batch in range(10):
        time.sleep(pace / 2)
        _users(site, "triage", range(batch * 10, batch * 10 + 10), {"base": 0.25, "candidate": 0.95})
    running = {
        "name": "Is the model of preferences better?",
        "hypothesis": "What users preferred in October makes answers that they like more, at the same length.",
        "owner": "Ada",
    }
    plan = {"primary": "thumbs", "secondaries": ["latency"], "burn_in": 20, "planned_units": 400}
    plan["guardrails"] = [{"metric": "output_tokens", "margin": 0.2, "relative": True}]
    site.experiments["running"] = site.compare("acme", "support", third, plan=plan, **running)
    for batch in range(8):
        time.sleep(pace)
        _users(site, "support", range(batch * 20, batch * 20 + 20), {"tuned": 0.55, "candidate": 0.72})
    site.until(f"/experiments/{finished}", {"stage": "promoted"})


def _users(site: Site, alias: str, numbers: range, likes: Mapping[str, float]) -> None:
    """Each user asks once and says whether the answer was good, some with a correction."""
    for number in numbers:
        said = site.ask("acme", f"user-{number}", QUESTIONS[number % len(QUESTIONS)], model=alias)
        likes_it = (number * 37 % 100) / 100 < likes[said["x-variant"]]
        more = (
            {} if likes_it or number % 4 else {"correction": "I am sorry. I have looked it up, and it comes tomorrow."}
        )
        site.say("acme", said["x-inference-id"], "thumbs", likes_it, **more)


def _probe(site: Site, home: Path) -> None:
    """Markup wherever people can write."""
    site.tenant("probe", store_content=True)
    gate = Gate(verdict="accepted", reason=f"better {MARKUP}", compared_with="base", figures={"candidate.f1": 0.5})
    directory = made(home, 4, gate=gate, metrics={MARKUP: 1.0}, recipe="sft", examples=7)
    ref = site.upload("probe", "support", directory)
    site.point("probe", "support", "base")
    about = {"name": f"name {MARKUP}", "hypothesis": f"hypothesis {MARKUP}", "owner": f"owner {MARKUP}"}
    site.experiments["probe"] = site.compare("probe", "support", ref, **about)
    for number in range(4):
        said = site.ask("probe", f"user-{number}", f"prompt {MARKUP}")
        site.say("probe", said["x-inference-id"], "thumbs", True, comment=f"comment {MARKUP}", correction=MARKUP)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, seeded(Path(folder)) as one:
        print(f"{one.url}/console/  admin key: {one.admin_key}")
        with suppress(KeyboardInterrupt):
            time.sleep(86_400)
