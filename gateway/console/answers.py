"""One answer: what was asked, by whom it was answered and why by that one, all that was said about it, a better answer
from whoever looks at it, and a fresh one of another version to compare it with.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.console import naming
from gateway.console.asking import Asking
from gateway.console.here import Desk, Fields, Here
from gateway.console.transcript import clean, transcript
from gateway.console.waiting import until
from gateway.control.names import unknown
from gateway.domain import Metric, MetricKind, Tenant
from gateway.errors import Conflict, InvalidRequest, Unavailable
from gateway.feedback.intake import MAX_COMMENT, MAX_TEXT, FeedbackBody
from gateway.identity import canonical_inference_id
from gateway.store import browsing
from gateway.store.browsing import Answer

router = APIRouter()
PLACE = None

SOURCE = "console"
CHAT = "/v1/chat/completions"

REPEATED = ("temperature", "top_p", "max_tokens", "max_completion_tokens")

DECLARED = {
    MetricKind.DEMONSTRATION: "the ideal answer",
    MetricKind.PREFERENCE: "which of two answers is better",
}
"""What a metric that people need here means, where the tenant has none of its kind."""


@router.get("/t/{tenant}/feedback/answers/{answer}")
async def show(here: Here, answer: str) -> Response:
    one = await find(here, answer)
    snapshot = here.rooms.current.snapshot
    return here.page(
        "answer.jinja",
        title="Answer",
        one=one,
        messages=transcript(one.messages),
        answer=None if one.answer is None else clean(one.answer),
        keeps=snapshot.tenants[here.tenant].store_content,
        feedback=await browsing.said_about(here.rooms.db, here.tenant, one),
        metrics=naming.metrics(snapshot, here.tenant, MetricKind.DEMONSTRATION),
        versions=[each for each in naming.versions(snapshot, here.tenant) if each.served != one.served],
        repeatable=repeatable(one) and tenant_of(here).store_content,
        nonce=secrets.token_hex(16),
        most=MAX_TEXT,
        most_comment=MAX_COMMENT,
    )


@router.get("/t/{tenant}/feedback/conversation")
async def conversation(here: Here, episode: Annotated[str, Query(min_length=1, max_length=512)]) -> Response:
    found = [] if "\0" in episode else await browsing.conversation(here.rooms.db, here.tenant, episode)
    if not found:
        raise unknown("conversation", episode, param="episode")
    return here.page("conversation.jinja", title="Conversation", episode=episode, answers=found)


@router.post("/t/{tenant}/feedback/answers/{answer}/correct")
async def correct(here: Here, answer: str, fields: Fields) -> Response:
    """The ideal answer, said by whoever looks at it. The same form sent twice is one feedback."""
    one = await find(here, answer)
    await say(
        here,
        one.id,
        fields.get("metric", ""),
        fields.get("correction", ""),
        nonce=fields.get("nonce", ""),
        correction=fields.get("correction", ""),
        comment=fields.get("comment", "").strip() or None,
    )
    return here.go(f"feedback/answers/{one.id}")


@router.post("/t/{tenant}/feedback/answers/{answer}/again")
async def again(here: Here, answer: str, fields: Fields) -> Response:
    """Ask another version the same, in the name of the same user, and go to compare the two."""
    one = await find(here, answer)
    if not repeatable(one) or not tenant_of(here).store_content:
        raise Conflict("This answer cannot be asked for again.", remedy="Its prompt is not kept, or it was no chat.")
    params = {name: value for name, value in one.params.items() if name in REPEATED}
    body = {"model": fields.get("version", ""), "messages": one.messages, **params}
    asking: Asking = here.request.app.state.asking
    fresh = await asking.whole(here.tenant, body, actor=here.actor, unit=one.unit)
    await written(here, fresh)
    return here.go(f"feedback/pairs?one={one.id}&other={fresh}")


@router.post("/t/{tenant}/feedback/metrics")
async def declare(here: Here, fields: Fields) -> Response:
    """Declare a metric of a kind that people need here, under its kind's name; then back to the page."""
    kind = next((one for one in DECLARED if one.value == fields.get("kind")), None)
    if kind is None:
        raise InvalidRequest("There is no metric of this kind to declare here.", param="kind")
    metric = Metric(here.tenant, kind.value, kind, description=DECLARED[kind])
    await here.rooms.metrics.declare(metric, actor=here.actor)
    await until(lambda: (metric.tenant, metric.name) in here.rooms.current.snapshot.metrics)  # the next page asks it
    back = fields.get("back", "")
    return here.go(
        back if back in ("feedback/pairs", "playground") or back.startswith("feedback/answers/") else "feedback"
    )


async def find(here: Desk, text: str) -> Answer:
    """Raises `NotFound` unless it is one of this tenant's, and written."""
    bare = canonical_inference_id(text)
    found = await browsing.answers(here.rooms.db, here.tenant, [bare]) if bare is not None else []
    if not found:
        raise unknown("answer", text, param="answer")
    return found[0]


def repeatable(one: Answer) -> bool:
    """Whether another version can be asked the same."""
    return one.messages is not None and bool(one.answer) and one.endpoint == CHAT and one.shadow_of is None


async def say(here: Desk, inference: str, metric: str, value: Any, *, nonce: str, **more: Any) -> str:
    """One feedback from the console; its id. Raises what `Intake.accept` does."""
    if not (metric and value and len(nonce) >= 16):
        raise InvalidRequest("Something is missing in the form.", remedy="Fill it in and send it again.")
    body = FeedbackBody(
        inference_id=inference,
        metric=metric[:64],
        value=value,
        source=SOURCE,
        idempotency_key=f"{SOURCE}:{nonce[:64]}",
        **more,
    )
    feedback, _ = await here.rooms.intake.accept(tenant_of(here), body)
    return feedback.id


def tenant_of(here: Desk) -> Tenant:
    return here.rooms.current.snapshot.tenants[here.tenant]


async def written(here: Desk, *ids: str) -> None:
    """Wait until the rows of fresh answers are there. Raises `Unavailable` if the recorder takes too long."""

    async def there() -> bool:
        return len(await browsing.answers(here.rooms.db, here.tenant, ids)) == len(ids)

    if not await until(there, every=0.1):
        raise Unavailable("The fresh answer is not recorded yet.", remedy="Try again shortly.")
