"""The console without a browser: an installation (tests/gateway/api/installation.py) and who is signed in to it, as
requests and the HTML that they get."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from gateway import console
from gateway.domain import Inference
from gateway.identity import new_inference_id, unit_of
from gateway.serving.call import Call
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from tests.gateway.api.installation import ADMIN_KEY, Installation, installed

HOST = "http://gateway"


class Echo:
    """In the door's place: answers each chat with the last words of its prompt, word by word, and remembers the calls.

    `refuse` is an error body that it answers with instead; `endless`: it says one word until somebody hangs up. Each
    answer is written down as the recorder would.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refuse: bytes | None = None
        self.endless = False
        self.hung_up = asyncio.Event()
        self.here: Installation | None = None

    async def serve(self, call: Call) -> None:
        self.calls.append(call)
        if self.refuse is not None:
            call.reply(self.refuse, b"content-type: application/json\r\n", 404)
            return
        if self.endless:
            await self._go_on(call)
            return
        asked = json.loads(call.body)
        tenant = "acme"
        assert self.here is not None
        one = new_inference_id(self.here.current.snapshot.secret, tenant)
        text = f"{asked['model']} says {asked['messages'][-1]['content']}"
        unit = call.headers[b"x-unit"].decode()
        row = inference(
            self.here, one, tenant, messages=asked["messages"], answer=text, unit=unit, served=asked["model"]
        )
        await write_inferences(self.here.db, [row])
        identity = f"x-inference-id: chatcmpl-{one}\r\n".encode()
        if not asked.get("stream"):
            call.reply(json.dumps({"id": f"chatcmpl-{one}"}).encode(), identity)
            return
        call.begin(identity)
        for word in text.split(" "):
            call.write(b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": f"{word} "}}]}).encode())
        call.write(b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n', last=True)

    async def _go_on(self, call: Call) -> None:
        call.begin(b"x-inference-id: chatcmpl-0\r\n")
        try:
            while True:
                call.write(b'data: {"choices": [{"delta": {"content": "and "}}]}\n\n')
                await asyncio.sleep(0.005)
        finally:
            self.hung_up.set()


@dataclass
class Visitor:
    """Somebody with the console open. `token` is what forms must carry."""

    http: httpx.AsyncClient
    token: str = ""
    tenant: str = "acme"

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(self.at(path), params=params or None)

    async def page(self, path: str, **params: Any) -> str:
        """A page that must be there; its HTML."""
        reply = await self.get(path, **params)
        assert reply.status_code == 200, (path, reply.status_code, reply.text)
        return reply.text

    async def send(self, path: str, *, token: str | None = None, **fields: Any) -> httpx.Response:
        """A form."""
        body = {"csrf": self.token if token is None else token, **fields}
        return await self.http.post(self.at(path), data=body, headers={"origin": HOST})

    def at(self, path: str) -> str:
        return path if path.startswith("/") else f"/console/t/{self.tenant}/{path}"


@dataclass
class Visits:
    """The operator, and the admins of `acme` (keeps content) and `rival`; `keys` are the two tenants'."""

    here: Installation
    echo: Echo
    operator: Visitor
    acme: Visitor
    rival: Visitor
    keys: list[str]

    async def asked(self, prompt: str = "hello", *, tenant: str = "acme", **changed: Any) -> str:
        """One inference is written; its id."""
        one = new_inference_id(self.here.current.snapshot.secret, tenant)
        messages = [{"role": "user", "content": prompt}]
        row = inference(self.here, one, tenant, **{"messages": messages, "answer": "an answer", **changed})
        await write_inferences(self.here.db, [row])
        return one

    async def said(self, key: str, inference_id: str, metric: str, value: Any, **more: Any) -> str:
        """Feedback, over the API; its id."""
        body = {"inference_id": inference_id, "metric": metric, "value": value, **more}
        reply = await self.here.request("POST", "/v1/feedback", body, key=key)
        assert reply.is_success, reply.text
        return str(reply.json()["id"])

    async def export(self, tenant: str = "acme") -> list[dict[str, Any]]:
        """The judged answers, as the trainer gets them."""
        reply = await self.here.request("GET", f"/admin/v1/export?tenant={tenant}&format=judged")
        assert reply.is_success, reply.text
        return [json.loads(line) for line in reply.text.splitlines()]


def inference(here: Installation, one: str, tenant: str, *, user: str = "ann", **changed: Any) -> Inference:
    secret = here.current.snapshot.secret
    served = changed.get("served", "base")
    fields: dict[str, Any] = {
        "id": one, "tenant": tenant, "key_id": "key-1", "created_at": datetime.now(UTC) - timedelta(seconds=90),
        "endpoint": "/v1/chat/completions", "alias": "support", "alias_revision": 1, "experiment": None,
        "variant": served, "assigned": served, "served": served, "served_digest": None, "reason": "static",
        "propensity": 1.0, "unit": unit_of(secret, tenant, user), "episode": None, "stream": True, "params": {},
        "status": 200, "outcome": "ok", "input_tokens": 10, "output_tokens": 4, "ttft_ms": 20.0, "duration_ms": 90.0,
    }  # fmt: skip
    return Inference(**{**fields, **changed})


@asynccontextmanager
async def visits(db: Database, directory: Path) -> AsyncIterator[Visits]:
    """Everybody signed in."""
    async with installed(db, directory) as here:
        echo = Echo()
        echo.here = here
        console.mount(here.app, replace(here.rooms, door=echo))
        keys = [await here.tenant("acme", store_content=True), await here.tenant("rival")]
        transport = httpx.ASGITransport(app=here.app)
        made = [httpx.AsyncClient(transport=transport, base_url=HOST) for _ in range(3)]
        people = [await _signed_in(http, key) for http, key in zip(made, (ADMIN_KEY, *keys), strict=True)]
        people[2].tenant = "rival"
        yield Visits(here, echo, *people, keys)
        for http in made:
            await http.aclose()


async def _signed_in(http: httpx.AsyncClient, key: str) -> Visitor:
    reply = await http.post("/console/sign-in", data={"key": key}, headers={"origin": HOST})
    assert reply.status_code == 303, reply.text
    landed = await http.get("/console/", follow_redirects=True)
    token = re.search(r'name="csrf" value="([0-9a-f]+)"', landed.text)
    assert token is not None, landed.text
    return Visitor(http, token[1])


def field_of(page: str, name: str) -> str:
    """The value of a form's hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return html.unescape(found[1])
