"""The form that starts an experiment, and the power calculator beside it. What may be started is the room's to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from adapters.ref import AdapterRef
from gateway.api.shapes import own_ref
from gateway.console.here import Fields, Here, Place
from gateway.console.reading import number_of, share_of, whole_number
from gateway.domain import BASE, MetricKind, Unit, Variant
from gateway.errors import GatewayError, InvalidRequest
from gateway.experiment import Allocation, By, Guardrail, Plan, Stage
from gateway.store.automatic import automatic

router = APIRouter()
PLACE: Place | None = None

CANDIDATES = 3
GUARDRAILS = 3
NUMBERS = (MetricKind.BOOLEAN, MetricKind.FLOAT, MetricKind.COUNT, MetricKind.RATIO)
STAGES = (Stage.SHADOW, Stage.CANARY, Stage.EXPERIMENT)


@dataclass(frozen=True, slots=True)
class Choice:
    """A metric that can be chosen."""

    name: str
    better: str
    description: str


@router.get("/t/{tenant}/experiments/new")
async def ask(here: Here, alias: str = "") -> Response:
    return await _form(here, {"alias": alias}, None)


@router.post("/t/{tenant}/experiments")
async def start(here: Here, fields: Fields) -> Response:
    """Start it; or the form again, with what was typed and what is wrong."""
    try:
        name = fields.get("name", "").strip()
        if not 1 <= len(name) <= 200:
            raise InvalidRequest("Give it a name of 1 to 200 characters.")
        started = await here.rooms.experiments.start(
            here.tenant,
            fields.get("alias", ""),
            name=name,
            candidates=_candidates(here, fields) or None,
            plan=_plan(fields),
            unit=Unit(fields.get("unit", Unit.TARGETING_KEY)),
            coverage=share_of(fields, "coverage", 1.0),
            canary_coverage=share_of(fields, "canary_coverage", 0.05),
            layer=fields.get("layer", "").strip() or None,
            stage=Stage(fields.get("stage", Stage.EXPERIMENT)),
            shadow_share=share_of(fields, "shadow_share", 0.1),
            hypothesis=fields.get("hypothesis", "").strip()[:2000],
            owner=fields.get("owner", "").strip()[:200],
            actor=here.actor,
        )
    except GatewayError as error:
        return await _form(here, fields, error)
    except ValueError:  # of a select that no browser sends
        return await _form(here, fields, InvalidRequest("Choose from the lists."))
    return here.go(f"experiments/{started.id}")


async def _form(here: Here, fields: Mapping[str, str], error: GatewayError | None) -> Response:
    versions = [one for one in await here.rooms.adapters.list(here.tenant) if one.servable]
    return here.page(
        "start.jinja",
        title="Start an experiment",
        status=error.status if error else 200,
        message=error.message if error else None,
        fields=fields,
        aliases=await here.rooms.aliases.list(here.tenant),
        versions=[str(one.ref) for one in reversed(versions)],
        metrics=await choices(here),
        candidates=range(1, CANDIDATES + 1),
        guardrails=range(1, GUARDRAILS + 1),
        stages=STAGES,
        units=tuple(Unit),
        plan=Plan(),
    )


async def choices(here: Here) -> list[Choice]:
    """The tenant's own metrics that have numbers, then the automatic ones."""
    own = {one.name: one for one in await here.rooms.metrics.list(here.tenant) if one.kind in NUMBERS}
    currency = here.rooms.judging.currency
    known = {**own, **{name: one for name, one in automatic(here.tenant, currency=currency).items() if name not in own}}
    return [
        Choice(one.name, "larger" if one.optimize == "max" else "smaller", one.description) for one in known.values()
    ]


def _candidates(here: Here, fields: Mapping[str, str]) -> Sequence[Variant]:
    """Those that were chosen, named after their versions."""
    found: list[Variant] = []
    for place in range(1, CANDIDATES + 1):
        text = fields.get(f"candidate-{place}", "")
        if not text:
            continue
        ref = own_ref(here.tenant, text)
        found.append(Variant(_name(ref), number_of(fields, f"weight-{place}", 1.0), ref))
    return found


def _name(ref: AdapterRef | None) -> str:
    return BASE if ref is None else f"{ref.name[:50]}-{ref.version}"


def _plan(fields: Mapping[str, str]) -> Plan:
    usual = Plan()
    rails = [
        Guardrail(name, number_of(fields, f"margin-{place}"), fields.get(f"relative-{place}") == "yes")
        for place in range(1, GUARDRAILS + 1)
        if (name := fields.get(f"guardrail-{place}", ""))
    ]
    for place, rail in enumerate(rails):
        if rail.relative:
            rails[place] = Guardrail(rail.metric, rail.margin / 100, True)
    return Plan(
        primary=fields.get("primary") or None,
        secondaries=tuple(name for name in fields.get("secondaries", "").replace(",", " ").split() if name),
        guardrails=tuple(rails),
        alpha=number_of(fields, "alpha", usual.alpha),
        planned_units=whole_number(fields, "planned_units", usual.planned_units),
        burn_in=whole_number(fields, "burn_in", usual.burn_in),
        cuped_days=whole_number(fields, "cuped_days", usual.cuped_days),
        canary_units=whole_number(fields, "canary_units", usual.canary_units),
        widen=By(fields.get("widen", usual.widen)),
        ship=By(fields.get("ship", usual.ship)),
        roll_back=By(fields.get("roll_back", usual.roll_back)),
        allocation=Allocation(fields.get("allocation", usual.allocation)),
    )
