"""Every page in a real browser: it renders, and says nothing to the browser's console (conftest.py insists)."""

from __future__ import annotations

import pytest

from tests.console.conftest import Desk
from tests.console.seed import XSS

pytestmark = pytest.mark.long


def test_the_list_of_experiments_shows_names_as_text(desk: Desk) -> None:
    page = desk.go("experiments")
    assert XSS in page.get_by_role("table").inner_text()
