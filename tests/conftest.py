"""What every selection of the tests shares."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# For `make test-fast`, whose processes share what cores there are; `make test` takes the default, 100 examples.
settings.register_profile("fast", max_examples=10, deadline=None)

# Every HTTP client reads the certificates of whom it may trust, which takes 30 ms for all the world's authorities; no
# test speaks TLS with a stranger, so there is one.
os.environ.pop("SSL_CERT_DIR", None)
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "nobody.pem")

_MARKED = re.compile(r"^pytestmark = .*$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A page that a selection leaves out whole is not even imported: torch, TRL, vLLM, a browser and the like take
    seconds, in every process."""
    left_out = re.findall(r"not (\w+)", config.option.markexpr)
    if not left_out or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    marked = _MARKED.search(collection_path.read_text())
    return True if marked and any(f"mark.{marker}" in marked[0] for marker in left_out) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What collecting makes stays until the end: the garbage collector need not look through all of it, which would
    be a tenth of the work, neither while it grows nor, over and over, while the tests run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Then it may go: libraries complain of what is still there when the process ends."""
    gc.unfreeze()
