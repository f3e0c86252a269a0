"""The gate on the real engine: log-probabilities and tokens that vLLM gives are PEFT's, and a verdict rests on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from adapters.examples import Example
from adapters.manifest import Gate
from loadtests.demo.gateway import Gateway, running
from loadtests.engine.random_adapter import ALL_LINEAR, write_adapter
from tests.e2e.conftest import RealEngine
from trainer import config, gate
from trainer.config import RunSettings
from trainer.progress import Silent
from trainer.publish import package
from trainer.runlog import RunDirectory

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
THINGS = ["apple", "book", "chair", "door", "engine", "flower", "garden", "house", "island", "jacket"]
THINGS += ["kettle", "lamp", "mirror", "needle", "orange", "pencil", "quilt", "rope", "spoon", "table"]
PROMPTS = [f"Name one thing that people do with a {thing}." for thing in THINGS]
ADAPTER: dict[str, Any] = {"seed": 10, "strength": 0.6, "targets": ALL_LINEAR}
"""Most adapters drawn at random have near ties everywhere, and another batch, which rounds otherwise, turns those.

This one begins every answer with "People do a lot", where the base has "One thing that people": in float32 each of
these tokens is 0.8 nats or more ahead of the next best, and bfloat16 moves them by 0.15 at most. Further on are ties.
"""
TOKENS = 4


def decided(settings: RunSettings, saved: Path, references: Sequence[str]) -> Gate:
    """The gate's verdict on an adapter, as if it had been trained on what it is asked."""
    run = RunDirectory(settings)
    try:
        rows = [
            Example(messages=[{"role": "user", "content": prompt}], completion=completion)
            for prompt, completion in zip(PROMPTS, references, strict=True)
        ]
        run.keep_data(rows, rows, {})
        assert settings.model_path is not None
        package(run, saved, settings, base=settings.model_path, metrics={})
        return gate.decide(run, settings, Silent())
    finally:
        run.close()


def settings(room: Path, engine: RealEngine, gateway: Gateway, run: str, **more: Any) -> RunSettings:
    general = [{"prompt": "What is the capital of France?", "completion": "The capital of France is Paris."}] * 4
    (room / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in general))
    (room / "rows.jsonl").write_text('{"prompt": "unused", "completion": "unused"}\n')
    given: dict[str, Any] = {
        "base_model": engine.base_model,
        "model_path": str(engine.model),
        "run_dir": str(room / run),
        "data.train": str(room / "rows.jsonl"),
        "training.threads": 1,  # two would wait for each other wherever the engine has a core
        "gateway.url": gateway.url,
        "gateway.key": SecretStr(gateway.admin_key),
        "publish.tenant": "acme",
        "publish.name": "things",
        "gate.max_tokens": TOKENS,
        "gate.labels": "off",
        "gate.regression": str(room / "general.jsonl"),
        "gate.policy.may_lose": None,
        "gate.policy.figure": "loss",
    }
    return config.load(None, (given | more).items(), environ={})


def test_peft_and_the_engine_agree_and_the_verdict_follows_from_real_answers(
    real_engine: RealEngine, tmp_path: Path
) -> None:
    saved = write_adapter(tmp_path / "saved", real_engine.model, **ADAPTER)
    model: Any = {"base_model": real_engine.base_model, "model_path": real_engine.model}
    engine = ("--engine", "url", "--engine-url", real_engine.url)
    with running(tmp_path / "gateway", say=lambda _: None, engine=engine, **model) as gateway:
        gateway.tenant("acme", store_content=False)
        first = settings(
            tmp_path, real_engine, gateway, "first", **{"gate.parity_rows": 0, "gate.policy.figure": "exact_match"}
        )
        refused = decided(first, saved, ["zebra umbrella"] * len(PROMPTS))
        lines = [json.loads(line) for line in (tmp_path / "first/gate/rows.jsonl").read_text().splitlines()]
        answers = {line["row"]["messages"][0]["content"]: line["candidate"]["answer"] for line in lines}
        second = settings(tmp_path, real_engine, gateway, "second")
        accepted = decided(second, saved, [answers[prompt] for prompt in PROMPTS])
    assert refused.verdict == "refused" and "it is not better" in refused.reason
    assert accepted.verdict == "accepted", accepted.reason
    told = accepted.figures
    assert told["candidate.exact_match"] >= 0.8 > told["base.exact_match"]
    assert (told["parity.rows"], told["parity.diverged"]) == (8, 0)
    assert told["parity.nats"] < 0.1
