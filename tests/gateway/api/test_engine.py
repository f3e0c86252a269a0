"""What the control plane tells of the engine, and how it renders a chat."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.api.installation import Installation

CHAT = [{"role": "system", "content": "brief"}, {"role": "user", "content": "hi"}]


async def test_a_tenants_admin_has_a_chat_rendered_by_the_engine(here: Installation):
    key = await here.tenant("acme", "admin")
    told = await here.call("POST", "/engine/render", {"messages": CHAT}, key=key)
    assert told == {"ids": [5, 2, 0]}
    told = await here.call("POST", "/engine/render", {"messages": CHAT, "add_generation_prompt": False})
    assert told == {"ids": [5, 2]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "who?"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}]}, None),
        ({"messages": CHAT, "chat_template": "{{ x }}"}, "chat_template"),
        ({}, "messages"),
    ],
)
async def test_what_is_no_chat_is_refused_before_the_engine_sees_it(here: Installation, body: Any, param: str | None):
    reply = await here.request("POST", "/admin/v1/engine/render", body)
    assert reply.status_code == 400, reply.text
    assert param is None or reply.json()["error"]["param"] == param


async def test_a_key_for_evaluations_is_minted_like_any_other(here: Installation):
    admin = await here.tenant("acme", "admin")
    made = await here.call("POST", "/tenants/acme/keys", {"scopes": ["inference", "evaluate"]}, key=admin)
    assert made["scopes"] == ["evaluate", "inference"]
    reply = await here.request("GET", "/admin/v1/engine", key=made["key"])
    assert reply.status_code == 403, "it opens the data plane only"
