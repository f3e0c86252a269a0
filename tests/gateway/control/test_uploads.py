"""Uploads: what a tar may hold, and that nothing else leaves a trace."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidAdapter
from adapters.package import FILES
from adapters.ref import AdapterRef
from adapters.weights import Limits
from gateway.control.adapters import Adapters
from gateway.control.tar import unpack
from gateway.errors import AdapterRefused, Conflict, NotFound
from tests.adapters import sample
from tests.gateway.control.rooms import ME, Rooms


def package(directory: Path, *, seed: int = 0, base_model: str = sample.BASE_MODEL) -> Path:
    """A directory of the three files, as the trainer has it before an upload."""
    sample.write_adapter(directory, seed=seed)
    manifest = sample.manifest(base_model=base_model, run_id=f"run-{seed}")
    (directory / "manifest.json").write_bytes(manifest.to_json())
    return directory


def tar_of(directory: Path, *, dialect: int = tarfile.PAX_FORMAT, prefix: str = "") -> Path:
    path = directory.with_suffix(".tar")
    with tarfile.open(path, "w", format=dialect) as tar:
        for file in sorted(directory.iterdir()):
            tar.add(file, prefix + file.name)
    return path


def entries(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


async def test_an_upload_is_published_and_registered_and_the_same_again_is_the_same_version(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", actor=ME)
    tar = tar_of(package(rooms.directory / "one"))
    made = await rooms.adapters.upload("acme", "support", tar, actor=ME)
    assert made.ref == AdapterRef("acme", "support", 1)
    assert await rooms.adapters.upload("acme", "support", tar, actor=ME) == made
    other = await rooms.adapters.upload("acme", "support", tar_of(package(rooms.directory / "two", seed=2)), actor=ME)
    assert other.ref.version == 2
    assert await rooms.adapters.list("acme") == [made, other]
    assert rooms.store.open(made.ref).digest == made.digest
    assert [p.name for p in rooms.directory.iterdir() if p.name.startswith("unpacked-")] == []


async def test_content_that_was_retired_does_not_come_back_by_upload(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", actor=ME)
    tar = tar_of(package(rooms.directory / "one"))
    made = await rooms.adapters.upload("acme", "support", tar, actor=ME)
    await rooms.adapters.retire(made.ref, actor=ME)
    with pytest.raises(Conflict, match="retired"):
        await rooms.adapters.upload("acme", "support", tar, actor=ME)


@pytest.mark.parametrize("dialect", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_every_common_tar_is_read(tmp_path: Path, dialect: int, prefix: str) -> None:
    directory = package(tmp_path / "one")
    (tmp_path / "out").mkdir()
    unpack(tar_of(directory, dialect=dialect, prefix=prefix), tmp_path / "out", max_bytes=10**7)
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (directory / name).read_bytes()


def test_what_the_tar_command_makes_is_read(tmp_path: Path) -> None:
    directory = package(tmp_path / "one")
    subprocess.run(["tar", "-cf", tmp_path / "one.tar", "-C", directory, "."], check=True)
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "one.tar", tmp_path / "out", max_bytes=10**7)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)


CONFIG = "adapter_config.json"
BAD = {
    "a path upwards": entries((entry(f"../{CONFIG}"), b"{}")),
    "an absolute path": entries((entry(f"/tmp/{CONFIG}"), b"{}")),
    "a folder": entries((entry(f"x/{CONFIG}"), b"{}")),
    "another file": entries((entry("training_args.bin"), b"\x80")),
    "a file twice": entries((entry(CONFIG), b"{}"), (entry(CONFIG), b"{}")),
    "a symbolic link": entries((entry(CONFIG, tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "a hard link": entries((entry(CONFIG, tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "a device": entries((entry(CONFIG, tarfile.CHRTYPE), b"")),
    "a pipe": entries((entry(CONFIG, tarfile.FIFOTYPE), b"")),
    "a sparse file": entries((entry(CONFIG, tarfile.GNUTYPE_SPARSE), b"")),
    "too much": entries((entry(CONFIG), b"x" * 70_000)),
    "too many entries": entries(*[(entry("d", tarfile.DIRTYPE), b"")] * 70),
    "half a file": entries((entry(CONFIG), b"x" * 5000))[:1024],
    "half a header": entries((entry(CONFIG), b"{}"))[:300],
    "compression": b"\x1f\x8b\x08" + b"\0" * 600,
}


@pytest.mark.parametrize("what", BAD)
def test_a_tar_with_anything_else_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "bad.tar").write_bytes(BAD[what])
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidAdapter):
        unpack(tmp_path / "bad.tar", tmp_path / "out", max_bytes=65_536)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar", "out"]
    assert sum(p.stat().st_size for p in (tmp_path / "out").iterdir()) <= 65_536


@given(data=st.binary(max_size=2000), cut=st.integers(0, 4000), at=st.integers(0, 3000))
def test_no_bytes_make_the_reader_do_anything_but_write_the_three_files(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int, at: int
) -> None:
    place = tmp_path_factory.mktemp("tar")
    whole = bytearray(entries((entry(CONFIG), b"{}" * 300), (entry("manifest.json"), b"{}")))
    whole[at : at + len(data)] = data
    (place / "odd.tar").write_bytes(bytes(whole[:cut]))
    (place / "out").mkdir()
    with contextlib.suppress(InvalidAdapter):
        unpack(place / "odd.tar", place / "out", max_bytes=65_536)
    assert {p.name for p in (place / "out").iterdir()} <= set(FILES)
    assert {p.name for p in place.iterdir()} == {"odd.tar", "out"}


async def test_a_bad_upload_leaves_nothing_in_the_store_or_the_database(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", actor=ME)
    bad = [
        tar_of(package(rooms.directory / "foreign", base_model="other/model")),
        tar_of(sample.write_adapter(rooms.directory / "without-manifest")),
        tar_of(package(rooms.directory / "loud", seed=1)),
    ]
    strict = Adapters(rooms.db, rooms.store, base_model=sample.BASE_MODEL, limits=Limits(max_rank=2))
    for tar in bad:
        with pytest.raises(AdapterRefused):
            await strict.upload("acme", "support", tar, actor=ME)
    with pytest.raises(NotFound):
        await rooms.adapters.upload("nobody", "support", bad[2], actor=ME)
    assert rooms.store.refs("acme") == []
    assert rooms.store.refs("nobody") == []
    assert await rooms.adapters.list("acme") == []


async def test_an_adapter_trained_on_other_weights_of_the_same_name_is_refused(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", actor=ME)
    made = sample.write_adapter(rooms.directory / "one")
    manifest = sample.manifest(base_revision="sha256:aaaa")
    ref = rooms.store.publish(made, tenant="acme", name="support", manifest=manifest).ref
    picky = Adapters(rooms.db, rooms.store, base_model=sample.BASE_MODEL, base_revision="sha256:bbbb")
    with pytest.raises(AdapterRefused, match="other weights"):
        await picky.register(ref, actor=ME)
    assert (await rooms.adapters.register(ref, actor=ME)).ref == ref


async def test_a_plain_peft_directory_is_imported_and_the_same_again_is_the_same_version(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", actor=ME)
    tar = tar_of(sample.write_adapter(rooms.directory / "from-another-trainer"))
    made = await rooms.adapters.upload("acme", "support", tar, actor=ME)
    assert await rooms.adapters.upload("acme", "support", tar, actor=ME) == made
    manifest = await rooms.adapters.describe(made.ref)
    assert (manifest.base_model, manifest.lineage.run_id) == (sample.BASE_MODEL, "imported")
