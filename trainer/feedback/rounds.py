"""A round between the gateway and the run: fetch what was said, plan, and remember the plan in the run directory.

A round that was planned once goes on as planned, whatever was said since: round.json holds the settings that the plan
chose, and a run started again on its directory reads them there.
"""

from __future__ import annotations

import json
from typing import Any

from adapters.judgements import read_judged
from trainer.config import RunSettings
from trainer.errors import GatewayFailed, InvalidConfig, RunConflict
from trainer.feedback.compiler import Compiled, Recipe, compile  # noqa: A004  # the package's one verb
from trainer.feedback.plan import Incumbent, Plan, apply, plan
from trainer.gateway_client import Gateway
from trainer.progress import Progress

_FILE = "round.json"


def gather(settings: RunSettings) -> Compiled | None:
    """What was said of the alias's answers, compiled; None without a gateway to ask. Raises `TrainerError`s."""
    wanted = settings.data.gateway
    if wanted is None or settings.publish.tenant is None:
        return None
    with Gateway(settings.gateway) as gateway:
        lines = gateway.judged(settings.publish.tenant, wanted.alias, metric=wanted.metric, since=wanted.since)
        return compile(read_judged(lines), settings.feedback)


def incumbent(settings: RunSettings) -> Incumbent | None:
    """What the alias serves now; None for the base model."""
    wanted, tenant = settings.data.gateway, settings.publish.tenant
    if wanted is None or tenant is None:
        return None
    with Gateway(settings.gateway) as gateway:
        ref = gateway.serves(tenant, wanted.alias)
        manifest = gateway.version(tenant, ref).get("manifest", {}) if ref is not None else {}
    if ref is None:
        return None
    return Incumbent.of(ref, manifest)


def planned(settings: RunSettings) -> RunSettings | None:
    """The settings of the round that this run directory was planned for; None if it was for none."""
    path = settings.run_dir / _FILE
    try:
        changes: dict[str, Any] = json.loads(path.read_text("utf-8"))["changes"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunConflict(f"{path} is no plan of a round", "remove it, or name another run_dir") from error
    return apply(settings, changes)


def required(compiled: Compiled | None) -> Compiled:
    """The feedback. Raises `InvalidConfig` where nobody said whose."""
    if compiled is None:
        raise InvalidConfig("a round needs live feedback", "name a gateway, a tenant and an alias")
    return compiled


def settle(settings: RunSettings, voice: Progress) -> tuple[RunSettings, Compiled | None]:
    """The settings of the round, planned now or before; with the feedback, if it was fetched for that."""
    before = planned(settings)
    if before is not None:
        voice.say(f"the round in {settings.run_dir} was planned before: {before.recipe}")
        return before, None
    compiled = gather(settings)
    return begin(settings, compiled, voice), compiled


def begin(settings: RunSettings, compiled: Compiled | None, voice: Progress) -> RunSettings:
    """Plan, tell the plan, and remember it; the settings of the round. Raises `InvalidData` with what is missing."""
    told = plan(required(compiled), settings, incumbent=incumbent(settings))
    for line in told.lines():
        voice.say(line)
    told.required()
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    draft = settings.run_dir / f"{_FILE}.draft"
    draft.write_text(json.dumps({"changes": told.changes, "why": told.why}, indent=2) + "\n", "utf-8")
    draft.replace(settings.run_dir / _FILE)
    return apply(settings, told.changes)


def engines_base(settings: RunSettings) -> RunSettings:
    """The settings with the base model that the gateway serves. Raises `GatewayFailed`."""
    if settings.gateway.url is None:
        raise GatewayFailed("no gateway says which base model this is for", "name it with --base-model")
    with Gateway(settings.gateway) as gateway:
        return settings.model_copy(update={"base_model": gateway.limits().base_model})


def lines(plan: Plan, compiled: Compiled) -> list[str]:
    """A plan for people, with what was counted."""
    return [*plan.lines(), *(f"counted: {count} {what}" for what, count in compiled.counts.items())]


def heard(compiled: Compiled, recipe: Recipe) -> list[str]:
    """What live feedback came to, for a run's log."""
    method = compiled.methods[recipe]
    text = f"live feedback: {len(method.rows)} rows for {recipe} of {method.users} users, "
    text += f"which count as {method.effective:.0f} (effective sample size)"
    return [text, *(f"live feedback: {count} {what}" for what, count in compiled.counts.items())]


def summary(compiled: Compiled | None, recipe: Recipe) -> dict[str, Any] | None:
    """The same for run.json; None if there was none."""
    if compiled is None:
        return None
    method = compiled.methods[recipe]
    figures = {"effective": round(method.effective, 2), "largest_user": round(method.largest, 4)}
    return {"rows": len(method.rows), "users": method.users, **figures, "counts": compiled.counts}


def told(plan: Plan, compiled: Compiled) -> dict[str, Any]:
    """A plan as plain values, for `--json`."""
    guess = plan.estimate
    spans = ("seconds", "memory", "cost")
    return {
        "recipe": plan.recipe,
        "why": plan.why,
        "supports": [
            {"recipe": each.recipe, "state": each.state, "have": each.have, "missing": each.missing}
            for each in plan.supports
        ],
        "rows": {
            recipe: {"rows": len(method.rows), "different": len(method.different), "users": method.users}
            | {"effective": round(method.effective, 1)}
            for recipe, method in compiled.methods.items()
        },
        "settings": plan.changes,
        "estimate": None
        if guess is None
        else {"machine": guess.machine, "source": guess.how, "fits": guess.fits}
        | {name: getattr(guess, name) for name in spans},
        "notes": plan.notes,
        "counts": compiled.counts,
        "command": plan.command,
    }
