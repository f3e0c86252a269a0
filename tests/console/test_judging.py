"""What people do with answers, keys and the log, clicked through in a real browser. Each flow has words of its own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Desk
from tests.console.seed import MARKUP, Site

pytestmark = pytest.mark.long


def exported(site: Site, prompt: str) -> list[dict[str, Any]]:
    """The judged answers to a prompt, as a trainer gets them."""
    reply = site.http.get("/admin/v1/export", params={"tenant": "acme", "format": "judged"})
    rows = [json.loads(line) for line in reply.text.splitlines()]
    return [row for row in rows if row["messages"][-1]["content"] == prompt]


def with_preference(desk: Desk, below: str) -> Page:
    """A page that needs a metric of the kind `preference`, with it declared by its own button."""
    page = desk.go(below)
    declare = page.get_by_role("button", name="Declare the metric")
    if declare.count():
        declare.click()
        expect(declare).to_have_count(0)
    return page


def test_a_prompt_streams_to_three_versions_and_a_blind_vote_is_in_the_export(tenant_desk: Desk) -> None:
    page = with_preference(tenant_desk, "playground")
    page.get_by_label("support@1").check()
    page.get_by_label("System prompt").fill("Be brief.")
    prompt = f"Which one is best? {MARKUP}"
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Most tokens").fill("8")
    page.keyboard.press("Control+Enter")
    status = page.get_by_role("status").filter(has_text="All answers are in.")
    expect(status).to_be_visible()
    answers = page.locator("#answers > section")
    assert answers.count() == 3 and page.locator("#answers img, #answers script").count() == 0
    assert answers.first.locator("h2").inner_text() == "Answer A", "their versions are hidden"
    assert answers.first.locator(".text").evaluate("(one) => one.childNodes.length") > 2, "it came piece by piece"
    expect(answers.first).to_contain_text(re.compile(r"\d+ ms to the first token · \d+ ms in all · 8 tokens"))
    page.get_by_role("button", name="B is best").click()
    expect(page.get_by_text("Kept:")).to_be_visible()
    winner = answers.nth(1).locator("h2").inner_text().removesuffix(" best")
    [row] = exported(tenant_desk.site, prompt)
    assert row["adapter"] in (winner, f"acme/{winner}") and "experiment" not in row
    assert [(said["kind"], said["source"], said["over"]["same_prompt"]) for said in row["feedback"]] == [
        ("preference", "console", True)
    ] * 2


def test_more_than_four_versions_cannot_be_chosen_and_one_answer_needs_no_vote(desk: Desk) -> None:
    page = desk.go("playground")
    boxes = page.locator("input[name=version]")
    for box in boxes.all():
        if not box.is_disabled():
            box.check()
    assert page.locator("input[name=version]:checked").count() == min(4, boxes.count())
    for box in boxes.all()[1:]:
        box.uncheck()
    page.get_by_label("Prompt", exact=True).fill("Only one")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("All answers are in.")).to_be_visible()
    expect(page.locator("#answers h2")).to_have_text("base")
    expect(page.get_by_role("button", name="is best")).to_have_count(0)
    page.locator("input[name=version]:checked").uncheck()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("Choose at least one version.")).to_be_visible()


def test_an_answer_is_found_by_its_feedback_corrected_and_exported(tenant_desk: Desk) -> None:
    site, prompt = tenant_desk.site, f"Correct me. {MARKUP}"
    asked = site.ask("acme", "corrected-user", prompt)
    site.say("acme", asked["x-inference-id"], "thumbs", False, source="a-test", comment=MARKUP)
    page = tenant_desk.go("feedback")
    page.get_by_label("Source").fill("a-test")
    page.get_by_label("Value").fill("no")
    page.get_by_role("button", name="Filter").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(MARKUP)
    page.get_by_role("link", name="The answer of").click()
    expect(page.get_by_role("region", name="Asked and answered")).to_contain_text(prompt)
    page.get_by_label("The ideal answer").fill("This is how it is done.")
    page.get_by_label("Comment").fill("Too short before.")
    page.get_by_role("button", name="Save the correction").click()
    expect(page.get_by_role("row", name="console")).to_contain_text("This is how it is done.")
    [row] = exported(site, prompt)
    assert [said.get("correction") for said in row["feedback"]] == [None, "This is how it is done."]
    page.go_back()
    page.go_back()
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Correction").select_option("yes")
    page.get_by_label("Metric").select_option("demonstration")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr").first).to_contain_text("This is how it is done.")


def test_a_fresh_answer_of_another_version_is_compared_blind(tenant_desk: Desk) -> None:
    site, prompt = tenant_desk.site, "Compare me with somebody else."
    asked = site.ask("acme", "compared-user", prompt, model="support@1")
    with_preference(tenant_desk, "feedback/pairs")
    page = tenant_desk.go(f"feedback/answers/{asked['x-inference-id'].removeprefix('chatcmpl-')}")
    page.get_by_label("Version", exact=True).select_option("support@3")
    page.get_by_role("button", name="Ask it").click()
    expect(page.get_by_role("region", name="Answer B")).to_be_visible()
    page.get_by_role("button", name="A is better").click()
    expect(page.get_by_text("is better than")).to_be_visible()
    [row] = exported(site, prompt)
    assert [said["metric"] for said in row["feedback"]] == ["preference"] and row["feedback"][0]["over"]["same_prompt"]


def test_a_key_is_made_shown_once_and_revoked_in_a_dialog(tenant_desk: Desk) -> None:
    page = tenant_desk.go("keys")
    page.get_by_label("Ends after").fill("2")
    page.get_by_role("button", name="Make a key").click()
    key = page.locator("#new-key").inner_text()
    headers = {"authorization": f"Bearer {key}"}
    assert tenant_desk.site.http.get("/v1/models", headers=headers).status_code == 200
    page.get_by_role("link", name="I have it").click()
    expect(page.get_by_text(key)).to_have_count(0)
    row = page.get_by_role("row").filter(has_text=key[:11])
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(row).to_be_visible()
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("that ended")).to_be_visible()
    assert tenant_desk.site.http.get("/v1/models", headers=headers).status_code == 401
    log = tenant_desk.go("audit")
    log.get_by_label("Action").fill("key.revoke")
    log.get_by_role("button", name="Filter").click()
    expect(log.locator("tbody tr").first).to_contain_text("key.revoke")


def test_live_traffic_comes_anew_by_itself_until_it_is_paused(desk: Desk) -> None:
    desk.site.ask("acme", "live-user", "Count me.", stream=True)
    page = desk.go("traffic")
    expect(page.get_by_role("row", name="support").first).to_be_visible()
    with page.expect_response(lambda reply: "/traffic/now" in reply.url and reply.status == 200):
        pass
    expect(page.locator("figure.plot canvas").first).to_be_visible()
    page.get_by_role("link", name="Last 24 h").click()
    expect(page.get_by_text("Last 24 h, by 15 minutes")).to_be_visible()
    page.get_by_role("link", name="Pause").click()
    expect(page.get_by_role("link", name="Resume")).to_be_visible()
    assert page.locator("#now[hx-get]").count() == 0


def test_markup_in_prompts_answers_and_feedback_stays_text(desk: Desk) -> None:
    desk.tenant = "probe"
    for below in ("feedback", "feedback/pairs", "traffic", "playground", "audit", "keys"):
        page = desk.go(below)
        assert page.locator("main script, main img").count() == 0, below
    page = desk.go("feedback")
    assert MARKUP in page.locator("main").inner_text()
    page.get_by_role("link", name="The answer of").first.click()
    assert MARKUP in page.locator("main").inner_text()
    assert page.locator("main script, main img").count() == 0


def test_where_there_is_nothing_the_page_says_what_to_do_next(desk: Desk) -> None:
    desk.tenant = "rival"
    for below, said in (
        ("traffic", "/v1/chat/completions"),
        ("feedback", "/v1/feedback"),
        ("feedback/pairs", "gateway tenants update rival --store-content"),
        ("playground", "gateway adapters register rival"),
    ):
        expect(desk.go(below).locator("main")).to_contain_text(said)


def test_the_operator_makes_a_tenant_and_limits_it(desk: Desk) -> None:
    page = desk.open("/console/tenants")
    page.get_by_role("textbox", name="Name").fill("made-by-hand")
    page.get_by_role("button", name="Create the tenant").click()
    page.get_by_role("link", name="made-by-hand").click()
    page.get_by_text("Change the limits").click()
    page.locator("#tenant-tokens_per_day").fill("5000")
    page.get_by_role("button", name="Set the limits").click()
    expect(page.get_by_role("row", name="Tokens per day")).to_contain_text("5,000")
    page = desk.open("/console/log")
    expect(page.locator("tbody tr").first).to_contain_text("tenant.update")
