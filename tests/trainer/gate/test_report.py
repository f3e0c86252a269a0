"""The page: whatever models answer, it stays one page of ours. And the flat figures, finite and complete."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from adapters.examples import Example
from adapters.manifest import Gate
from trainer.gate.deciding import Heard, settled
from trainer.gate.figures import Outcome, measures
from trainer.gate.judge import Opinion
from trainer.gate.measuring import Measured
from trainer.gate.policy import Parity, Verdict
from trainer.gate.report import Report
from trainer.settings.gate import GateSettings

NASTY = [
    "<script>alert(1)</script>",
    "</pre></dd></dl><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}{% for x in y %}",
    "<style>*{display:none}</style><iframe src=//evil>",
    "</body></html><base href=//evil>",
]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs


def heard(answers: list[str], prompt: str = "question", model: str = "m") -> Report:
    rows = [
        Example(messages=[{"role": "user", "content": f"{prompt} {n}"}], completion="yes") for n in range(len(answers))
    ]
    versions = {
        "base": [Outcome("yes" if n % 2 else text, "stop", (-1.0, -0.5)) for n, text in enumerate(answers)],
        "candidate": [Outcome(text if n % 2 else "yes", "stop", (-0.5, -0.1)) for n, text in enumerate(answers)],
    }
    found = Measured(rows, versions, measures(rows, versions), 1, 40, Counter({f"lost {prompt}": 1}))
    told = Heard(found, found, Parity(8, 0.01, 0.15, 0), Opinion(1, 2, 3, 4, 2.5, 3, f"why {prompt}"))
    settings = GateSettings.model_validate({"judge": {"url": "http://judge", "model": model}})
    return Report.of(told, settings, Verdict("refused", f"because of {prompt}"), "acme/s@1", cards=["../data-card.md"])


def parsed(report: Report) -> Page:
    page = Page()
    page.feed(report.html())
    page.close()
    return page


@pytest.mark.long
def test_nothing_that_a_model_answers_becomes_a_part_of_the_page():
    plain, nasty = parsed(two := heard(["no"] * 6)), parsed(heard(NASTY, prompt=NASTY[1], model=NASTY[0]))
    ticks = {"g", "text", "use", "path", "defs", "clippath", "rect"}  # a picture has as many as its axis needs
    assert {tag: n for tag, n in nasty.tags.items() if tag not in ticks} == {
        tag: n for tag, n in plain.tags.items() if tag not in ticks
    }
    assert nasty.tags.keys() & {"script", "img", "iframe", "base", "object", "embed"} == set()
    assert not [name for name, _ in nasty.attributes if name.startswith("on")]
    links = [value for name, value in nasty.attributes if name in ("href", "src", "action")]
    assert links == [value for name, value in plain.attributes if name in ("href", "src", "action")]
    assert two.html().count("<svg") == 3


@pytest.mark.long
def test_the_page_stands_alone_and_says_what_was_found():
    page = heard(["no"] * 6).html()
    assert "default-src 'none'" in page and "http://" not in page.replace("http://www.w3.org", "")
    for said in ("because of question", "../data-card.md", "8 rows PEFT", "2.50 of 3 held-out pairs", "exact match"):
        assert said in page, said


def test_the_figures_fit_into_a_manifest_and_the_report_into_json(tmp_path: Path):
    report = heard(["no"] * 6)
    figures = report.figures()
    gate = Gate(verdict="refused", reason="because", compared_with="acme/s@1", figures=figures)
    assert Gate.model_validate_json(gate.model_dump_json()) == gate
    assert {"candidate.exact_match", "difference.loss.low", "regression.base.token_f1", "parity.nats"} <= figures.keys()
    assert figures["base.perplexity"] > figures["candidate.perplexity"] > 1
    assert figures["difference.loss"] > 0  # less loss is better, and better is above 0
    plain: dict[str, Any] = json.loads(json.dumps(report.plain(), allow_nan=False))
    assert plain["verdict"] == "refused" and plain["lost"] == {"lost question": 2}


def test_every_figure_can_be_computed_again_from_the_rows_that_are_kept(tmp_path: Path):
    report = heard(["no", "perhaps", "yes"] * 8)
    report.heard.held_out.write(tmp_path / "rows.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows = [Example.model_validate(line["row"]) for line in lines]
    versions = {name: [outcome(line[name]) for line in lines] for name in ("base", "candidate")}
    again = {one.name: one.value("candidate") for one in measures(rows, versions)}
    assert again == {line.name: line.values["candidate"] for line in report.lines if line.name != "perplexity"}


def outcome(kept: dict[str, Any]) -> Outcome:
    lists = {name: tuple(kept[name]) if kept[name] is not None else None for name in ("logprobs", "rejected")}
    return Outcome(kept["answer"], kept["finish"], **lists, labels=kept["labels"])


def test_a_few_rows_of_another_form_do_not_choose_the_figure_for_all():
    def figure(*forms: str) -> str:
        told = {"text": {"completion": "yes"}, "json": {"completion": '{"a": 1}'}}
        told["pair"] = {"completion": "yes", "rejected": "no", "kind": "preference"}
        rows = [
            Example.model_validate({"messages": [{"role": "user", "content": str(n)}], **told[form]})
            for n, form in enumerate(forms)
        ]
        said = [Outcome(row.completion, "stop", (-1.0,), (-2.0,) if row.rejected else None) for row in rows]
        versions = {"base": said, "candidate": said}
        measured = Measured(rows, versions, measures(rows, versions), 0, 0, Counter())
        return settled(GateSettings(), measured).policy.figure

    assert [figure(*["text"] * 3, one) for one in ("json", "pair")] == ["loss", "loss"]
    assert [figure("text", *[one] * 3) for one in ("json", "pair")] == ["exact_match", "preference_accuracy"]
