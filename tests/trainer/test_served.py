"""What the engine could not serve is refused before anything is read or trained. Nothing here loads torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from adapters.weights import base_revision
from tests.adapters.sample import manifest, safetensors, write_adapter, write_base
from tests.trainer import tiny
from trainer import start
from trainer.errors import InvalidConfig, NotServable
from trainer.gateway_client import EngineLimits
from trainer.progress import Silent
from trainer.run import run_all
from trainer.runlog import RunDirectory
from trainer.served import require_limits

FITS = EngineLimits(tiny.NAME, max_rank=16, context=2048)


@pytest.mark.parametrize(
    ("changed", "limits", "said"),
    [
        ({}, EngineLimits("other/model", 16), "the gateway serves other/model, but base_model is demo/tiny: set"),
        ({}, EngineLimits(tiny.NAME, 0), "the gateway's engine serves the base model only: start"),
        ({"lora__rank": 32}, FITS, "rank 32; the gateway's engine allows 16: set lora.rank to 16 or less"),
        ({"data__max_tokens": 4096}, FITS, "max_tokens is 4096, but the engine's context is 2048 tokens: set data.max"),
        ({}, EngineLimits(tiny.NAME, 16, "sha256:0"), "hold different weights of demo/tiny: train on the files that"),
        ({"lora__targets": ["q_proj", "query"]}, FITS, "has no linear layer query: set lora.targets to all-linear, or"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_remedy(
    tmp_path: Path, changed: dict[str, Any], limits: EngineLimits, said: str
):
    base = write_base(tmp_path / "base")
    (base / "model.safetensors").write_bytes(
        safetensors({"model.layers.0.self_attn.q_proj.weight": ("F32", (2, 2), bytes(16))})
    )
    wanted = tiny.settings(tmp_path, base, **changed)
    require_limits(tiny.settings(tmp_path, base), FITS)
    with pytest.raises(NotServable, match=re.escape(said)):
        require_limits(wanted, limits)


def test_a_base_of_the_hubs_cache_is_compared_once_it_is_whole(tmp_path: Path):
    kept = tmp_path / "hub/models--demo--tiny"
    snapshot = write_base(kept / "snapshots/abc")
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("abc")
    parts = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {f"model.layers.{n}.weight": part for n, part in enumerate(parts)}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    wanted, limits = tiny.settings(tmp_path, tmp_path, model_path=None), EngineLimits(tiny.NAME, 16, "sha256:0")
    for part in parts:
        require_limits(wanted, limits, hub_cache=tmp_path / "hub")  # it is loaded when the training begins
        (snapshot / part).write_bytes(safetensors({"x": ("F32", (2, 2), bytes(16))}))
    with pytest.raises(NotServable, match="snapshots/abc and the gateway's engine hold different weights of demo/tiny"):
        require_limits(wanted, limits, hub_cache=tmp_path / "hub")
    require_limits(wanted, EngineLimits(tiny.NAME, 16, base_revision(snapshot)), hub_cache=tmp_path / "hub")
    require_limits(tiny.settings(tmp_path, tmp_path, model_path=None, base_model="a/b/c"), EngineLimits("a/b/c", 16))


@pytest.mark.parametrize("before", ["acme/support@1", None])
def test_a_start_from_a_directory_keeps_what_its_manifest_says_it_went_on_from(tmp_path: Path, before: str | None):
    made = manifest(rank=8)
    directory = write_adapter(tmp_path / "made", rank=8)
    (directory / "manifest.json").write_bytes(
        made.model_copy(update={"lineage": made.lineage.model_copy(update={"continues": before})}).to_json()
    )
    wanted = tiny.settings(tmp_path, tmp_path, training__start_from=str(directory))
    run = RunDirectory(wanted)
    run.keep_data([], [], {})
    start.keep(run, wanted)
    run.close()
    assert run.start is not None and run.about["start"].get("ref") == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "'nowhere' is neither a version nor a directory: write it as tenant/name@version"),
        ("acme/support@1", "acme/support@1 has nowhere to come from: set publish.store or GATEWAY_URL"),
    ],
)
def test_a_start_that_is_nowhere_is_refused_before_training(tmp_path: Path, given: str, said: str):
    with pytest.raises(InvalidConfig, match=re.escape(said)):
        run_all(tiny.settings(tmp_path, tmp_path, training__start_from=given), Silent())
