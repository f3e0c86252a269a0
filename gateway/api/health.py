"""/healthz, /readyz, /metrics: for load balancers and Prometheus, without a key. They tell nothing of any tenant's."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gateway.api.bodies import RoomsHere
from gateway.errors import Unavailable

router = APIRouter(tags=["health"])

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz", summary="200 as long as the process answers")
async def alive() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="200 when traffic is welcome; 503 with the reason when not")
async def ready(rooms: RoomsHere) -> dict[str, str]:
    reason = rooms.readiness()
    if reason is not None:
        raise Unavailable(f"Not ready: {reason}.", code="not_ready")
    return {"status": "ready"}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(rooms: RoomsHere) -> Response:
    return Response(rooms.metrics_text(), media_type=EXPOSITION)
