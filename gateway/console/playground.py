"""The playground: one prompt, several versions side by side as they answer, with names or blind, and which is best.

Each answer is a request of its own through the data plane's door (asking.py). The browser gets lines of JSON:
`{"text": "…"}` as it comes, and at the end `{"done": {…}}` or `{"error": "…"}`. Votes are preferences like any other.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.console import naming
from gateway.console.answers import say, tenant_of, written
from gateway.console.asking import Asking, problem
from gateway.console.here import Desk, Fields, Here, Place
from gateway.console.reading import number_of, whole_number
from gateway.domain import MetricKind
from gateway.errors import GatewayError, InvalidRequest
from gateway.identity import canonical_inference_id, unit_of
from gateway.serving.inside import Reply

router = APIRouter()
PLACE = Place("playground", "Playground")

MOST = 4
"""Versions side by side: what fits on a screen, and fewer than the connections that a browser opens to one host."""
MOST_TEXT = 100_000


@router.get("/t/{tenant}/playground")
async def index(here: Here) -> Response:
    snapshot = here.rooms.current.snapshot
    return here.page(
        "playground.jinja",
        title="Playground",
        versions=naming.versions(snapshot, here.tenant),
        metrics=naming.metrics(snapshot, here.tenant, MetricKind.PREFERENCE),
        keeps=tenant_of(here).store_content,
        most=MOST,
        most_text=MOST_TEXT,
    )


@router.post("/t/{tenant}/playground/answer")
async def answer(here: Here, fields: Fields) -> Response:
    """One version's answer, line by line while it comes."""
    body = asked(fields)
    return StreamingResponse(_lines(here, body), media_type="application/x-ndjson")


@router.post("/t/{tenant}/playground/vote")
async def vote(here: Here, fields: Fields) -> Response:
    """The best answer over each of the others. The same vote sent twice counts once."""
    winner, losers = fields.get("winner", ""), [one for one in fields.get("losers", "").split(",") if one]
    nonce, metric = fields.get("nonce", ""), fields.get("metric", "")
    try:
        if not 1 <= len(losers) < MOST:
            raise InvalidRequest("A vote is about two to four answers.")
        for place, loser in enumerate(losers):
            await say(here, winner, metric, loser, nonce=f"{nonce[:60]}-{place}" if nonce else "")
        await written(here, *(canonical_inference_id(one) or "" for one in (winner, *losers)))
    except GatewayError as error:
        return JSONResponse({"error": error.message}, status_code=error.status)
    return JSONResponse({"kept": len(losers)})


def asked(fields: dict[str, str]) -> dict[str, Any]:
    """The request that the form means. Raises `InvalidRequest`; what is out of range, the door refuses."""
    prompt, system = fields.get("prompt", ""), fields.get("system", "").strip()
    if not prompt.strip() or len(prompt) + len(system) > MOST_TEXT:
        raise InvalidRequest(f"Write a prompt of at most {MOST_TEXT:,} characters.", param="prompt")
    messages = [{"role": "user", "content": prompt}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return {
        "model": fields.get("version", ""),
        "messages": messages,
        "temperature": number_of(fields, "temperature"),
        "max_tokens": whole_number(fields, "max_tokens"),
        **options,
    }


async def _lines(here: Desk, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """What goes to the browser. It has begun with a 200, so whatever goes wrong is a line, too."""
    asking: Asking = here.request.app.state.asking
    unit = unit_of(here.rooms.current.snapshot.secret, here.tenant, f"console:{here.actor}")
    try:
        async with asking.ask(here.tenant, body, actor=here.actor, unit=unit) as reply:
            async for line in _told(reply):
                yield line
    except GatewayError as error:
        yield _line(error=error.message)


async def _told(reply: Reply) -> AsyncIterator[bytes]:
    if reply.status != 200:
        yield _line(error=problem(reply.status, await reply.read()).message)
        return
    usage, finish = dict[str, Any](), None
    async for piece in reply.pieces():
        for event in piece.split(b"\n\n"):
            said = event.removeprefix(b"data: ").strip()
            if said in (b"", b"[DONE]") or not event.startswith(b"data: "):
                continue
            chunk = json.loads(said)
            if "error" in chunk:
                yield _line(error=str(chunk["error"].get("message")))
                return
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", ()):
                finish = choice.get("finish_reason") or finish
                if text := choice.get("delta", {}).get("content"):
                    yield _line(text=text)
    yield _line(
        done={
            "id": canonical_inference_id(reply.headers.get("x-inference-id", "")),
            "tokens": usage.get("completion_tokens"),
            "finish": finish,
        }
    )


def _line(**told: Any) -> bytes:
    return json.dumps(told).encode() + b"\n"
