"""Publication killed at every step: a version is there whole, or not at all, and the next publication succeeds.

The child asks the interpreter's audit hooks for every file operation and dies by SIGKILL just before the n-th, so that
each step of the shipped code is a place of death without a line of it being changed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.store import AdapterStore
from tests.adapters.sample import manifest, write_adapter

pytestmark = pytest.mark.processes

STEPS = frozenset({"open", "os.rename", "os.link", "os.mkdir", "os.chmod", "os.remove", "os.rmdir", "os.scandir"})


def publish(store: AdapterStore, directory: Path) -> None:
    store.publish(directory, tenant="acme", name="support", manifest=manifest())


def in_a_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; its wait status."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def dies_at(step: int, root: Path, work: Callable[[], object]) -> Callable[[], object]:
    """`work`, killed before its `step`-th file operation under `root`."""

    def killed() -> None:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in STEPS and any(str(root) in str(argument) for argument in arguments):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return killed


def check(root: Path, source: Path, before: int) -> None:
    """Every version that is listed opens; the publication can be repeated and comes to the same version."""
    store = AdapterStore(str(root))
    listed = store.versions("acme", "support")
    assert [ref.version for ref in listed] in (list(range(1, before + 1)), list(range(1, before + 2)))
    for ref in listed:
        store.open(ref)
        assert not store.get(ref).retired
    again = store.publish(source, tenant="acme", name="support", manifest=manifest())
    assert again.ref.version == before + 1
    assert store.open(again.ref).digest == again.digest


@pytest.mark.parametrize("before", [0, 2], ids=["in an empty store", "after two versions"])
def test_killed_at_any_step_a_publication_is_whole_or_absent(tmp_path: Path, before: int) -> None:
    source = write_adapter(tmp_path / "source", seed=99)
    template = tmp_path / "template"
    for seed in range(before):
        publish(AdapterStore(str(template)), write_adapter(tmp_path / f"before-{seed}", seed=seed))
    outcomes = []
    for step in range(1, 500):
        root = tmp_path / f"store-{step}"
        if before:
            shutil.copytree(template, root)
        status = in_a_child(dies_at(step, root, lambda at=root: publish(AdapterStore(str(at)), source)))
        outcomes.append(len(AdapterStore(str(root)).versions("acme", "support")) - before)
        check(root, source, before)
        if os.WIFEXITED(status):
            break
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    assert outcomes == sorted(outcomes) and {0, 1} == set(outcomes), "the version appears at one step and stays"
    assert len(outcomes) > 20, "the hook saw every step"


def test_killed_while_materialising_leaves_no_half_copy(tmp_path: Path) -> None:
    url = "memory://crash-of-a-copy/store"
    source = write_adapter(tmp_path / "source")
    ref = AdapterStore(url).publish(source, tenant="acme", name="support", manifest=manifest()).ref
    for step in range(1, 500):
        cache = tmp_path / f"cache-{step}"
        status = in_a_child(dies_at(step, cache, lambda at=cache: AdapterStore(url, cache=at).open(ref)))
        AdapterStore(url, cache=cache).open(ref)
        if os.WIFEXITED(status):
            break
    assert os.WIFEXITED(status) and step > 5


def test_killed_at_random_moments_among_other_publishers_nothing_is_lost(tmp_path: Path) -> None:
    """Processes publish and each is killed after a random time: what is listed is whole and numbered from 1."""
    root = tmp_path / "store"
    moments = random.Random(7)
    sources = [write_adapter(tmp_path / f"source-{seed}", seed=seed) for seed in range(8)]
    for _ in range(6):
        children = []
        for _ in range(4):
            order = moments.sample(sources, k=len(sources))
            child = os.fork()
            if child == 0:
                for source in order:
                    publish(AdapterStore(str(root)), source)
                os._exit(0)
            children.append(child)
        for child in children:
            time.sleep(moments.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        store = AdapterStore(str(root))
        listed = store.versions("acme", "support")
        assert [ref.version for ref in listed] == list(range(1, len(listed) + 1))
        assert len({store.open(ref).digest for ref in listed}) == len(listed)
    for source in sources:
        publish(AdapterStore(str(root)), source)
    assert len(AdapterStore(str(root)).versions("acme", "support")) == len(sources)
