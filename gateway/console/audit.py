"""The audit log: who changed what, when and why, with the figures that were known; the newest first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.console import words
from gateway.console.here import Desk, Here, OperatorHere, Place
from gateway.errors import InvalidRequest
from gateway.store import audit
from gateway.store.audit import Entry, Wanted

router = APIRouter()
PLACE = Place("audit", "Audit log")

PAGE = 100
RULE = "rule"
"""Whom the log names for a step that a plan's rule took."""

ENDS = ("difference", "low", "high")
MOST = 1e300
"""A larger number is nobody's figure, and JSON has them of any length."""

Text = Annotated[str, Query(max_length=160)]
Before = Annotated[int | None, Query(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class Row:
    """One entry, ready to be read. `facts` are name and text; `figures` an experiment's, of the time of the step."""

    entry: Entry
    why: str
    facts: list[tuple[str, str]]
    figures: list[Mapping[str, Any]]

    @property
    def by_rule(self) -> bool:
        return self.entry.actor == RULE


@router.get("/t/{tenant}/audit")
async def index(here: Here, action: Text = "", subject: Text = "", actor: Text = "", before: Before = None) -> Response:
    """The tenant's own."""
    return await _page(here, here.tenant, {"action": action, "subject": subject, "actor": actor}, before)


@router.get("/log")
async def everything(
    here: OperatorHere, action: Text = "", subject: Text = "", actor: Text = "", before: Before = None
) -> Response:
    """Of all tenants, and of the installation itself."""
    return await _page(here, None, {"action": action, "subject": subject, "actor": actor}, before)


async def _page(here: Desk, tenant: str | None, asked: Mapping[str, str], before: int | None) -> Response:
    asked = {name: text.strip() for name, text in asked.items() if text.strip()}
    if any("\0" in text for text in asked.values()):
        raise InvalidRequest("The filter holds a NUL character.", remedy="Remove it.")
    wanted = Wanted(**{name: asked.get(name) for name in ("action", "subject", "actor")})
    found = await audit.entries(here.rooms.db, tenant, PAGE + 1, wanted=wanted, before=before)
    more, found = len(found) > PAGE, found[:PAGE]
    return here.page(
        "audit.jinja",
        title="Audit log",
        rows=[told(entry) for entry in found],
        asked=asked,
        whose=tenant,
        first=before is None,
        older="?" + urlencode({**asked, "before": found[-1].id}) if more else None,
    )


def told(entry: Entry) -> Row:
    """An entry in words."""
    detail = dict(entry.detail)
    why = str(detail.pop("why", None) or detail.pop("reason", None) or "")
    shown, figures = detail.get("figures"), list[Mapping[str, Any]]()
    if isinstance(shown, Mapping):
        listed = shown.get("figures")
        figures = listed if isinstance(listed, list) and all(map(_ours, listed)) else []
        # The sentence is why, and figures like ours have a table.
        detail["figures"] = {
            part: value
            for part, value in shown.items()
            if part not in ("sentence", "variant") and not (part == "figures" and figures)
        }
    return Row(entry, why, list(_facts(detail)), figures)


def _ours(figure: Any) -> bool:
    """Whether it is as `evaluation.figures.brief` makes them: over the API, a step's figures are whatever one sends."""
    if not isinstance(figure, Mapping):
        return False
    numbers = (figure.get(name) for name in ENDS)
    return (
        all(isinstance(figure.get(name), str) for name in ("metric", "variant", "role", "status"))
        and all(one is None or _is_number(one) for one in numbers)
        and isinstance(figure.get("unit", ""), str)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < MOST


def _facts(detail: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in detail.items():
        label = f"{before}{words.spaced(name)}"
        if name == "figures" and isinstance(value, Mapping) and not before:
            yield from _facts(value)
        elif isinstance(value, Mapping):
            yield from _facts(value, f"{label} ")
        elif value is not None and value not in ("", []):
            yield label, words.short(value) if name == "digest" and isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float() if _is_number(value):
            return words.number(value, 6)
        case str():
            return value
        case [*items] if all(isinstance(one, str | int | float) for one in items):
            return ", ".join(_text(one) for one in items)
        case [*items] if all(isinstance(one, Mapping) and "name" in one and "weight" in one for one in items):
            return "; ".join(
                f"{one['name']} {one.get('ref') or 'base'}, weight {_text(one['weight'])}" for one in items
            )
        case _:
            return json.dumps(value, ensure_ascii=False)
