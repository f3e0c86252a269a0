"""Adapters: a tenant's versions, where each came from, what its gate said, what serves it and which engine holds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from adapters.manifest import Gate, Manifest
from adapters.ref import AdapterRef
from gateway.api.shapes import own_version
from gateway.console.here import Here, Place
from gateway.console.lineage import Graph, Serving, graph
from gateway.control.names import unknown_adapter
from gateway.domain import Adapter, Alias
from gateway.store import workers

router = APIRouter()
PLACE = Place("adapters", "Adapters")

NEWEST = 60
"""Versions of a page: each has a manifest in the store, which may be a bucket far away."""
DRAWN = 10
"""Versions of one adapter in its graph; a person sees no more at once."""
VERDICTS = {"accepted": "good", "refused": "bad", "undecided": "warn"}


@dataclass(frozen=True, slots=True)
class Version:
    """All that a page shows of one. `holding` of `workers` report that their engine holds it, `failed` why one cannot.

    `manifest` is None where the store does not give it at the moment.
    """

    adapter: Adapter
    manifest: Manifest | None
    serving: Sequence[Serving]
    holding: int
    workers: int
    failed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of a gate: the candidate's, the other's, by how much the candidate is better, and its interval."""

    name: str
    candidate: float | None
    other: float | None
    difference: float | None
    low: float | None
    high: float | None


@router.get("/t/{tenant}/adapters")
async def index(here: Here) -> Response:
    """By name, the newest version first, with the graph of each name."""
    found = await versions(here)
    names: dict[str, list[Version]] = defaultdict(list)
    for one in found:
        names[one.adapter.ref.name].append(one)
    graphs = {name: _graph(of[:DRAWN]) for name, of in names.items()}
    return here.page("adapters.jinja", title="Adapters", names=names, graphs=graphs, verdicts=VERDICTS, newest=NEWEST)


@router.get("/t/{tenant}/adapters/{name}/{version}")
async def show(here: Here, name: str, version: str) -> Response:
    ref = own_version(here.tenant, f"{here.tenant}/{name}@{version}")
    found = next((one for one in await versions(here, only=ref) if one.adapter.ref == ref), None)
    if found is None:
        raise unknown_adapter(ref)
    gate = found.manifest.gate if found.manifest else None
    return here.page(
        "adapter.jinja",
        title=str(ref),
        one=found,
        verdicts=VERDICTS,
        held_out=compared(gate),
        regression=compared(gate, "regression."),
        other=(gate.compared_with if gate else None) or "base",
    )


async def versions(here: Here, only: AdapterRef | None = None) -> list[Version]:
    """The tenant's, by name, the newest first: all of them, or one."""
    known = [one for one in await here.rooms.adapters.list(here.tenant) if only in (None, one.ref)]
    known = sorted(known, key=lambda one: (one.ref.name, -one.ref.version))[:NEWEST]
    aliases = await here.rooms.aliases.list(here.tenant)
    reports = await workers.live(here.rooms.db)
    found = []
    for one in known:
        name = str(one.ref)
        holding = sum(name in report.resident for report in reports)
        failed = sorted({report.failed[name] for report in reports if name in report.failed})
        manifest = await here.manifest(one)
        found.append(Version(one, manifest, serving(aliases, one.ref), holding, len(reports), failed))
    return found


def serving(aliases: Iterable[Alias], ref: AdapterRef) -> list[Serving]:
    """The aliases that send something to a version, and the share that each of their variants gets."""
    found = []
    for alias in aliases:
        weights = sum(arm.weight for arm in alias.variants)
        found += [Serving(alias.name, arm.name, arm.weight / weights) for arm in alias.variants if arm.ref == ref]
        if alias.shadow is not None and alias.shadow.ref == ref:
            found.append(Serving(alias.name, "shadow", alias.shadow.share))
    return found


def compared(gate: Gate | None, prefix: str = "") -> list[Compared]:
    """A gate's figures as rows (trainer/gate/report.py names them), those with a difference first."""
    if gate is None:
        return []
    figures: Mapping[str, float] = gate.figures
    start = f"{prefix}candidate."
    found = []
    for name in (key.removeprefix(start) for key in figures if key.startswith(start)):
        mine = f"{prefix}candidate.{name}"
        others = [key for key in figures if key.endswith(f".{name}") and key.startswith(prefix) and key != mine]
        others = [key for key in others if key.removeprefix(prefix).split(".")[0] not in ("difference", "regression")]
        other = figures[others[-1]] if others else None
        ends = [figures.get(f"{prefix}difference.{name}{end}") for end in ("", ".low", ".high")]
        found.append(Compared(name, figures.get(mine), other, *ends))
    return sorted(found, key=lambda one: one.difference is None)


def _graph(found: Sequence[Version]) -> Graph:
    return graph([(one.adapter, one.manifest, one.serving) for one in found])
