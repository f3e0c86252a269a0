"""Readable in light and dark, by everybody: WCAG's contrast of every rendered text, names for what can be reached, no
page wider than a telephone."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Page

from tests.console.conftest import Desk

pytestmark = pytest.mark.long

OTHERS = ("traffic", "feedback", "feedback/pairs", "playground", "audit", "keys")
PAGES = ("experiments", "experiments/new", "experiments/RUNNING", "adapters", "adapters/support/3", "rounds", *OTHERS)

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

# Every element with text of its own (of long tables the first rows): its colour, and the grounds from it up to the
# first that is opaque.
_TEXTS = """() => {
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest(".u-wrap, [disabled], tr:nth-child(n+6)")) continue;
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


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_readable_in_light_and_dark_by_name_and_on_a_telephone(desk: Desk, path: str) -> None:
    page = _open(desk, path)
    _check_names(page)
    page.evaluate("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        _check_contrast(page, dark=scheme == "dark")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def _check_names(page: Page) -> None:
    """Whatever can be reached has a name, and one heading leads."""
    assert page.evaluate(_NAMELESS) == []
    assert page.locator("h1").count() == 1
    assert page.locator("html[lang=en]").count() and page.title().endswith("Tuneloop")


def _check_contrast(page: Page, *, dark: bool) -> None:
    texts = page.evaluate(_TEXTS)
    assert len(texts) > 10
    for colour, grounds, size, text in texts:
        ground = next(one for one in map(_rgba, grounds) if one[3] == 1)
        ratio = contrast(_rgba(colour), ground)
        assert ratio >= (3 if size >= 24 else 4.5), (dark, text, colour, ground, round(ratio, 2))
    assert (_rgba(page.evaluate("getComputedStyle(document.body).backgroundColor"))[0] < 60) is dark


def test_the_focus_is_seen_and_follows_the_page(desk: Desk) -> None:
    page = _open(desk, "experiments")
    places = []
    for _ in range(9):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")
        places.append(page.evaluate("document.activeElement.innerText"))
    assert places[0] == "Skip to the content" and "Experiments" in places


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
