"""What the console's tests share.

`site`: a real gateway on the fake engine and a real PostgreSQL, started once, with what `seed.py` puts there: real
adapters, requests, feedback and experiments. `desk`: a fresh browser page of it, signed in as the operator;
`tenant_desk` as the tenant `acme`'s admin. After each test both insist that the browser's console is silent and that
nothing was asked of another host. Tests that change the site use names of their own: the site is everybody's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from gateway.console.here import COOKIE
from tests.console.seed import Site, seeded
from tests.gateway.conftest import database_url, databases, db, postgres_url

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request

__all__ = ["database_url", "databases", "db", "postgres_url"]

ALSO = ("/usr/bin/chromium",)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    folder = tempfile.TemporaryDirectory(prefix="tl-console-", ignore_cleanup_errors=True)
    with folder as home, seeded(Path(home)) as one:
        yield one


def browser(playwright: Playwright) -> Browser:
    """The system's Chromium, or the one that `playwright install chromium` brings."""
    found = shutil.which("chromium") or next((path for path in ALSO if Path(path).exists()), None)
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one file: as long as it is there, nothing asynchronous can be tested in this process."""
    from playwright.sync_api import sync_playwright  # this page is imported with any of the directory's

    with sync_playwright() as playwright:
        started = browser(playwright)
        yield started
        started.close()


@dataclass
class Desk:
    """A browser page. `go("experiments")` opens one of `tenant`'s pages; `trouble` is what the browser said."""

    page: Page
    site: Site
    tenant: str = "acme"
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("request", self._asked)

    def go(self, below: str) -> Page:
        """One of the tenant's pages, drawn."""
        return self.open(f"/console/t/{self.tenant}/{below}")

    def open(self, path: str) -> Page:
        """Any page of the site, drawn."""
        reply = self.page.goto(self.site.url + path)
        assert reply is not None and reply.ok, (path, reply and reply.status)
        self.page.wait_for_selector("html[data-ready]", state="attached")
        return self.page

    def sign_in(self, key: str) -> None:
        """Without the form, which a test of its own goes through."""
        reply = httpx.post(f"{self.site.url}/console/sign-in", data={"key": key}, headers={"origin": self.site.url})
        self.page.context.add_cookies(
            [{"name": COOKIE, "value": reply.cookies[COOKIE], "url": f"{self.site.url}/console"}]
        )

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.site.url + "/", "data:")):
            self.trouble.append(f"another host: {request.url}")


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def visitor(context: BrowserContext, site: Site) -> Iterator[Desk]:
    """A browser page of nobody yet."""
    desk = Desk(context.new_page(), site)
    yield desk
    assert not desk.trouble


@pytest.fixture
def desk(visitor: Desk) -> Desk:
    """The operator's."""
    visitor.sign_in(visitor.site.admin_key)
    return visitor


@pytest.fixture
def tenant_desk(visitor: Desk) -> Desk:
    """The tenant's own admin's."""
    visitor.sign_in(visitor.site.tenant_key)
    return visitor
