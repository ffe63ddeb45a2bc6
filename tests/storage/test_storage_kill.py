"""kill -9 while ingesting: what was acknowledged is whole, what was not is whole or absent, and sending again is safe.

It shows what survives the process; that the machine may lose power too rests on the order of syncs, tested with the
object store, and on the database's.
"""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from storage.database import Database
from storage.ingest import Intake, Reception
from storage.models import Instance, RevisionState, Series, Study, StudyRevision, utc_now
from storage.objects import ObjectStore, StoredObject, digest_of
from storage.spool import Spool
from tests.fixtures.instances import mr_data_set, part10

FORK = multiprocessing.get_context("fork")


class Receiver:
    """What a receiver process has: made anew in each, as connections do not survive a fork."""

    def __init__(self, url: str, root: Path) -> None:
        self.database = Database(url)
        self.objects = ObjectStore(root / "objects")
        self.spool = Spool(root / "spool")
        self.intake = Intake(self.database, self.objects)

    def receive(self, uid: str) -> str:
        """Ingest the instance ``uid`` and return the outcome."""
        with self.spool.new_file() as file:
            file.write(_bytes_of(uid))
            reception = Reception("MR1", "10.0.0.1", utc_now())
            return self.intake.ingest(file.path, StoredObject(file.digest, file.size_bytes), reception).outcome


def _bytes_of(uid: str) -> bytes:
    return part10(mr_data_set(SOPInstanceUID=uid, SeriesInstanceUID=uid.rpartition(".")[0]))


def _receive_until_killed(url: str, root: Path, run: int, acknowledge: Connection) -> None:
    receiver = Receiver(url, root)
    for number in range(1_000_000):
        uid = f"1.2.3.{run}{number % 3}.{number}"
        receiver.receive(uid)
        acknowledge.send(uid)


def _assert_whole(url: str, root: Path, acknowledged: list[str]) -> None:
    receiver = Receiver(url, root)
    for orphan in receiver.spool.recover():
        receiver.intake.ingest(orphan.path, digest_of(orphan.path), Reception("", "", utc_now()))
        orphan.path.unlink()
    receiver.objects.sweep_temporary(older_than_s=0)
    assert not list(receiver.spool.directory.iterdir())
    with receiver.database.read() as session:
        stored = dict(map(tuple, session.execute(select(Instance.sop_instance_uid, Instance.object_digest))))
        empty_series = select(func.count(Series.id)).where(~Series.instances.any())
        assert session.scalar(empty_series) == 0
        assert session.scalar(select(func.count(Study.id)).where(~Study.series.any())) == 0
        receiving = select(StudyRevision.number).where(StudyRevision.state == RevisionState.RECEIVING)
        assert session.scalars(receiving).all() == ([1] if stored else [])
    assert set(acknowledged) <= set(stored)
    for uid, digest in stored.items():
        assert receiver.objects.read(digest) == _bytes_of(uid)
    receiver.database.dispose()


@pytest.mark.slow
def test_killed_at_random_times(database_url: str, tmp_path: Path) -> None:
    chance = random.Random(20261122)
    acknowledged: list[str] = []
    for run in range(1, 9):
        parent, child = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_receive_until_killed, args=(database_url, tmp_path, run, child))
        process.start()
        child.close()
        assert parent.poll(30)  # it has begun to acknowledge
        time.sleep(chance.uniform(0.0, 0.25))
        process.kill()
        process.join()
        acknowledged += _received(parent)
    assert len(acknowledged) >= 8
    _assert_whole(database_url, tmp_path, acknowledged)


def _received(pipe: Connection) -> list[str]:
    uids = []
    while pipe.poll():
        try:
            uids.append(pipe.recv())
        except EOFError:
            break
    return uids


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(call: Callable[..., Any], before: bool) -> Callable[..., Any]:
    def last_call(*arguments: Any) -> None:
        if not before:
            call(*arguments)
        _die()

    return last_call


def _arm(step: str, receiver: Receiver) -> None:
    """Make this process die just before or after ``step`` of the next ingest."""
    before = step.startswith("before")
    if step.endswith("sync"):
        os.fsync = _dying(os.fsync, before)
    elif step.endswith("link"):
        os.link = _dying(os.link, before)
    else:
        dialect = receiver.database.engine.dialect
        dialect.do_commit = _dying(dialect.do_commit, before)  # type: ignore[method-assign]


def _die_at(url: str, root: Path, step: str) -> None:
    receiver = Receiver(url, root)
    receiver.receive("1.2.3.1.1")
    _arm(step, receiver)
    receiver.receive("1.2.3.1.2")


@pytest.mark.parametrize(
    "step", ["before link", "after link", "before sync", "after sync", "before commit", "after commit"]
)
def test_killed_at_each_step(database_url: str, tmp_path: Path, step: str) -> None:
    process = FORK.Process(target=_die_at, args=(database_url, tmp_path, step))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    _assert_whole(database_url, tmp_path, ["1.2.3.1.1"])
    receiver = Receiver(database_url, tmp_path)
    # Once whole and named in the object store, an instance is indexed at the next start, acknowledged or not.
    assert receiver.receive("1.2.3.1.2") == ("stored" if step == "before link" else "duplicate")
    receiver.database.dispose()
    _assert_whole(database_url, tmp_path, ["1.2.3.1.1", "1.2.3.1.2"])
