"""The object store: durable, content-addressed, checked on reading, and never led outside by a name."""

import errno
import hashlib
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import IntegrityError, InvalidDigest, ObjectMissing, ObjectStoreUnavailable
from storage.objects import ObjectStore, StoredObject, file_system_of


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def _files(store: ObjectStore) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"abc", bytes(3_000_000)], ids=["empty", "small", "large"])
def test_put_then_read(store: ObjectStore, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    assert store.put(data) == StoredObject(digest, len(data))
    assert store.read(digest) == data
    assert store.verified_path(digest).read_bytes() == data
    assert _files(store) == [f"{digest[:2]}/{digest}"]


def test_adopt_moves_the_file(store: ObjectStore, tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.write_bytes(b"abc")
    stored = store.adopt(received)
    assert not received.exists()
    assert store.read(stored.digest) == b"abc"


def test_adopting_the_same_content_again_keeps_one_copy_and_heals_it(store: ObjectStore, tmp_path: Path) -> None:
    stored = store.put(b"abc")
    store.path(stored.digest).write_bytes(b"damaged")
    assert store.put(b"abc") == stored
    assert store.read(stored.digest) == b"abc"
    assert len(_files(store)) == 1


def test_adopt_from_another_volume(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = tmp_path / "received"
    received.write_bytes(b"abc")
    replace = Path.replace

    def as_between_volumes(source: Path, target: Path) -> Path:
        if source == received:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", as_between_volumes)
    assert store.read(store.adopt(received).digest) == b"abc"
    assert not received.exists()
    assert len(_files(store)) == 1


def test_content_is_synced_before_and_the_folder_after_the_rename(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        steps.append("sync " + ("folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file"))
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(source, target)

    store.put(b"abc")
    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    store.put(b"abc")
    assert steps == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize(("file_system", "synced"), [("ext4", ["file"]), ("xfs", ["file"]), ("", ["file", "folder"])])
def test_a_kept_file_is_synced_after_it_has_its_name_and_its_folder_where_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, synced: list[str]
) -> None:
    monkeypatch.setattr("storage.objects.file_system_of", lambda _: file_system)
    store = ObjectStore(tmp_path / "objects")
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def noting_fsync(descriptor: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file")
        fsync(descriptor)

    def noting_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "link", noting_link)
    received = tmp_path / "received"
    received.write_bytes(b"abc")
    store.keep(received, hashlib.sha256(b"abc").hexdigest())
    assert steps == ["link", *synced]


def test_the_file_system_is_told_by_the_kernel(tmp_path: Path) -> None:
    listed = subprocess.run(["df", "--output=fstype", tmp_path], capture_output=True, text=True, check=True).stdout
    assert file_system_of(tmp_path) == listed.split()[-1]


@pytest.mark.parametrize("damage", [b"abX", b"ab", b"abcd", b""])
def test_damage_is_found_on_reading(store: ObjectStore, damage: bytes) -> None:
    digest = store.put(b"abc").digest
    store.path(digest).write_bytes(damage)
    for read in (store.read, store.verify, store.verified_path):
        with pytest.raises(IntegrityError, match=digest):
            read(digest)


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    for read in (store.read, store.open, store.verify, store.verified_path):
        with pytest.raises(ObjectMissing, match="0" * 64):
            read("0" * 64)


def test_a_refusing_volume_is_reported_and_the_file_is_left(store: ObjectStore, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    (store.root / digest[:2]).rmdir()
    (store.root / digest[:2]).write_bytes(b"a file where a folder must be")
    received = tmp_path / "received"
    received.write_bytes(b"abc")
    with pytest.raises(ObjectStoreUnavailable, match="objects"):
        store.adopt(received)
    assert received.read_bytes() == b"abc"
    with pytest.raises(ObjectStoreUnavailable):
        store.put(b"abc")
    assert not list((store.root / ".temporary").iterdir())


_HOSTILE = st.one_of(
    st.text(max_size=100),
    st.from_regex(r"(\.\./){1,20}etc/passwd", fullmatch=True),
    st.from_regex(r"[0-9.]{1,64}", fullmatch=True),
    st.from_regex(r"[0-9a-f]{64}(\n|\x00|/\.\.)", fullmatch=True),
    st.from_regex(r"[0-9A-F]{64}", fullmatch=True).filter(lambda name: not re.fullmatch("[0-9]{64}", name)),
)


@given(name=_HOSTILE)
def test_no_name_leads_outside(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = ObjectStore(tmp_path_factory.getbasetemp() / "hostile-names")
    with pytest.raises(InvalidDigest):
        store.path(name)
    with pytest.raises(InvalidDigest):
        store.open(name)


@given(digest=st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_every_digest_lies_in_a_folder_of_the_root(digest: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = ObjectStore(tmp_path_factory.getbasetemp() / "digests")
    assert store.path(digest).parent.parent == store.root


def test_sweep_removes_old_temporary_files_only(store: ObjectStore) -> None:
    stored = store.put(b"abc")
    old, new = (store.root / ".temporary" / name for name in ("old.part", "new.part"))
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 100,) * 2)
    os.utime(store.path(stored.digest), (0, 0))
    assert store.sweep_temporary(older_than_s=50) == 1
    assert not old.exists()
    assert new.exists()
    assert store.read(stored.digest) == b"abc"
