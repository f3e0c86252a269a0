"""Every page in a real browser: it renders, and says nothing to the browser's console (conftest.py insists)."""

from __future__ import annotations

import pytest

from tests.console.conftest import Desk
from tests.console.seed import XSS

pytestmark = pytest.mark.long


def test_the_list_of_experiments_shows_names_as_text(desk: Desk) -> None:
    page = desk.go("experiments")
    assert XSS in page.get_by_role("table").inner_text()


def test_an_experiment_shows_its_plan_and_what_happened(desk: Desk) -> None:
    page = desk.go("experiments")
    page.get_by_role("link", name="is it better").click()
    page.wait_for_selector("#findings")
    page.screenshot(path="/tmp/shot1.png", full_page=True)
    desk.go("experiments/new")
    page.screenshot(path="/tmp/shot2.png", full_page=True)
