"""What the engine could not serve is refused before anything is read or trained. Nothing here loads torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.sample import safetensors, write_base
from tests.trainer import tiny
from trainer.errors import InvalidConfig, NotServable
from trainer.gateway_client import EngineLimits
from trainer.progress import Silent
from trainer.run import run_all
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
