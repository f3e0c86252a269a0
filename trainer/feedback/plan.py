"""The round planner: what the feedback at hand supports now, what is missing, and what the round would take.

Pure: compiled feedback and settings in, a Plan out. It asks no gateway and loads no model.

    SFT    50 rows     OpenAI's advice for supervised tuning: start with 50 good demonstrations
    DPO    500 pairs   OpenPipe's advice, before a first model is trained with DPO
    KTO    500 labels  a pair breaks into two labels (KTO's paper), but labels come by the dozen: as many rows as pairs;
                       50 of the lesser: the paper still matches DPO with 90 % fewer of one kind

SFT comes first where both are possible: what is imitated decides more than what is preferred (arXiv 2508.18312).
Rows count as their weights do, by the effective sample size, and those that say the same as one: a run has each once.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from adapters.examples import Example
from trainer.config import RunSettings
from trainer.errors import InvalidData
from trainer.feedback.compiler import CORRECTIONS, LIKED, Compiled, Recipe
from trainer.feedback.machines import Estimate, Machine, Shape, Work, estimate

_RECIPES: tuple[Recipe, ...] = ("sft", "dpo", "kto")
_TOKEN = 4
"""Characters of one; English chat is at 4 to 5, other languages and code below."""

_ROW = 16
"""Tokens that a chat template adds to a row."""

_REPLAY = 0.2
_FRESH = 0.25
"""Of what a first round needs, for a next round of the same method."""


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The version that the alias serves now; where it was made by this trainer, by which method and when."""

    ref: str
    recipe: str | None = None
    created_at: datetime | None = None
    rank: int | None = None

    @classmethod
    def of(cls, ref: str, manifest: Mapping[str, Any]) -> Incumbent:
        """By its manifest, as a gateway tells it."""
        made = manifest.get("created_at")
        return cls(ref, (manifest.get("lineage") or {}).get("recipe"), datetime.fromisoformat(made) if made else None)


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a method's rows are enough. `have` and `missing` are phrases for people; `missing` is empty if `now`."""

    recipe: Recipe
    state: Literal["now", "not yet", "nothing new"]
    have: str
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.recipe.upper()} {self.state}: {self.have}" + (f"; {self.missing}" if self.missing else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """`recipe` is None where nothing is supported. `changes` are settings (dotted key → value) of the run it means."""

    recipe: Recipe | None
    why: str
    supports: list[Support]
    changes: dict[str, Any] = field(default_factory=dict)
    estimate: Estimate | None = None
    notes: list[str] = field(default_factory=list)
    command: str | None = None

    def lines(self) -> list[str]:
        """What a person is told."""
        told = [str(each) for each in self.supports] + [f"note: {note}" for note in self.notes]
        told.append(f"the round: {self.why}" if self.recipe else "the round: none yet")
        if self.changes:
            told.append("settings: " + ", ".join(f"{key}={value}" for key, value in self.changes.items()))
        if self.estimate is not None:
            told += [f"it takes about: {self.estimate}", f"the estimate's source: {self.estimate.how}"]
        return told + ([f"run: {self.command}"] if self.command else [])

    def required(self) -> Recipe:
        """The method. Raises `InvalidData` with what is missing."""
        if self.recipe is None:
            missing = "; ".join(f"{each.recipe.upper()}: {each.missing}" for each in self.supports)
            raise InvalidData("the feedback at hand supports no round yet", f"wait for more ({missing})")
        return self.recipe


def plan(
    compiled: Compiled,
    settings: RunSettings,
    *,
    incumbent: Incumbent | None = None,
    machine: Machine | None = None,
    shape: Shape | None = None,
    given: Sequence[str] = (),
) -> Plan:
    """What to do with the feedback now. Without `machine` and `shape` there is no estimate.

    `given`: words of the command line (a config file, --set) that the round's command needs, too.
    """
    supports = [_support(recipe, compiled, settings, incumbent) for recipe in _RECIPES]
    chosen = next((each.recipe for each in supports if each.state == "now"), None)
    notes = _notes(compiled, settings)
    if chosen is None:
        return Plan(None, "nothing is supported yet", supports, notes=notes)
    changes = _changes(chosen, settings, incumbent)
    planned, guess = apply(settings, changes), None
    if machine is not None and shape is not None:
        work = _work(compiled.methods[chosen].different, chosen, planned)
        guess = estimate(shape, work, machine, planned.training, rank=planned.lora.rank)
    return Plan(
        chosen,
        _why(chosen, incumbent),
        supports,
        {"recipe": chosen, **changes},
        guess,
        notes,
        command(settings, given),
    )


def apply(settings: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """The settings with a plan's changes in them."""
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        inner = getattr(settings, section).model_copy(update={name: value}) if section else value
        settings = settings.model_copy(update={section or name: inner})
    return settings


def command(settings: RunSettings, given: Sequence[str] = ()) -> str:
    """The command line that runs the round; the gateway's key stays in GATEWAY_KEY."""
    wanted = settings.data.gateway
    named = {
        "--gateway": settings.gateway.url,
        "--tenant": settings.publish.tenant,
        "--alias": wanted.alias if wanted else None,
        "--metric": wanted.metric if wanted else None,
        "--name": settings.publish.name,
        "--base-model": settings.base_model,
        "--model-path": settings.model_path,
        "--run-dir": settings.run_dir,
    }
    words = [word for flag, value in named.items() if value is not None for word in (flag, str(value))]
    return shlex.join(["trainer", "run", *given, "--round", *words])


def _support(recipe: Recipe, compiled: Compiled, settings: RunSettings, incumbent: Incumbent | None) -> Support:
    method, needs = compiled.methods[recipe], settings.round
    wanted = {"sft": needs.sft_rows, "dpo": needs.dpo_pairs, "kto": needs.kto_labels}[recipe]
    what = {"sft": "corrections or liked answers", "dpo": "pairs", "kto": "thumbs or ratings"}[recipe]
    have = _have(recipe, compiled)
    lacking = []
    if (short := math.ceil(wanted - min(method.effective, len(method.different)) - 1e-6)) > 0:
        lacking.append(f"{short} more {what} before {recipe.upper()}")
    if recipe == "kto" and (short := needs.kto_lesser - min(compiled.balance.good, compiled.balance.bad)) > 0:
        side = "up" if compiled.balance.good < compiled.balance.bad else "down"
        lacking.append(f"at least {short} more of them {side}, since KTO needs both")
    if lacking:
        return Support(recipe, "not yet", have, ", ".join(lacking))
    if incumbent is not None and incumbent.recipe == recipe and incumbent.created_at is not None:
        fresh = sum(row.created_at is not None and row.created_at > incumbent.created_at for row in method.different)
        if (short := math.ceil(wanted * _FRESH) - fresh) > 0:
            told = f"{fresh} of them came after {incumbent.ref} was made; {short} more before the next round of it"
            return Support(recipe, "nothing new", have, told)
    return Support(recipe, "now", have)


def _have(recipe: Recipe, compiled: Compiled) -> str:
    method = compiled.methods[recipe]
    if recipe == "sft":
        text = f"{compiled.counts.get(CORRECTIONS, 0)} corrections, {compiled.counts.get(LIKED, 0)} liked answers"
    elif recipe == "dpo":
        text = f"{len(method.rows)} pairs"
    else:
        text = str(compiled.balance)
    if method.rows:
        text += f", of {method.users} users"
        if len(method.different) < len(method.rows):
            text += f", with {len(method.different)} different rows"
        if method.effective < 0.95 * len(method.rows):
            text += f", which count as {method.effective:.0f}"
    return text


def _why(recipe: Recipe, incumbent: Incumbent | None) -> str:
    if recipe == "sft":
        return "SFT comes first: from the base, on all rows, with replay against forgetting"
    start = f"from {incumbent.ref}, which is the reference" if incumbent else "from the base, which is the reference"
    return f"{recipe.upper()} goes on {start}"


def _changes(recipe: Recipe, settings: RunSettings, incumbent: Incumbent | None) -> dict[str, Any]:
    """The settings of the method, where nobody has set them."""
    training, changes = settings.training.model_fields_set, dict[str, Any]()
    if recipe == "sft" and "share" not in settings.replay.model_fields_set:
        changes["replay.share"] = _REPLAY
    if recipe != "sft" and incumbent is not None and "start_from" not in training:
        changes["training.start_from"] = incumbent.ref
        if incumbent.rank is not None and "rank" not in settings.lora.model_fields_set:
            changes["lora.rank"] = incumbent.rank
    if "epochs" not in training:
        changes["training.epochs"] = 3.0 if recipe == "sft" else 1.0
    return changes


def _work(rows: Sequence[Example], recipe: Recipe, settings: RunSettings) -> Work:
    prompts = [_tokens([message.get("content") for message in row.messages]) for row in rows]
    whole = [
        prompt * (2 if row.rejected else 1) + _tokens([row.completion, row.rejected])
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    tokens = sum(whole) * (1 - settings.data.held_out_share)
    if recipe == "sft":
        tokens /= 1 - settings.replay.share
    epochs = settings.training.epochs
    if settings.training.max_steps is not None:
        epochs = settings.training.max_steps * settings.training.batch_size * settings.training.accumulate / len(rows)
    # The reference, once or each epoch; KTO's other completions besides, by both models.
    reference = 1.0 if settings.preference.reference == "precomputed" else epochs
    frozen = {"sft": 0.0, "dpo": reference, "kto": 2 * reference + epochs}[recipe]
    longest = min(max(whole), settings.data.max_tokens * (2 if recipe == "dpo" else 1))
    return Work(round(tokens), epochs, frozen, longest, settings.training.batch_size)


def _tokens(texts: Sequence[Any]) -> int:
    return _ROW + sum(len(text) if isinstance(text, str) else len(str(text)) for text in texts if text) // _TOKEN


def _notes(compiled: Compiled, settings: RunSettings) -> list[str]:
    notes = []
    for recipe, method in compiled.methods.items():
        if not method.rows:
            continue
        if method.even and settings.feedback.user_share < 1:
            needed = math.ceil(1 / settings.feedback.user_share)
            cap = f"the cap of {settings.feedback.user_share:.0%} a user cannot hold with {method.users} users"
            notes.append(f"{recipe.upper()}: {cap} ({needed} could), so all users weigh the same")
        if method.capped and not method.even:
            notes.append(f"{recipe.upper()}: {method.capped} users are cut to {settings.feedback.user_share:.0%} each")
        if method.unseen:
            notes.append(f"{recipe.upper()}: no row from {', '.join(method.unseen)}, which has a target share")
    good, bad = compiled.balance.good, compiled.balance.bad
    if good and not bad:
        notes.append("KTO: all labels are good; SFT on liked answers is what they allow")
    if bad and not good:
        notes.append("KTO: all labels are bad; ask for corrections, which SFT and DPO learn from")
    return notes
