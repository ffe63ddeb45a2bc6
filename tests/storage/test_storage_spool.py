"""The spool: what is not stored does not stay, and what a crash left is either cut short or whole."""

import hashlib
import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from storage.errors import ObjectStoreUnavailable
from storage.objects import ObjectStore
from storage.spool import DiskGuard, Spool, part10_prefix


def test_a_file_in_flight_is_hashed_as_it_is_written(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path / "spool"), ObjectStore(tmp_path / "objects")
    with spool.new_file() as file:
        for piece in (b"a", memoryview(b"bc"), b""):
            file.write(piece)
        assert (file.digest, file.size_bytes) == (hashlib.sha256(b"abc").hexdigest(), 3)
        store.keep(file.path, file.digest)
    assert store.read(file.digest) == b"abc"
    assert not list(spool.directory.iterdir())


def test_a_file_that_was_not_stored_is_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with suppress(ConnectionError), spool.new_file():
        assert len(list(spool.directory.iterdir())) == 1
        raise ConnectionError
    assert not list(spool.directory.iterdir())


def test_recovery_drops_what_was_cut_short_and_returns_what_is_whole(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path / "spool"), ObjectStore(tmp_path / "objects")
    cut_short, whole, unowned = spool.new_file(7), spool.new_file(8), spool.new_file()
    for number, file in enumerate((cut_short, whole, unowned)):
        file.write(b"abc%d" % number)
        file.close()
    store.keep(whole.path, whole.digest)
    store.keep(unowned.path, unowned.digest)
    recovered = {(orphan.path, orphan.association_id) for orphan in spool.recover()}
    assert recovered == {(whole.path, 8), (unowned.path, None)}
    assert not cut_short.path.exists()
    assert whole.path.exists()


def test_free_space_is_that_of_the_volume(tmp_path: Path) -> None:
    volume = os.statvfs(tmp_path)
    assert Spool(tmp_path).free_bytes() == pytest.approx(volume.f_bavail * volume.f_frsize, rel=0.05)


class _Volume(Spool):
    free: int | OSError = 1000

    def free_bytes(self) -> int:
        if isinstance(self.free, OSError):
            raise self.free
        return self.free


def test_a_disk_is_full_from_the_low_watermark_until_the_high_one(tmp_path: Path) -> None:
    volume = _Volume(tmp_path)
    guard = DiskGuard(volume, 100, 200)
    states = []
    for free in (1000, 100, 99, 150, 199, 200, 150, 100, 99):
        volume.free = free
        states.append(bool(guard.refusal(now=True)))
    assert states == [False, False, True, True, True, False, False, False, True]


def test_free_space_is_not_looked_up_for_every_instance(tmp_path: Path) -> None:
    volume = _Volume(tmp_path)
    guard = DiskGuard(volume, 100, 200)
    assert not guard.refusal()
    volume.free = 0
    assert not guard.refusal()
    assert guard.refusal(now=True)


def test_a_volume_that_is_gone_is_named(tmp_path: Path) -> None:
    volume = _Volume(tmp_path)
    volume.free = OSError(5, "Input/output error")
    with pytest.raises(ObjectStoreUnavailable, match="spool"):
        DiskGuard(volume, 100, 200).refusal()


_UIDS = st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,8}){1,6}", fullmatch=True)


@given(sop_class=_UIDS, sop_instance=_UIDS, syntax=_UIDS)
def test_the_file_meta_information_is_what_pydicom_reads(sop_class: str, sop_instance: str, syntax: str) -> None:
    prefix = part10_prefix(sop_class, sop_instance, syntax)
    meta = dcmread(BytesIO(prefix)).file_meta
    read = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    assert read == (sop_class, sop_instance, syntax)
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert len(prefix) == 132 + 12 + meta.FileMetaInformationGroupLength
