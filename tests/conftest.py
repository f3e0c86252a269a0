"""What every selection of the tests shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# For `make test-fast`, whose processes share what cores there are; `make test` takes the default, 100 examples.
settings.register_profile("fast", max_examples=10, deadline=None)

NEEDS = {
    "test_batches.py": "training",
    "test_preference.py": "training",
    "test_sft.py": "training",
    "test_cpu_lora.py": "engine",
    "test_engine.py": "engine",
    "test_loop.py": "engine",
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing torch, TRL or vLLM takes ten seconds: not for a selection that leaves out all that need them."""
    marker = NEEDS.get(collection_path.name)
    return True if marker is not None and f"not {marker}" in config.option.markexpr else None
