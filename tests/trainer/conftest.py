"""The tiny base model, made once; and pages that import torch are left closed where none of their tests is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.tiny import make_model

WITH_TORCH = {"test_batches.py", "test_preference.py", "test_sft.py"}
"""All of their tests are marked `training`, and to collect them costs each process of the tests ten CPU-seconds."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    unwanted = "not training" in config.getoption("markexpr")
    return True if unwanted and collection_path.name in WITH_TORCH else None


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))
