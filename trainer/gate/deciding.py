"""The story of a decision: publish a trial, ask all versions, compare, decide, report, write the verdict down, retire.

    gate/begun.json    what is decided about, and by which settings     gate/asked.jsonl    every answer so far
    gate/rows.jsonl, regression.jsonl   per row, what each version said  gate/report.json, report.html   the decision

A gate that is killed goes on where it was: the trial's content is the same, so it is the same version, and answers are
kept as they come. The report is written before the verdict, and the trial retired last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.examples import Example, read_jsonl
from adapters.manifest import Gate, Manifest
from adapters.weights import WEIGHTS
from trainer import data
from trainer.asking import Asker, Unanswered
from trainer.config import RunSettings
from trainer.errors import GatewayFailed
from trainer.gate import incumbent, judge, parity, policy, report
from trainer.gate.desk import Desk
from trainer.gate.evaluation import Kept, Say, Version
from trainer.gate.measuring import Measured, labels_of, measure
from trainer.gate.policy import Evidence, Parity
from trainer.gate.questions import UNKNOWN_CONTEXT, Asked, asked, chosen
from trainer.gateway_client import EngineLimits, Gateway
from trainer.progress import Progress
from trainer.publish import publish_trial, stamp
from trainer.runlog import RunDirectory
from trainer.settings.gate import GateSettings

REGRESSION = Path(__file__).parent / "regression.jsonl"
_REGRESSION_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Heard:
    """All that the engine said, and what the trainer's own model said beside it."""

    held_out: Measured
    regression: Measured
    parity: Parity | None
    opinion: judge.Opinion | None


def decide(run: RunDirectory, settings: RunSettings, voice: Progress) -> Gate:
    """See `trainer.gate.decide`."""
    assert settings.gate is not None and settings.publish.tenant is not None and settings.gateway.url is not None
    desk = Desk(run, settings)
    gate = desk.decided()
    if gate is None:
        gate = _decided_now(run, settings, desk, settings.gate, voice.say)
    stamp(run, gate)
    desk.retire_trials(settings)
    voice.say(f"the gate: {gate.reason}; see {run.path / 'gate' / 'report.html'}")
    return gate


def _decided_now(run: RunDirectory, settings: RunSettings, desk: Desk, wanted: GateSettings, say: Say) -> Gate:
    tenant = str(settings.publish.tenant)
    with Gateway(settings.gateway) as gateway:
        limits = gateway.limits()
        against = desk.remember("incumbent", lambda: _incumbent(gateway, settings))
        trial = publish_trial(run, settings, name=_trial_name(str(settings.publish.name)), mark=desk.mark)
        desk.note_trial(str(trial.ref))
        versions = _versions(run, gateway, tenant, limits, against, str(trial.ref))
        say(f"the gate: {' and '.join(version.model for version in versions)} answer held-out rows in the engine")
        with desk.lent_key(gateway, tenant) as key:
            heard = asyncio.run(_hear(run, settings, wanted, versions, limits, key, say))
    wanted = settled(wanted, heard.held_out)
    verdict = policy.judge(_evidence(heard, wanted, against), wanted.policy)
    found = report.Report.of(heard, wanted, verdict, against, cards=_cards(run))
    heard.held_out.write(desk.room / "rows.jsonl")
    heard.regression.write(desk.room / "regression.jsonl")
    (desk.room / "report.html").write_text(found.html(), "utf-8")
    gate = Gate(verdict=verdict.verdict, reason=verdict.reason, compared_with=against, figures=found.figures())
    desk.keep(found.plain(), gate)
    return gate


async def _hear(
    run: RunDirectory,
    settings: RunSettings,
    wanted: GateSettings,
    versions: Sequence[Version],
    limits: EngineLimits,
    key: str,
    say: Say,
) -> Heard:
    from trainer.tokens import tokenizer_of  # imports torch

    tokenizer = tokenizer_of(settings)
    context = min(settings.data.max_tokens, limits.context or UNKNOWN_CONTEXT)
    train, held_out = _rows(run)
    rows = chosen(held_out, wanted.rows)
    labels = labels_of(wanted.labels, rows, train)
    questions = asked(tokenizer, rows, answer_tokens=wanted.max_tokens, context=context, labels=labels)
    general = list(data.read_file(wanted.regression or REGRESSION))
    short = min(_REGRESSION_TOKENS, wanted.max_tokens) if wanted.regression is None else wanted.max_tokens
    usual = asked(tokenizer, general, answer_tokens=short, context=context, forced=False)
    with Kept(run.path / "gate" / "asked.jsonl") as kept:
        async with Asker(str(settings.gateway.url), key, at_once=wanted.at_once) as asker:
            measured = await measure(versions, questions, asker, kept, say, labels=labels)
            say("the regression set")
            regression = await measure([versions[0], versions[-1]], usual, asker, kept, say)
            most = 0 if limits.kind == "fake" else wanted.parity_rows  # a fake computes nothing to agree with
            served = await _served(versions[-1], questions, measured, asker, most)
    same = None
    if served:
        say(f"parity: PEFT in float32 beside the engine, {len(served)} rows")
        same = parity.compare(served, parity.with_peft(run, settings, served), tolerance=wanted.parity_nats)
    return Heard(measured, regression, same, await _opinion(wanted, measured, say))


async def _served(
    candidate: Version, questions: Asked, measured: Measured, asker: Asker, most: int
) -> list[parity.Served]:
    """What parity is checked on: the first rows that have log-probabilities, and the engine's greedy tokens there."""
    found: list[parity.Served] = []
    for question, outcome in zip(questions.questions, measured.versions[candidate.name], strict=True):
        if len(found) == most:
            break
        if question.forced is None or outcome.logprobs is None:
            continue
        start = question.forced.start
        prompt, reference = question.forced.ids[:start], question.forced.ids[start:]
        body = {"prompt": prompt, "max_tokens": parity.GREEDY_TOKENS, "temperature": 0, "return_token_ids": True}
        try:
            reply = await asker.ask("/completions", {"model": candidate.model, **body})
            greedy = [int(token) for token in reply["choices"][0]["token_ids"]]
        except (Unanswered, KeyError, IndexError, TypeError, ValueError):
            remedy = "run the same command again, or set gate.parity_rows=0 to go without"
            raise GatewayFailed("the gateway gives no token ids of an answer, which parity needs", remedy) from None
        found.append(parity.Served(prompt, reference, outcome.logprobs, greedy))
    return found


async def _opinion(wanted: GateSettings, measured: Measured, say: Say) -> judge.Opinion | None:
    if wanted.judge is None:
        return None
    say(f"the judge: {wanted.judge.model}")
    other = measured.other
    texts = {name: [one.answer for one in measured.versions[name]] for name in ("candidate", other)}
    return await judge.opinion(wanted.judge, measured.rows, texts["candidate"], texts[other])


def settled(wanted: GateSettings, measured: Measured) -> GateSettings:
    """With the figure to decide by, where the settings leave it: the one that fits these rows."""
    if wanted.policy.figure != "auto":
        return wanted

    def of(name: str) -> int:
        found = measured.named(name)
        return 0 if found is None else len(found.rows)

    # A few rows that are JSON, or pairs, among others do not decide for all of them.
    exact = of("accuracy") > 0 or 2 * of("json_valid") > of("exact_match")
    pairs = 2 * of("preference_accuracy") > of("loss")
    figure = "exact_match" if exact else "preference_accuracy" if pairs else "loss"
    return wanted.model_copy(update={"policy": wanted.policy.model_copy(update={"figure": figure})})


def _evidence(heard: Heard, wanted: GateSettings, against: str) -> Evidence:
    measured, other = heard.held_out, heard.held_out.other
    how: Any = {"confidence": wanted.policy.confidence, "seed": wanted.seed}
    main, general = measured.named(wanted.policy.figure), heard.regression.named("token_f1")
    return Evidence(
        against="the base" if against == "base" else against,
        rows=len(measured.rows),
        main=None if main is None else measured.compared(main, "candidate", other, **how),
        regression=None if general is None else heard.regression.compared(general, "candidate", "base", **how),
        drift=measured.drift("candidate"),
        drift_other=measured.drift(other),
        reference_length=measured.reference_length(),
        parity=heard.parity,
    )


def _versions(
    run: RunDirectory, gateway: Gateway, tenant: str, limits: EngineLimits, against: str, trial: str
) -> list[Version]:
    """Base, incumbent (unless that is the base) and candidate, each known by its weights."""
    found = [Version("base", "base", limits.base_revision or limits.base_model)]
    if against != "base":
        files = gateway.version(tenant, against)["manifest"]["files"]
        found.append(Version("incumbent", against, files[WEIGHTS]))
    return [*found, Version("candidate", trial, Manifest.read(run.adapter).files[WEIGHTS])]


def _incumbent(gateway: Gateway, settings: RunSettings) -> str:
    """The version to beat, in full; `base` for the base model."""
    assert settings.gate is not None and settings.publish.tenant is not None and settings.publish.name is not None
    tenant, named = settings.publish.tenant, incumbent(settings)
    if named is not None:
        return named
    alias = settings.data.gateway.alias if settings.data.gateway is not None else settings.publish.name
    if alias not in gateway.aliases(tenant):
        return "base"
    return gateway.serves(tenant, alias) or "base"


def _rows(run: RunDirectory) -> tuple[list[Example], list[Example]]:
    """The trained rows, and those to decide by: the test rows, where there are any, else the held-out ones."""
    train, held_out, *_ = run.data()
    test = run.path / "data" / "test.jsonl"
    if test.is_file():
        with test.open(encoding="utf-8", newline="\n") as file:
            held_out = list(read_jsonl(file)) or held_out
    return train, held_out


def _cards(run: RunDirectory) -> list[str]:
    """The data card's files, as the report in gate/ links to them."""
    return [f"../{path.relative_to(run.path)}" for path in sorted(run.path.glob("**/card.*"))]


def _trial_name(name: str) -> str:
    """The adapter that a run's trials are versions of; names have at most 64 characters."""
    return f"{name[:58].rstrip('._-')}.trial"
