"""/admin/v1/…/experiments: start, watch and stop a comparison on an alias."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from gateway.api.auth import require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import MAX_PAGE, Body, Name, Variants, experiment_row, page, variants_of
from gateway.api.tenants import OwnTenant
from gateway.control.names import unknown
from gateway.domain import Metric
from gateway.errors import InvalidRequest, NotFound
from gateway.experiment import Experiment
from gateway.feedback.results import ExperimentResults, results

router = APIRouter(prefix="/admin/v1", tags=["experiments"], route_class=IdentifiedRoute)


class NewExperiment(Body):
    """Needs an alias with two variants or more, or brings them along."""

    alias: Name = Field(examples=["support"])
    name: str = Field(min_length=1, max_length=200, examples=["is tuning worth it"])
    metric: Name | None = Field(None, examples=["helpful"])
    variants: Variants | None = Field(None, description="Set in the same swap, when given.")


async def _own_experiment(
    experiment: Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")],
    rooms: RoomsHere,
    caller: CallerHere,
) -> Experiment:
    """The experiment in the path. Unknown and foreign ones answer with the same bytes."""
    require_admin(caller)
    try:
        found = await rooms.experiments.get(experiment)
    except NotFound:
        found = None
    if found is None or not caller.administers(found.tenant):
        raise unknown("experiment", experiment, param="experiment")
    return found


OwnExperiment = Annotated[Experiment, Depends(_own_experiment)]


@router.post("/tenants/{tenant}/experiments", status_code=201, summary="Start an experiment")
async def start(body: NewExperiment, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    variants = variants_of(tenant, body.variants) if body.variants is not None else None
    if body.metric is not None:
        await _metric(rooms, tenant, body.metric)
    started = await rooms.experiments.start(
        tenant, body.alias, name=body.name, metric=body.metric, variants=variants, actor=caller.actor
    )
    return experiment_row(started)


@router.get("/tenants/{tenant}/experiments", summary="List experiments, the newest first")
async def index(
    tenant: OwnTenant,
    rooms: RoomsHere,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    rows = [experiment_row(experiment) for experiment in await rooms.experiments.list(tenant)]
    return page(rows, key="id", limit=limit, after=after)


@router.get("/experiments/{experiment}", summary="Show an experiment")
async def show(found: OwnExperiment) -> dict[str, Any]:
    return experiment_row(found)


@router.post("/experiments/{experiment}/stop", summary="Stop an experiment; the alias keeps its variants")
async def stop(found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    await rooms.experiments.stop(found.id, reason="stopped by hand", actor=caller.actor)
    return experiment_row(await rooms.experiments.get(found.id))


@router.get("/experiments/{experiment}/results", summary="What the experiment has shown so far")
async def show_results(
    found: OwnExperiment,
    rooms: RoomsHere,
    metric: Annotated[str | None, Query(max_length=64, description="The experiment's own when left out.")] = None,
) -> ExperimentResults:
    wanted = metric or found.plan.primary
    return await results(rooms.db, found, await _metric(rooms, found.tenant, wanted) if wanted else None)


async def _metric(rooms: RoomsHere, tenant: str, name: str) -> Metric:
    """A declared metric, read from the database: one declared a moment ago counts. Raises `InvalidRequest`."""
    declared = {metric.name: metric for metric in await rooms.metrics.list(tenant)}
    if name not in declared:
        names = ", ".join(sorted(declared))
        raise InvalidRequest(
            "This metric is not declared for the tenant.",
            remedy=f"Use one of: {names}." if names else f"Declare it: gateway metrics declare {tenant} NAME.",
            param="metric",
            code="metric_not_found",
        )
    return declared[name]
