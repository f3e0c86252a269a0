"""Readable in light and dark, by everybody: WCAG's contrast of every rendered text, names for what can be reached, no
page wider than a telephone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.console.conftest import Desk

pytestmark = pytest.mark.long

OTHERS = ("traffic", "feedback", "feedback/pairs", "playground", "audit", "keys")
PAGES = ("experiments", "experiments/new", "experiments/RUNNING", "adapters", "adapters/support/3", "rounds", *OTHERS)

# Every element with text of its own: its colour, and the grounds from it up to the first that is opaque.
_TEXTS = """() => {
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest(".u-wrap, [disabled]")) continue;
    const style = getComputedStyle(one), grounds = [];
    for (let at = one; at; at = at.parentElement) grounds.push(getComputedStyle(at).backgroundColor);
    const drawn = one.namespaceURI.endsWith("svg");
    const box = drawn ? one.closest("g")?.querySelector("rect") : null;
    if (box) grounds.unshift(getComputedStyle(box).fill);
    const colour = drawn ? style.fill : style.color, text = one.textContent.trim().slice(0, 40);
    found.push([colour, grounds, parseFloat(style.fontSize), text]);
  }
  return found;
}"""
_NAMELESS = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, summary")]
  .filter((one) => one.checkVisibility() && !(one.innerText?.trim() || one.labels?.length || one.ariaLabel))
  .map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(desk: Desk, scheme: Any) -> None:
    desk.page.emulate_media(color_scheme=scheme)
    seen = 0
    for path in PAGES:
        page = _open(desk, path)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for colour, grounds, size, text in page.evaluate(_TEXTS):
            ground = next(one for one in map(_rgba, grounds) if one[3] == 1)
            ratio = contrast(_rgba(colour), ground)
            assert ratio >= (3 if size >= 24 else 4.5), (path, scheme, text, colour, ground, round(ratio, 2))
            seen += 1
    assert seen > 300
    ground = _rgba(desk.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ground[0] < 60) is (scheme == "dark")


def test_whatever_can_be_reached_has_a_name_and_a_heading_leads(desk: Desk) -> None:
    for path in PAGES:
        page = _open(desk, path)
        assert page.evaluate(_NAMELESS) == [], path
        assert page.locator("h1").count() == 1, path
        assert page.locator("html[lang=en]").count() and page.title().endswith("Tuneloop")


def test_the_focus_is_seen_and_follows_the_page(desk: Desk) -> None:
    page = _open(desk, "experiments")
    places = []
    for _ in range(9):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")
        places.append(page.evaluate("document.activeElement.innerText"))
    assert places[0] == "Skip to the content" and "Experiments" in places


def test_on_a_telephone_the_page_is_not_wider_than_the_screen(desk: Desk) -> None:
    desk.page.set_viewport_size({"width": 390, "height": 800})
    for path in PAGES:
        page = _open(desk, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2's contrast ratio of two opaque colours."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[float, ...]) -> float:
    parts = [part / 255 for part in colour[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rgba(text: str) -> tuple[float, ...]:
    parts = [float(part) for part in text[text.index("(") + 1 : -1].replace("/", ",").split(",")]
    return tuple(parts) if len(parts) == 4 else (*parts, 1.0)


def _open(desk: Desk, path: str) -> Page:
    page = desk.go(path.replace("RUNNING", desk.site.experiments["running"]))
    page.wait_for_load_state("networkidle")
    return page
