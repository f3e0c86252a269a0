"""The tiny base model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.tiny import make_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))
