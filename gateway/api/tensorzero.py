"""POST /feedback as TensorZero's clients send it: their names for what `/v1/feedback` takes, their errors, UUIDs.

Its other half, `/inference`, is the data plane's; docs/moving-from-tensorzero.md describes both. Their built-in metrics
`comment` and `demonstration` are metrics that each tenant begins with.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, FiniteFloat, JsonValue, ValidationError
from starlette.responses import JSONResponse, Response

from gateway.api.auth import speaking_tenant
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.errors import describe
from gateway.api.shapes import Body
from gateway.domain import Scope
from gateway.errors import GatewayError, InvalidRequest
from gateway.feedback.intake import FeedbackBody


class TensorZeroRoute(IdentifiedRoute):
    """A route whose errors have TensorZero's shape: `{"error": "a sentence"}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def door(request: Request) -> Response:
            try:
                return await answer(request)
            except RequestValidationError as error:
                return _refused(describe(error.errors()))
            except GatewayError as error:
                return _refused(error)

        return door


router = APIRouter(tags=["tensorzero"], route_class=TensorZeroRoute, include_in_schema=False)

Label = Annotated[str, Field(max_length=512)]


class Judgement(Body):
    """Their request. What only their own gateway has a use for is taken and dropped."""

    metric_name: str = Field(min_length=1, max_length=64)
    value: bool | FiniteFloat | str | list[JsonValue] | dict[str, JsonValue]
    inference_id: Annotated[str, Field(max_length=64)] | None = None
    episode_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    tags: dict[str, Label] | None = None
    dryrun: bool | None = None
    internal: bool | None = None


@router.post("/feedback")
async def give(body: Judgement, rooms: RoomsHere, caller: CallerHere) -> dict[str, str]:
    """Durable once answered, unless it is a dry run."""
    tenant = speaking_tenant(caller, Scope.FEEDBACK)
    if body.dryrun:
        feedback = await rooms.intake.check(tenant, _said(body))
    else:
        feedback, _ = await rooms.intake.accept(tenant, _said(body))
    return {"feedback_id": str(uuid.UUID(feedback.id.removeprefix("fb-")))}


def _said(body: Judgement) -> FeedbackBody:
    try:
        return FeedbackBody(
            inference_id=body.inference_id,
            episode_id=_episode(body.episode_id),
            metric=body.metric_name,
            value=_value(body.value),
        )
    except ValidationError as error:
        raise describe(error.errors()) from None


def _episode(text: str | None) -> str | None:
    """As `/inference` remembers it: with hyphens."""
    try:
        return str(uuid.UUID(text)) if text is not None else None
    except ValueError:
        raise InvalidRequest("episode_id is no UUID.", param="episode_id") from None


def _value(value: Any) -> bool | float | str:
    """Of an ideal answer, which comes as the answers do, its text: blocks of text, or what a schema asked for."""
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list):
        value = "".join(_text(block) for block in value)
    return value  # type: ignore[no-any-return]  # what is left is one of the three


def _text(block: Any) -> str:
    text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
    if not isinstance(text, str):
        raise InvalidRequest(
            "An ideal answer is text.", remedy="Send a string, or a list of blocks of type `text`.", param="value"
        )
    return text


def _refused(error: GatewayError) -> Response:
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else None
    return JSONResponse({"error": error.message}, error.status, headers)
