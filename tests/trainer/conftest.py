"""The tiny base model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.tiny import make_model

TRAINS = ("test_batches.py", "test_sft.py")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing torch and TRL takes ten seconds: not for a selection that leaves out every test that needs them."""
    return True if collection_path.name in TRAINS and "not training" in config.option.markexpr else None
