"""Lineage as a graph: data, the version that it made, what that went on from, and the aliases that it serves.

Boxes and arrows with places, for a template to draw; newest on top. It knows no page and asks nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from adapters.manifest import Manifest
from gateway.domain import Adapter

ROW, HEIGHT, WIDTH = 76, 52, 210
COLUMNS = (8, 310, 650)
"""Where data, versions and aliases begin."""
LETTERS = 27
"""Of a line in a box."""


@dataclass(frozen=True, slots=True)
class Serving:
    """An alias sends `share` (0 to 1) of its traffic to a version, as `variant`; "shadow" is mirrored traffic."""

    alias: str
    variant: str
    share: float


@dataclass(frozen=True, slots=True)
class Box:
    """`kind` is data, version or alias; `below` is its second line, `whole` what a pointer that rests there reads."""

    kind: str
    x: int
    y: int
    title: str
    below: str
    whole: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """`d` is the line of an SVG path; `kind` is made, continues or serves."""

    kind: str
    d: str
    label: str = ""
    x: int = 0
    y: int = 0


@dataclass(slots=True)
class Graph:
    """In pixels."""

    width: int
    height: int
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)


Known = tuple[Adapter, Manifest | None, Sequence[Serving]]


def graph(versions: Sequence[Known]) -> Graph:
    """Of the versions of one adapter, the newest first."""
    drawn = Graph(COLUMNS[2] + WIDTH + 8, max(1, len(versions)) * ROW + 8)
    rows = {str(adapter.ref): 8 + row * ROW for row, (adapter, _, _) in enumerate(versions)}
    made: dict[str, int] = {}
    aliases: dict[str, int] = {}
    for adapter, manifest, serving in versions:
        y = rows[str(adapter.ref)]
        drawn.boxes.append(_version(adapter, y))
        if manifest is not None:
            _add_data(drawn, made, manifest, y)
        for one in serving:
            if one.alias not in aliases:
                aliases[one.alias] = _free(y, aliases.values())
                drawn.boxes.append(Box("alias", COLUMNS[2], aliases[one.alias], _cut(one.alias), "alias", one.alias))
            text = f"{one.variant}, {one.share * 100:.3g} %"
            drawn.arrows.append(_across("serves", COLUMNS[1] + WIDTH, y, COLUMNS[2], aliases[one.alias], text))
        if adapter.continues is not None and str(adapter.continues) in rows:
            drawn.arrows.append(_along(rows[str(adapter.continues)], y))
    drawn.height = max([drawn.height, *(y + ROW for y in aliases.values())])
    return drawn


def _version(adapter: Adapter, y: int) -> Box:
    ref = adapter.ref
    said = "retired" if adapter.retired else adapter.verdict or "no gate"
    said += f", goes on from @{adapter.continues.version}" if adapter.continues else f", rank {adapter.rank}"
    path = f"adapters/{ref.name}/{ref.version}"
    return Box("version", COLUMNS[1], y, _cut(f"{ref.name}@{ref.version}"), said, str(ref), path)


def _add_data(drawn: Graph, made: dict[str, int], manifest: Manifest, y: int) -> None:
    """One box for the same data, whatever was made of it."""
    lineage = manifest.lineage
    if lineage.dataset_digest not in made:
        made[lineage.dataset_digest] = y
        if lineage.examples:
            title = f"{lineage.examples:,} rows, {lineage.feedback:,} live"
        else:
            title = "imported" if lineage.run_id == "imported" else "rows not counted"
        digest = lineage.dataset_digest.removeprefix("sha256:")[:12]
        drawn.boxes.append(Box("data", COLUMNS[0], y, title, f"data {digest}", lineage.dataset_digest))
    recipe = lineage.recipe or ""
    drawn.arrows.append(_across("made", COLUMNS[0] + WIDTH, made[lineage.dataset_digest], COLUMNS[1], y, recipe))


def _across(kind: str, x: int, y: int, to_x: int, to_y: int, label: str) -> Arrow:
    middle, half = (x + to_x) // 2, HEIGHT // 2
    d = f"M{x} {y + half} C{middle} {y + half} {middle} {to_y + half} {to_x - 7} {to_y + half}"
    return Arrow(kind, d, label, middle, (y + to_y) // 2 + half - 6)


def _along(from_y: int, to_y: int) -> Arrow:
    """From an older version up to the one that went on from it, on the left of both."""
    x, half = COLUMNS[1], HEIGHT // 2
    bend = x - 34
    d = f"M{x} {from_y + half - 8} C{bend} {from_y + half - 8} {bend} {to_y + half + 10} {x - 7} {to_y + half + 10}"
    return Arrow("continues", d)


def _free(y: int, taken: Collection[int]) -> int:
    while y in taken:
        y += ROW
    return y


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
