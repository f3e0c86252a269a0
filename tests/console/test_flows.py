"""What people do in the console, clicked through in a real browser. Each flow has an alias of its own."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Desk
from tests.console.seed import Site

pytestmark = pytest.mark.long


def test_somebody_signs_in_by_the_keyboard_and_out_again(visitor: Desk) -> None:
    page = visitor.open("/console/")
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type("tl-not-a-key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Incorrect API key")
    visitor.trouble.clear()  # the browser calls a 401 an error
    page.get_by_label("Key").fill(visitor.site.tenant_key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Experiments")).to_be_visible()
    assert "rival" not in page.content(), "a tenant sees no other"
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_an_experiment_is_started_paused_resumed_and_promoted_with_a_reason(tenant_desk: Desk) -> None:
    tenant_desk.site.point("acme", "flow", "base")
    page = tenant_desk.go("experiments/new")
    page.get_by_label("Name", exact=True).fill("Started by hand")
    page.get_by_label("Hypothesis").fill("It is better.")
    page.get_by_label("Alias").select_option("flow")
    page.get_by_label("Candidate", exact=True).select_option("acme/support@3")
    page.get_by_label("Primary metric").select_option("thumbs")
    page.get_by_label("Guardrail 1").select_option("latency")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Margin 1")
    tenant_desk.trouble.clear()  # the browser calls a 400 an error
    expect(page.get_by_label("Name", exact=True)).to_have_value("Started by hand")
    page.get_by_label("Margin 1", exact=False).first.fill("20")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("heading", name="Started by hand")).to_be_visible()
    expect(page.get_by_role("region", name="The plan")).to_contain_text("latency, margin 20 % of the control")
    _say_why(page, "Pause", "The service has trouble.")
    expect(page.get_by_text("paused").first).to_be_visible()
    _say_why(page, "Resume", "It is well again.")
    _say_why(page, "Promote", "Everybody likes it.")
    expect(page.get_by_text("promoted", exact=True)).to_be_visible()
    story = page.get_by_role("region", name="What happened")
    for said in ("The service has trouble.", "It is well again.", "Everybody likes it.", "key:"):
        expect(story).to_contain_text(said)
    assert _serves(tenant_desk.site, "flow") == ["acme/support@3"]


def test_a_canary_is_led_on_widened_and_rolled_back(desk: Desk) -> None:
    site = desk.site
    site.point("acme", "canary", "acme/support@1")
    one = site.compare("acme", "canary", "acme/support@3", name="A canary", stage="canary", coverage=0.5)
    page = desk.go(f"experiments/{one}")
    _say_why(page, "Advance to the experiment", "Nothing broke.")
    expect(page.get_by_text("experiment", exact=True).first).to_be_visible()
    page.get_by_text("Change who takes part").click()
    page.get_by_label("Coverage, %").fill("80")
    page.get_by_label("Why?").locator("visible=true").first.fill("More users.")
    page.get_by_role("button", name="Set the coverage").click()
    expect(page.get_by_role("region", name="The plan")).to_contain_text("80 % of the units")
    page.get_by_role("button", name="Roll back").first.click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    _say_why(page, "Roll back", "It is worse.")
    expect(page.get_by_text("rolled back", exact=True)).to_be_visible()
    assert _serves(site, "canary") == ["acme/support@1"]


def test_an_open_page_comes_anew_when_somebody_else_ends_the_experiment(desk: Desk) -> None:
    site = desk.site
    site.point("acme", "elsewhere", "base")
    one = site.compare("acme", "elsewhere", "acme/support@3", name="Ended elsewhere")
    page = desk.go(f"experiments/{one}")
    assert page.get_by_role("button", name="Promote").count()
    site.admin("POST", f"/experiments/{one}/rollback", {"why": "It is worse.", "figures": {"thumbs": 0.2}})
    expect(page.get_by_text("rolled back", exact=True)).to_be_visible(timeout=20_000)
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)
    page.get_by_text("The figures then").click()
    expect(page.get_by_text('"thumbs": 0.2')).to_be_visible()


def test_a_shadow_is_compared_before_any_user_gets_it(desk: Desk) -> None:
    site = desk.site
    site.point("acme", "shadowed", "base")
    one = site.compare("acme", "shadowed", "acme/support@3", name="A shadow", stage="shadow", shadow_share=1.0)
    site.ask("acme", "user-1", "Where is my parcel?", model="shadowed")
    page = desk.go(f"experiments/{one}")
    expect(page.get_by_role("region", name="In the shadow")).to_contain_text("shown to nobody", timeout=20_000)
    assert not page.get_by_role("button", name="Promote").count()
    _say_why(page, "Advance to the canary", "It is as fast.")
    expect(page.get_by_text("canary", exact=True).first).to_be_visible()


def test_the_power_calculator_answers_while_one_types(desk: Desk) -> None:
    page = desk.go("experiments/new")
    power = page.get_by_role("region", name="How many units")
    power.get_by_label("The effect you care about").fill("0.1")
    expect(power).to_contain_text("N* for the plan")
    expect(power).to_contain_text("the price of looking all the time")
    power.get_by_label("The control's mean").fill("a lot")
    expect(power.get_by_role("alert")).to_contain_text("is no number")


def _say_why(page: Page, button: str, why: str) -> None:
    """Open the button's dialog, give the reason by the keyboard, confirm."""
    page.get_by_role("button", name=button, exact=True).first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill(why)
    dialog.get_by_role("button", name=button, exact=True).click()
    page.wait_for_load_state()


def _serves(site: Site, alias: str) -> list[str]:
    found = site.admin("GET", "/tenants/acme/aliases")["data"]
    return [variant["ref"] for one in found if one["name"] == alias for variant in one["variants"]]
