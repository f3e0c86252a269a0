"""One run, from its settings to a published version: check, read, train, decide, publish. It knows no command line.

torch is imported only once there is something to train.
"""

from __future__ import annotations

from typing import Any

from trainer import config, data, gate, processes, recipes, replay, start
from trainer.config import RunSettings
from trainer.data import Dataset, card
from trainer.feedback import Compiled, rounds
from trainer.gateway_client import Gateway
from trainer.progress import Progress, Silent
from trainer.publish import publish
from trainer.runlog import RunDirectory
from trainer.served import require_limits, require_same_tokens


def run_all(settings: RunSettings, voice: Progress, *, by_plan: bool = False) -> dict[str, Any]:
    """The whole run, or what is left of it; returns what `trainer run --json` prints. Raises `TrainerError`s.

    `by_plan`: the feedback at hand decides the recipe and what belongs to it (`trainer plan`). Under torchrun the main
    process does it, and the others take part in the training only; they return nothing.
    """
    config.prepare_libraries()
    try:
        return _own(settings, voice, by_plan=by_plan) if config.world().rank == 0 else _take_part(settings, by_plan)
    finally:
        processes.part()


def _take_part(settings: RunSettings, by_plan: bool) -> dict[str, Any]:
    if processes.told(False):
        settings = (rounds.planned(settings) if by_plan else None) or settings
        recipes.train(RunDirectory(settings, owned=False), settings, Silent())
    return {}


def _own(settings: RunSettings, voice: Progress, *, by_plan: bool) -> dict[str, Any]:
    check_engine(settings, voice)
    heard = None
    if by_plan:
        settings, heard = rounds.settle(settings, voice)
    run = RunDirectory(settings)
    try:
        if run.resumed:
            voice.say(f"continuing run {run.id}, with the rows it began with")
        else:
            heard = heard or rounds.gather(settings)
            run.about["live"] = rounds.summary(heard, settings.recipe)
            dataset = read(settings, voice, heard)
            replayed = replay.rows(settings, len(dataset.train), voice)
            counts = dataset.counts | ({replay.REPLAYED: len(replayed)} if replayed else {})
            run.keep_data(dataset.train + replayed, dataset.held_out, counts, test=dataset.test)
            if dataset.survey is not None:
                card.write(run.path / "data", dataset.survey, settings.data)
        if run.result() is None:
            start.keep(run, settings)
            if settings.gateway.url is not None and not run.checkpoints.exists():
                require_same_tokens(settings, run.data()[0], voice)
        if processes.told(run.result() is None):
            voice.say("importing torch and transformers")
            recipes.train(run, settings, voice)
        decided = None if settings.gate is None else gate.decide(run, settings, voice)
        voice.say("publishing")
        published = publish(run, settings)
        about = {"run": run.id, "run_dir": str(run.path), "examples": run.about["examples"]}
        told = {"ref": published.ref, "digest": published.digest, **about, "feedback": run.about["feedback"]}
        verdict = {} if decided is None else {"verdict": decided.verdict, "reason": decided.reason}
        return told | (run.result() or {}) | verdict
    finally:
        run.close()


def check_engine(settings: RunSettings, voice: Progress) -> None:
    """Fail in a second when the result could not be served, rather than after the training."""
    if settings.gateway.url is None:
        return
    with Gateway(settings.gateway) as gateway:
        limits = gateway.limits()
        require_limits(settings, limits)
        gateway.aliases(
            str(settings.publish.tenant)
        )  # a tenant that is not there is known now, and not when publishing
        gate.require_named(settings, gateway)
    voice.say(f"the gateway serves {limits.base_model}, ranks up to {limits.max_rank}")


def read(settings: RunSettings, voice: Progress, heard: Compiled | None = None) -> Dataset:
    """The rows of every source, told of and split. `heard` is the live feedback, if it was fetched before."""
    heard = heard or rounds.gather(settings)
    for line in rounds.heard(heard, settings.recipe) if heard is not None else ():
        voice.say(line)
    live = heard.rows(settings.recipe) if heard is not None else []
    dataset = data.read(settings.data, live, recipe=settings.recipe)
    for what, count in dataset.counts.items():
        voice.say(f"{count} rows {what}" + (", not trained on" if what in data.LEFT_OUT else ""))
    gate.require_rows(settings, dataset.test or dataset.held_out, voice)
    return dataset
