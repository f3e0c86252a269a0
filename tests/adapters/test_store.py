"""The store's promises: a version never changes, the same content is the same version, and damage is noticed."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.errors import AdapterCorrupted, AdapterMissing, InvalidAdapter, InvalidRef, StoreUnavailable
from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from adapters.weights import Limits, inspect
from tests.adapters.sample import BASE_MODEL, manifest, peft_config, publish, write_adapter


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AdapterStore:
    """The same promises wherever fsspec leads."""
    url = str(tmp_path / "store") if request.param == "directory" else f"memory://{uuid.uuid4().hex}/store"
    return AdapterStore(url, cache=tmp_path / "cache")


def test_a_published_version_opens_as_it_was_published(store: AdapterStore, tmp_path: Path) -> None:
    published = publish(store, tmp_path)
    opened = store.open(published.ref)
    assert opened.ref == AdapterRef("acme", "support", 1)
    assert opened.digest == published.digest
    assert sorted(entry.name for entry in opened.path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert inspect(opened.path, base_model=BASE_MODEL).files == opened.manifest.files
    assert store.get(published.ref).manifest == opened.manifest


def test_the_same_content_is_the_same_version(store: AdapterStore, tmp_path: Path) -> None:
    first = publish(store, tmp_path, seed=1)
    second = publish(store, tmp_path, seed=2)
    assert publish(store, tmp_path, seed=1) == first
    assert [first.ref.version, second.ref.version] == [1, 2]
    elsewhere = publish(store, tmp_path, seed=1, name="other")
    assert (elsewhere.ref.version, elsewhere.digest) == (1, first.digest)


def test_an_upload_of_what_was_published_is_the_same_content(store: AdapterStore, tmp_path: Path) -> None:
    first = publish(store, tmp_path)
    opened = store.open(first.ref)
    again = store.publish(opened.path, tenant="acme", name="support", manifest=opened.manifest)
    assert again == first


def test_versions_are_listed_by_name_and_age(store: AdapterStore, tmp_path: Path) -> None:
    for seed, name in ((1, "support"), (2, "support"), (3, "billing")):
        publish(store, tmp_path, seed=seed, name=name)
    publish(store, tmp_path, tenant="other", seed=9)
    assert list(map(str, store.refs("acme"))) == ["acme/billing@1", "acme/support@1", "acme/support@2"]
    assert list(map(str, store.versions("acme", "support"))) == ["acme/support@1", "acme/support@2"]
    assert store.refs("nobody") == store.versions("acme", "nothing") == store.refs("../..") == []


def test_retiring_marks_and_deletes_nothing(store: AdapterStore, tmp_path: Path) -> None:
    ref = publish(store, tmp_path).ref
    assert not store.get(ref).retired
    store.retire(ref)
    store.retire(ref)
    assert store.get(ref).retired
    assert store.open(ref).path.is_dir()


def test_a_version_that_is_not_there_is_missing(store: AdapterStore, tmp_path: Path) -> None:
    publish(store, tmp_path)
    for ref in (AdapterRef("acme", "support", 2), AdapterRef("other", "support", 1)):
        for call in (store.open, store.get, store.retire):
            with pytest.raises(AdapterMissing, match="list the versions"):
                call(ref)


def test_what_may_not_be_served_leaves_nothing_behind(tmp_path: Path) -> None:
    store = AdapterStore(str(tmp_path / "store"))
    bad = write_adapter(tmp_path / "bad", config=peft_config(use_dora=True))
    with pytest.raises(InvalidAdapter):
        store.publish(bad, tenant="acme", name="support", manifest=manifest())
    with pytest.raises(InvalidAdapter, match="rank 4"):
        good = write_adapter(tmp_path / "good")
        store.publish(good, tenant="acme", name="support", manifest=manifest(), limits=Limits(max_rank=2))
    with pytest.raises(InvalidAdapter, match="says rank 8"):
        store.publish(good, tenant="acme", name="support", manifest=manifest(rank=8))
    with pytest.raises(InvalidRef):
        store.publish(good, tenant="acme/../x", name="support", manifest=manifest())
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove", "link"])
def test_any_damage_is_noticed_even_after_a_good_open(tmp_path: Path, name: str, how: str) -> None:
    store = AdapterStore(str(tmp_path / "store"))
    ref = publish(store, tmp_path).ref
    file = store.open(ref).path / name
    data = bytearray(file.read_bytes())
    file.unlink()
    if how == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "cut":
        file.write_bytes(data[:-1])
    elif how == "link":
        (tmp_path / "aside").write_bytes(data)
        file.symlink_to(tmp_path / "aside")
    for reader in (store, AdapterStore(str(tmp_path / "store"))):
        with pytest.raises(AdapterCorrupted, match="publish the adapter again"):
            reader.open(ref)


def test_a_file_put_beside_the_published_ones_is_noticed(tmp_path: Path) -> None:
    """vLLM would prefer some files over others: an adapter is exactly what was published."""
    store = AdapterStore(str(tmp_path / "store"))
    ref = publish(store, tmp_path).ref
    (store.open(ref).path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterCorrupted, match="other files"):
        store.open(ref)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"digest": "sha256:../../etc"}', b'{"digest": 1}'])
def test_a_damaged_entry_is_corrupted_and_never_followed(tmp_path: Path, text: bytes) -> None:
    store = AdapterStore(str(tmp_path / "store"))
    ref = publish(store, tmp_path).ref
    entry = tmp_path / "store" / "refs" / "acme" / "support" / "1.json"
    entry.chmod(0o644)
    entry.write_bytes(text)
    with pytest.raises(AdapterCorrupted, match="entry"):
        store.open(ref)


def test_a_remote_version_is_copied_once_and_outlives_the_remote(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/store"
    ref = publish(AdapterStore(url, cache=tmp_path / "unused"), tmp_path).ref
    store = AdapterStore(url, cache=tmp_path / "cache")
    with ThreadPoolExecutor(8) as threads:
        paths = {opened.path for opened in threads.map(store.open, [ref] * 16)}
    assert len(paths) == 1
    inodes = {entry.stat().st_ino for entry in paths.pop().iterdir()}
    again = AdapterStore(url, cache=tmp_path / "cache").open(ref)
    assert {entry.stat().st_ino for entry in again.path.iterdir()} == inodes
    assert list((tmp_path / "cache" / "staging").iterdir()) == []


def test_a_damaged_remote_version_never_enters_the_cache(tmp_path: Path) -> None:
    import fsspec

    url = f"memory://{uuid.uuid4().hex}/store"
    published = publish(AdapterStore(url), tmp_path)
    weights = f"{url}/objects/{published.digest.removeprefix('sha256:')}/adapter_model.safetensors"
    with fsspec.open(weights, "rb") as file:
        good = file.read()
    with fsspec.open(weights, "wb") as file:
        file.write(b"\0" * len(good))
    store = AdapterStore(url, cache=tmp_path / "cache")
    with pytest.raises(AdapterCorrupted):
        store.open(published.ref)
    with fsspec.open(weights, "wb") as file:
        file.write(good)
    assert store.open(published.ref).digest == published.digest


def test_a_store_that_cannot_be_written_says_so_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreUnavailable, match="try again") as caught:
        publish(AdapterStore(str(tmp_path / "file" / "store")), tmp_path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("url", ["s4://bucket/store", "nothing-like-it://x"])
def test_a_store_that_nothing_here_reaches_says_so(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="nothing installed here reaches"):
        AdapterStore(url)


def test_staging_that_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    import os

    store = AdapterStore(str(tmp_path / "store"))
    old, young = (tmp_path / "store" / "staging" / name for name in ("old", "young"))
    for left in (old, young):
        write_adapter(left / "draft")
    os.utime(old, (time.time() - 90_000,) * 2)
    publish(store, tmp_path)
    assert not old.exists() and young.exists()


def publish_many(url: str, scratch: str, seeds: list[int]) -> list[tuple[int, int]]:
    store = AdapterStore(url)
    return [(seed, publish(store, Path(scratch), seed=seed).ref.version) for seed in seeds]


def test_publishers_in_many_processes_agree_on_one_version_for_each_content(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    seeds = [[0, 1, 2, 3, 10], [3, 2, 1, 0, 11], [0, 2, 1, 3, 12], [2, 0, 3, 1, 13]]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        told = pool.starmap(publish_many, [(url, str(tmp_path), part) for part in seeds])
    by_seed: dict[int, set[int]] = {}
    for seed, version in (pair for part in told for pair in part):
        by_seed.setdefault(seed, set()).add(version)
    assert all(len(versions) == 1 for versions in by_seed.values()), by_seed
    assert sorted(version for versions in by_seed.values() for version in versions) == list(range(1, 9))
    store = AdapterStore(url)
    assert len({store.open(ref).digest for ref in store.versions("acme", "support")}) == 8


@pytest.fixture(autouse=True)
def _nothing_in_the_home_directory(tmp_path: Path) -> Iterator[None]:
    """No test may leave copies outside its own directory."""
    home = Path.home() / ".cache" / "tuneloop"
    before = set(home.iterdir()) if home.exists() else set()
    yield
    assert (set(home.iterdir()) if home.exists() else set()) == before
