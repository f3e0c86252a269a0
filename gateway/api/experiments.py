"""/admin/v1/…/experiments: start a comparison on an alias, lead it from stage to stage, watch it, end it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field, FiniteFloat, JsonValue, field_validator

from gateway.api.auth import require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import MAX_PAGE, Body, Name, Variants, experiment_row, page, variants_of
from gateway.api.tenants import OwnTenant
from gateway.control.names import unknown
from gateway.domain import Metric, Unit
from gateway.errors import InvalidRequest, NotFound
from gateway.experiment import Allocation, By, Experiment, Guardrail, Plan, Stage
from gateway.feedback.results import ExperimentResults, results
from gateway.feedback.tallies import Tallies
from gateway.store.automatic import automatic

router = APIRouter(prefix="/admin/v1", tags=["experiments"], route_class=IdentifiedRoute)


Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Note = Annotated[str, Field(max_length=2000)]
Why = Annotated[str, Field(min_length=1, max_length=2000)]
WhyInQuery = Annotated[str, Query(max_length=2000, pattern=r"^[^\x00]*$", description="For the audit log.")]
MAX_FIGURES = 20_000
USUAL = Plan()


class GuardrailBody(Body):
    """A candidate may be worse than the control by `margin`: in the metric's unit, or a share of the control's mean."""

    metric: Name = Field(examples=["latency"])
    margin: FiniteFloat = Field(ge=0, examples=[0.1])
    relative: bool = False


class PlanBody(Body):
    """What is fixed before the first look. `planned_units` is N*, of both compared arms together."""

    primary: Name | None = Field(None, examples=["resolved"])
    secondaries: list[Name] = Field(default_factory=list)
    guardrails: list[GuardrailBody] = Field(default_factory=list)
    alpha: FiniteFloat = USUAL.alpha
    planned_units: int = Field(USUAL.planned_units, le=10**9)
    burn_in: int = Field(USUAL.burn_in, le=10**9)
    cuped_days: int = USUAL.cuped_days
    canary_units: int = Field(USUAL.canary_units, le=10**9)
    widen: Annotated[By, Field(strict=False)] = USUAL.widen
    ship: Annotated[By, Field(strict=False)] = USUAL.ship
    roll_back: Annotated[By, Field(strict=False)] = USUAL.roll_back
    allocation: Annotated[Allocation, Field(strict=False)] = USUAL.allocation

    def plan(self) -> Plan:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        guardrails = tuple(Guardrail(one.metric, one.margin, one.relative) for one in self.guardrails)
        return Plan(**{**given, "secondaries": tuple(self.secondaries), "guardrails": guardrails})


class NewExperiment(Body):
    """Give `variants`, the first of them as the control; or `candidates` against what the alias serves now; or neither,
    where the alias has two variants or more. `metric` is short for a plan with that primary metric."""

    alias: Name = Field(examples=["support"])
    name: str = Field(min_length=1, max_length=200, examples=["is tuning worth it"])
    hypothesis: Note = Field("", examples=["The tuned model resolves more tickets at the first answer."])
    owner: str = Field("", max_length=200, description="Whoever starts it, if left out.")
    metric: Name | None = Field(None, examples=["helpful"])
    variants: Variants | None = Field(None, description="Set in the same swap, when given.")
    candidates: Variants | None = None
    plan: PlanBody | None = None
    unit: Annotated[Unit, Field(strict=False)] = Unit.TARGETING_KEY
    coverage: Share = Field(1.0, description="Of the units that take part at the stage `experiment`.")
    canary_coverage: Share | None = Field(None, description="At the stage `canary`: 0.05, or the coverage if less.")
    layer: Name | None = Field(None, description="No unit takes part in two experiments of one layer.")
    stage: Annotated[Stage, Field(strict=False)] = Stage.EXPERIMENT
    shadow_share: Share = Field(0.1, description="Of the requests that are mirrored at the stage `shadow`.")


class Reasoned(Body):
    """Why a step is taken, and the figures that it rests on, for the audit log."""

    why: Why = Field(examples=["resolved 31 % more tickets, interval 12 % to 50 %"])
    figures: dict[str, JsonValue] | None = None

    @field_validator("figures")
    @classmethod
    def _of_a_size(cls, figures: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if len(json.dumps(figures)) > MAX_FIGURES:
            raise ValueError(f"the figures are longer than {MAX_FIGURES} characters")
        return figures


class Promotion(Reasoned):
    """The candidate that the alias is to serve alone."""

    variant: Name = Field(examples=["tuned"])


class Weights(Reasoned):
    """Relative weights of all variants, by name. 0: nobody any more."""

    weights: dict[Name, FiniteFloat] = Field(examples=[{"base": 1, "tuned": 3}])


class Coverage(Body):
    """The share of the units that is to take part; it only grows."""

    coverage: Share = Field(examples=[0.5])
    why: Note = ""


class Tester(Body):
    """A user who gets `variant` whatever is drawn, and is left out of the analysis; null: as everybody again."""

    targeting_key: str = Field(min_length=1, max_length=512, examples=["qa-4"])
    variant: Name | None = Field(examples=["tuned"])


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
    started = await rooms.experiments.start(
        tenant,
        body.alias,
        name=body.name,
        metric=body.metric,
        variants=variants_of(tenant, body.variants) if body.variants is not None else None,
        candidates=variants_of(tenant, body.candidates) if body.candidates is not None else None,
        plan=body.plan.plan() if body.plan is not None else None,
        unit=body.unit,
        coverage=body.coverage,
        canary_coverage=body.canary_coverage,
        layer=body.layer,
        stage=body.stage,
        shadow_share=body.shadow_share,
        hypothesis=body.hypothesis,
        owner=body.owner,
        actor=caller.actor,
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


@router.post("/experiments/{experiment}/advance", summary="Go on to the next stage: shadow, canary, experiment")
async def advance(body: Reasoned, found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    step = rooms.experiments.advance(found.id, why=body.why, figures=body.figures, actor=caller.actor)
    return experiment_row(await step)


@router.post("/experiments/{experiment}/pause", summary="Everybody gets the control, and nothing is counted")
async def pause(found: OwnExperiment, rooms: RoomsHere, caller: CallerHere, why: WhyInQuery = "") -> dict[str, Any]:
    return experiment_row(await rooms.experiments.pause(found.id, why=why, actor=caller.actor))


@router.post("/experiments/{experiment}/resume", summary="Everybody gets back to their variant")
async def resume(found: OwnExperiment, rooms: RoomsHere, caller: CallerHere, why: WhyInQuery = "") -> dict[str, Any]:
    return experiment_row(await rooms.experiments.resume(found.id, why=why, actor=caller.actor))


@router.post("/experiments/{experiment}/promote", summary="End it: the alias serves a candidate alone")
async def promote(body: Promotion, found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    step = rooms.experiments.promote(found.id, body.variant, why=body.why, figures=body.figures, actor=caller.actor)
    return experiment_row(await step)


@router.post("/experiments/{experiment}/rollback", summary="End it: the alias serves the control alone")
async def rollback(body: Reasoned, found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    step = rooms.experiments.roll_back(found.id, why=body.why, figures=body.figures, actor=caller.actor)
    return experiment_row(await step)


@router.post("/experiments/{experiment}/stop", summary="End it without a judgement: the alias serves the control alone")
async def stop(
    found: OwnExperiment, rooms: RoomsHere, caller: CallerHere, why: WhyInQuery = "stopped by hand"
) -> dict[str, Any]:
    return experiment_row(await rooms.experiments.stop(found.id, reason=why, actor=caller.actor))


@router.post("/experiments/{experiment}/weights", summary="Deal users out by other weights, moving as few as possible")
async def weights(body: Weights, found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    names = [variant.name for variant in found.variants]
    if set(body.weights) != set(names):
        raise InvalidRequest("Give each variant a weight.", remedy=f"They are: {', '.join(names)}.", param="weights")
    ordered = [body.weights[name] for name in names]
    step = rooms.experiments.reweight(found.id, ordered, why=body.why, figures=body.figures, actor=caller.actor)
    return experiment_row(await step)


@router.post("/experiments/{experiment}/coverage", summary="Let a larger share of the units take part")
async def coverage(body: Coverage, found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    step = rooms.experiments.widen(found.id, body.coverage, why=body.why, actor=caller.actor)
    return experiment_row(await step)


@router.post("/experiments/{experiment}/overrides", summary="Give a tester a variant, or what everybody gets")
async def override(body: Tester, found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    step = rooms.experiments.override(found.id, body.targeting_key, body.variant, actor=caller.actor)
    return experiment_row(await step)


@router.get("/experiments/{experiment}/results", summary="What the experiment has shown so far")
async def show_results(
    found: OwnExperiment,
    rooms: RoomsHere,
    metric: Annotated[str | None, Query(max_length=64, description="The experiment's own when left out.")] = None,
) -> ExperimentResults:
    wanted = metric or found.plan.primary
    return await results(rooms.db, found, await _metric(rooms, found.tenant, wanted) if wanted else None)


@router.post(
    "/experiments/{experiment}/rebuild", status_code=202, summary="Work all its figures out anew from the raw rows"
)
async def rebuild(found: OwnExperiment, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    """It is done in the background; figures stay what they are until then. `docs/tallies.md` says when it is of use."""
    await Tallies(rooms.db).begin_rebuild(found.id, actor=caller.actor)
    return experiment_row(found)


async def _metric(rooms: RoomsHere, tenant: str, name: str) -> Metric:
    """A metric of the tenant, read from the database (one declared a moment ago counts), or an automatic one. Raises
    `InvalidRequest`."""
    known = {**automatic(tenant, currency=""), **{metric.name: metric for metric in await rooms.metrics.list(tenant)}}
    if name not in known:
        raise InvalidRequest(
            "This metric is not declared for the tenant.",
            remedy=f"Declare it (gateway metrics declare {tenant} NAME), or use one of: {', '.join(sorted(known))}.",
            param="metric",
            code="metric_not_found",
        )
    return known[name]
