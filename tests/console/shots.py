"""Pictures of every page, for the README:  python -m tests.console.shots  writes docs/images/console-*.png.

They are of the site that the tests look at, with a little more time between its users.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from gateway.store import embedded
from tests.console.conftest import Desk, browser
from tests.console.seed import QUESTIONS, Site, seeded

IMAGES = Path("docs/images")
WIDTH, HEIGHT = 1280, 1500
MOST_BYTES = 150_000

PAGES = {
    "experiments": "experiments",
    "experiment-finished": "experiments/FINISHED",
    "experiment-running": "experiments/RUNNING",
    "experiment-start": "experiments/new",
    "adapters": "adapters",
    "adapter": "adapters/support/3",
    "traffic": "traffic",
    "feedback": "feedback",
    "pairs": "feedback/pairs",
    "playground": "playground",
    "rounds": "rounds",
    "audit": "audit",
    "keys": "keys",
}


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, seeded(Path(home), pace=1.0) as site, sync_playwright() as playwright:
        site.admin("POST", "/tenants/acme/metrics", {"name": "preference", "kind": "preference"})
        chromium = browser(playwright)
        page = chromium.new_page(viewport={"width": WIDTH, "height": 860})
        desk = Desk(page, site)
        desk.open("/console/sign-in")
        keep(page, "sign-in")
        desk.sign_in(site.admin_key)
        for name, path in PAGES.items():
            if name == "traffic":
                _spread(Path(home), site)
            desk.go(_known(site, path))
            if name == "playground":
                _ask(page)
            keep(page, name)
        desk.go("feedback").get_by_text("answer", exact=True).first.click()
        keep(page, "answer")
        keep(desk.open("/console/tenants"), "tenants")
        page.emulate_media(color_scheme="dark")
        keep(desk.go(_known(site, PAGES["experiment-running"])), "experiment-dark")
        chromium.close()


def _known(site: Site, path: str) -> str:
    for name, one in site.experiments.items():
        path = path.replace(name.upper(), one)
    return path


def _spread(home: Path, site: Site) -> None:
    """As if what was asked, and some streams more, had come over the last hour. Times only: the rest is as it was."""
    for number in range(150):
        site.ask("acme", f"streaming-{number}", QUESTIONS[number % len(QUESTIONS)], stream=True)
    time.sleep(1)  # the recorder
    sql = "UPDATE inferences SET created_at = now() - (0.5 + 59 * sqrt(random())) * interval '1 minute'"
    with ThreadPoolExecutor() as aside:  # Playwright has a loop of its own here
        aside.submit(asyncio.run, _execute(embedded.start(home / "postgres").url, sql)).result()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def _ask(page: Page) -> None:
    """Several versions at once; the answers are streamed."""
    page.get_by_label("Prompt", exact=True).fill(QUESTIONS[0])
    page.get_by_role("button", name="Ask").click()
    page.wait_for_timeout(3000)


def keep(page: Page, name: str) -> None:
    """The page from its top, in as many colours as fit into the size that a README should load."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    high = min(HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
    page.set_viewport_size({"width": WIDTH, "height": max(high, 500)})
    page.wait_for_timeout(400)
    whole = Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": max(high, 500)})))
    whole.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"console-{name}.png", optimize=True)
    size = (IMAGES / f"console-{name}.png").stat().st_size
    assert size < MOST_BYTES, (name, size)
    page.set_viewport_size({"width": WIDTH, "height": 860})
    print(f"{name}: {size // 1000} kB")


if __name__ == "__main__":
    main()
