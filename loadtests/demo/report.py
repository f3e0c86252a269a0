"""The table the demo ends with, and the checks that make it fail when a figure is not what it must be."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from loadtests.demo.loop import ALIAS, TENANT, Story


def failures(story: Story) -> list[str]:
    """Everything that must not happen and did; empty when the loop held."""
    asked = story.compared + story.neighbour + story.afterwards
    found = [f"a request failed: {one.error}" for one in asked if one.error]
    found += [f"a stream failed: {one.error}" for one in story.streams if one.error]
    found += [
        f"a stream began on {s.served} and named {sorted(s.models)}" for s in story.streams if s.models - {s.served}
    ]
    found += ["a stream ended without a finish reason" for s in story.streams if not s.error and not s.finished]
    first, second = (published["ref"] for published in story.published)
    found += [
        f"a request after the acknowledgement was served by {s.served}"
        for s in story.streams
        if s.began > story.acknowledged and s.served != second
    ]
    if story.experiment["stage"] != "promoted" or story.promotion.get("actor") != "rule":
        found.append(f"the experiment ended as {story.experiment['stage']}, and not by the rule's promotion")
    across = sum(s.began < story.asked < s.ended and s.served == first for s in story.streams)
    if across < 20:
        found.append(f"only {across} streams were open when the swap began; 20 are needed to call it one under load")
    return found


def show(console: Console, story: Story) -> None:
    """Print the report."""
    console.print()
    _traffic(console, story)
    _variants(console, story)
    _versions(console, story)
    _lineage(console, story)
    minutes, seconds = divmod(time.monotonic() - story.began, 60)
    console.print(f"The whole loop took {minutes:.0f} min {seconds:.0f} s.")


def _traffic(console: Console, story: Story) -> None:
    table = Table(title="Requests", title_justify="left")
    for column in ("what", "requests", "errors", "served by"):
        table.add_column(column, justify="right" if column in ("requests", "errors") else "left")
    rows: list[tuple[str, list[Any]]] = [
        (f"{TENANT}: comparison", story.compared),
        ("the neighbour, meanwhile", story.neighbour),
        (f"{TENANT}: streams across the swap", story.streams),
        (f"{TENANT}: afterwards", story.afterwards),
    ]
    for name, requests in rows:
        served = sorted({request.served for request in requests if not request.error})
        table.add_row(name, str(len(requests)), str(sum(r.error is not None for r in requests)), ", ".join(served))
    console.print(table)


def _variants(console: Console, story: Story) -> None:
    table = Table(title=f"Experiment on `{ALIAS}`: resolved, as judged by its users", title_justify="left")
    for column in ("variant", "share", "users", "success", "95 % interval, valid at every look"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    total = sum(variant["inferences"] for variant in story.results["variants"]) or 1
    for variant in story.results["variants"]:
        low, high = variant["interval"]
        share = f"{variant['inferences'] / total:.0%}"
        table.add_row(
            variant["name"], share, str(variant["units"]), f"{variant['mean']:.0%}", f"{low:.0%} to {high:.0%}"
        )
    good, asked = sum(one.good for one in story.afterwards), len(story.afterwards)
    later = binomtest(good, asked).proportion_ci(method="wilson")
    after = (f"after the swap: {story.published[1]['ref']}", "100%", str(asked), f"{good / asked:.0%}")
    table.add_row(*after, f"{later.low:.0%} to {later.high:.0%} (Wilson, one look)")
    console.print(table)
    _verdict(console, story)


def _verdict(console: Console, story: Story) -> None:
    plan = story.experiment["plan"]
    console.print(f"The rule's verdict: {story.decided['sentence']}", markup=False)
    console.print(
        f"  Fixed before the first look: alpha {plan['alpha']}, intervals tightest at {plan['planned_units']} users,"
        f" nothing said before {plan['burn_in']} in each arm. Who promoted: {story.promotion.get('actor')}.",
        markup=False,
    )


def _versions(console: Console, story: Story) -> None:
    table = Table(title="Adapter versions and swaps", title_justify="left")
    for column in ("version", "digest", "learned from", "held-out loss", "swap: prepare · commit · acknowledge (ms)"):
        table.add_column(column)
    for published, timings in zip(story.published, (None, story.swapped), strict=True):
        lineage, metrics = published["manifest"]["lineage"], published["manifest"]["metrics"]
        learned = f"{lineage['examples']} examples, of which {lineage['feedback']} from feedback"
        if lineage["parent"]:
            learned += f"; follows {lineage['parent']}"
        phases = "by the rule, of its verdict"
        if timings is not None:
            phases = " · ".join(f"{timings[phase]:.0f}" for phase in ("prepare", "commit", "acknowledge"))
        loss = f"{metrics['held_out_loss_before']:.2f} → {metrics['held_out_loss']:.2f}"
        table.add_row(published["ref"], published["digest"][:19] + "…", learned, loss, phases)
    console.print(table)


def _lineage(console: Console, story: Story) -> None:
    """From version 2 back to what users said."""
    second = story.published[1]
    lineage = second["manifest"]["lineage"]
    said = story.feedback_rows
    console.print(f"Lineage: {second['ref']} ← run {lineage['run_id']} ← dataset {lineage['dataset_digest'][:19]}…")
    console.print(f"  ← {len(said)} feedback rows on {lineage['parent']} and the base model, such as")
    for feedback, inference in said[:3]:
        console.print(f"      {feedback} on the answer {inference}", markup=False)
