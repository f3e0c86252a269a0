"""Every page in a real browser: it renders, and says nothing to the browser's console (conftest.py insists)."""

from __future__ import annotations

import pytest

from gateway.console.words import MINUS
from tests.console.conftest import Desk
from tests.console.seed import MARKUP

pytestmark = pytest.mark.long


def test_the_list_of_experiments_says_in_words_where_each_stands(desk: Desk) -> None:
    page = desk.go("experiments")
    rows = page.get_by_role("row").all_inner_texts()
    assert any("Does tuning help triage?" in row and "promoted" in row and "ship" in row for row in rows)
    assert any("Is the model of preferences better?" in row and "Ada" in row for row in rows)


def test_a_finished_experiment_tells_that_the_rule_promoted_it_and_why(desk: Desk) -> None:
    page = desk.go("experiments/" + desk.site.experiments["finished"])
    assert page.get_by_role("region", name="The verdict").inner_text().startswith("The verdict\n\nship")
    story = page.get_by_role("region", name="What happened").inner_text()
    assert "rule" in story and "Ship 'candidate'" in story
    assert not page.get_by_role("button", name="Promote").count(), "nothing can be done to one that has ended"
    page.get_by_text("The analysis goes by what was assigned").wait_for()


def test_a_running_experiment_shows_every_figure_with_its_unit_and_interval(desk: Desk) -> None:
    page = desk.go("experiments/" + desk.site.experiments["running"])
    for metric, unit in (("thumbs", "pp"), ("latency", "ms"), ("output_tokens", "tokens")):
        row = page.get_by_role("region", name=metric).get_by_role("row", name="candidate").first.inner_text()
        assert unit in row and " to " in row, row
    plots = page.locator("figure.plot canvas")
    assert plots.count() == 3
    page.get_by_text("As a table").first.click()
    assert "UTC" in page.locator("figure.plot table").first.inner_text()


def test_what_is_open_stays_open_when_the_figures_come_anew(desk: Desk) -> None:
    page = desk.go("experiments/" + desk.site.experiments["running"])
    page.get_by_text("Diagnostics").click()
    with page.expect_response(lambda reply: "/findings" in reply.url and reply.status == 200, timeout=15_000):
        pass
    page.locator("#diagnostics[open]").wait_for()
    assert page.get_by_text("nothing here moves the verdict").is_visible()


def test_markup_in_names_and_figures_stays_text(desk: Desk) -> None:
    desk.tenant = "probe"
    page = desk.go("experiments")
    assert f"name {MARKUP}" in page.locator("main").inner_text()
    page = desk.go("experiments/" + desk.site.experiments["probe"])
    text = page.locator("main").inner_text()
    assert f"hypothesis {MARKUP}" in text and f"owner {MARKUP}" in text
    text = desk.go("adapters/support/1").locator("main").inner_text()
    assert f"better {MARKUP}" in text and MARKUP in text
    assert page.locator("main script:not([type]), main img").count() == 0


def test_an_adapters_page_shows_lineage_gate_and_residency(desk: Desk) -> None:
    page = desk.go("adapters")
    row = page.get_by_role("row", name="support@3").inner_text()
    assert "accepted" in row and "support@1" in row and "resident" in row
    assert page.locator("svg.graph .box.version").count() == 3
    assert page.locator("svg.graph .arrow.continues").count() == 2
    page.get_by_role("row", name="support@2").get_by_role("link").click()
    gate = page.get_by_role("region", name="The gate").inner_text()
    assert "refused" in gate and f"{MINUS}0.0500" in gate and f"{MINUS}0.0800 to {MINUS}0.0200" in gate


def test_rounds_speak_as_the_trainers_plan_does(desk: Desk) -> None:
    page = desk.go("rounds")
    page.wait_for_selector("text=judged answers")
    sft = page.get_by_role("row", name="SFT").first.inner_text()
    assert "corrections" in sft and "liked answers" in sft and "about enough" in sft
    assert page.get_by_role("region", name="Past rounds").get_by_role("row").count() == 4


@pytest.mark.parametrize("path", ["experiments", "adapters", "rounds"])
def test_an_empty_page_says_what_to_do_next(desk: Desk, path: str) -> None:
    desk.tenant = "rival"
    page = desk.go(path)
    assert page.locator("code").count(), page.locator("main").inner_text()
