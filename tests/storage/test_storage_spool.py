"""The spool: what is not adopted does not stay."""

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from storage.objects import ObjectStore
from storage.spool import Spool


def test_a_file_in_flight_can_be_adopted(tmp_path: Path) -> None:
    spool, store = Spool(tmp_path / "spool"), ObjectStore(tmp_path / "objects")
    with spool.new_file() as file:
        file.write(b"abc")
        file.flush()
        stored = store.adopt(Path(file.name))
    assert store.read(stored.digest) == b"abc"
    assert not list(spool.directory.iterdir())


def test_a_file_that_was_not_adopted_is_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with suppress(ConnectionError), spool.new_file():
        assert len(list(spool.directory.iterdir())) == 1
        raise ConnectionError
    assert not list(spool.directory.iterdir())


def test_sweep_removes_what_a_crash_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    old, new = spool.directory / "old", spool.directory / "new"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 100,) * 2)
    assert spool.sweep(older_than_s=50) == 1
    assert [path.name for path in spool.directory.iterdir()] == ["new"]
    assert spool.sweep() == 1


def test_free_space_is_that_of_the_volume(tmp_path: Path) -> None:
    volume = os.statvfs(tmp_path)
    assert Spool(tmp_path).free_bytes() == pytest.approx(volume.f_bavail * volume.f_frsize, rel=0.05)
