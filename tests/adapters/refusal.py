"""The sentence with which an adapter is refused: it ends, and it names no path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.errors import InvalidAdapter
from adapters.weights import inspect


def refusal(directory: Path, **options: Any) -> str:
    with pytest.raises(InvalidAdapter) as caught:
        inspect(directory, **options)
    sentence = str(caught.value)
    assert sentence.endswith(".") and str(directory) not in sentence
    return sentence
