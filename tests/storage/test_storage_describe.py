"""Describing: every instance once, whoever does it, whatever dies or changes meanwhile."""

import multiprocessing
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from node import indexer
from storage import describe
from storage.database import Database
from storage.describe import describe_pending, describe_study, waiting_since
from storage.errors import ObjectStoreUnavailable
from storage.ingest import Ingested, Reception, ingest
from storage.models import Instance
from storage.objects import ObjectStore
from tests.fixtures.instances import mr_file

FORK = multiprocessing.get_context("fork")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Node:
    """An index and its object store, with what the tests ask of them."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.objects = ObjectStore(folder / "objects")
        self._folder = folder

    def receive(self, number: int = 5, at: datetime = NOON, **attributes: Any) -> Ingested:
        path = mr_file(self._folder, SOPInstanceUID=f"1.2.3.4.{number}", **attributes)
        return ingest(self.database, self.objects, path, Reception("MR1", "10.0.0.1", at))

    def described(self) -> dict[str, str | None]:
        """The Patient ID in the header of each instance, None where it is not described."""
        with self.database.read() as session:
            rows = session.execute(select(Instance.sop_instance_uid, Instance.header).order_by(Instance.id)).all()
        return {uid: header and header["00100020"]["Value"][0] for uid, header in rows}

    def undescribed(self) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count(Instance.id)).where(Instance.header.is_(None))) or 0


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Node:
    return Node(database, tmp_path)


def test_who_has_waited_longest_comes_first(node: Node) -> None:
    for number in range(5):
        node.receive(number)
    assert describe_pending(node.database, node.objects, limit=2) == 2
    assert list(node.described().values()) == ["P1", "P1", None, None, None]
    assert [describe_pending(node.database, node.objects, limit=2) for _ in range(3)] == [2, 1, 0]
    assert set(node.described().values()) == {"P1"}


def test_one_study_is_described_whole_and_no_other(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "BATCH_SIZE", 2)
    for number in range(5):
        node.receive(number)
    node.receive(9, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.4")
    assert describe_study(node.database, node.objects, "1.2.3") == 5
    assert node.described() == {f"1.2.3.4.{n}": "P1" for n in range(5)} | {"1.2.3.4.9": None}
    assert describe_study(node.database, node.objects, "1.2.77") == 0


def test_an_instance_replaced_meanwhile_is_described_anew(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced while its old header is read: at once on SQLite, which locks nothing; later on PostgreSQL."""
    node.receive(PatientID="OLD")
    read_all = describe._read_all
    replaced: list[str] = []
    replacement = threading.Thread(target=lambda: replaced.append(node.receive(PatientID="NEW").outcome))

    def replaced_after_reading(*arguments: Any) -> Any:
        read = read_all(*arguments)
        replacement.start()
        replacement.join(None if node.database.is_sqlite else 0.3)
        return read

    monkeypatch.setattr(describe, "_read_all", replaced_after_reading)
    describe_pending(node.database, node.objects)
    replacement.join(30)
    assert replaced == ["replaced"]
    assert node.described() == {"1.2.3.4.5": None}
    monkeypatch.setattr(describe, "_read_all", read_all)
    assert describe_pending(node.database, node.objects) == 1
    assert node.described() == {"1.2.3.4.5": "NEW"}


def test_an_instance_replaced_after_it_was_described_is_described_anew(node: Node) -> None:
    node.receive(PatientID="OLD")
    describe_pending(node.database, node.objects)
    node.receive(PatientID="NEW")
    assert node.described() == {"1.2.3.4.5": None}
    assert describe_pending(node.database, node.objects) == 1
    assert node.described() == {"1.2.3.4.5": "NEW"}


@pytest.mark.parametrize("damage", ["missing", "changed", "no DICOM"])
def test_an_object_that_cannot_be_read_is_a_fault_and_holds_up_nobody(node: Node, damage: str) -> None:
    digest = node.receive(PatientID="BAD").digest
    assert digest is not None
    node.receive(6, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.4")
    path = node.objects.path(digest)
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        stored = node.objects.put(b"no DICOM at all")
        with node.database.session() as session:
            session.query(Instance).filter_by(object_digest=digest).update({"object_digest": stored.digest})
    assert describe_pending(node.database, node.objects) == 2
    assert describe_pending(node.database, node.objects) == 0
    with node.database.read() as session:
        bad, good = session.scalars(select(Instance).order_by(Instance.id)).all()
        assert (bad.header, len(bad.header_faults)) == ({}, 1)
        assert bad.header_faults[0].startswith("its header cannot be read: ")
        assert "BAD" not in bad.header_faults[0]
        assert (good.header["00100020"]["Value"], good.header_faults) == (["P1"], [])


def test_a_volume_that_refuses_keeps_instances_waiting(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.receive()

    def refuses(_self: ObjectStore, _digest: str) -> Path:
        raise ObjectStoreUnavailable("the volume is away")

    with monkeypatch.context() as context:
        context.setattr(ObjectStore, "verified_path", refuses)
        with pytest.raises(ObjectStoreUnavailable):
            describe_pending(node.database, node.objects)
    assert node.undescribed() == 1
    assert describe_pending(node.database, node.objects) == 1


def test_faults_of_reception_and_of_the_header_are_both_kept(node: Node) -> None:
    node.receive(4, PatientID="P0")
    node.receive(5, PatientID="P1", EchoTime="1.5")
    describe_pending(node.database, node.objects)
    with node.database.read() as session:
        faults = session.scalars(select(Instance.header_faults).where(Instance.sop_instance_uid == "1.2.3.4.5")).one()
    assert [fault for fault in faults if "another patient" in fault] == faults[:1]


def _die_while_describing(url: str, root: Path, before_commit: bool) -> None:
    database, objects = Database(url), ObjectStore(root / "objects")
    dialect = database.engine.dialect
    commit = dialect.do_commit

    def die(connection: Any) -> None:
        if not before_commit:
            commit(connection)
        os.kill(os.getpid(), signal.SIGKILL)

    if database.is_sqlite:  # the first commit ends the reading
        save = describe._save

        def save_and_arm(*arguments: Any) -> None:
            save(*arguments)
            dialect.do_commit = die  # type: ignore[method-assign]

        describe._save = save_and_arm
    else:
        dialect.do_commit = die  # type: ignore[method-assign]
    describe_pending(database, objects)


@pytest.mark.parametrize("before_commit", [True, False])
def test_a_crash_loses_no_instance_and_describes_none_twice(
    node: Node, database_url: str, tmp_path: Path, before_commit: bool
) -> None:
    for number in range(3):
        node.receive(number)
    node.database.dispose()  # connections do not survive a fork
    process = FORK.Process(target=_die_while_describing, args=(database_url, tmp_path, before_commit))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert node.undescribed() == (3 if before_commit else 0)
    assert describe_pending(node.database, node.objects) == (3 if before_commit else 0)
    assert set(node.described().values()) == {"P1"}


def _describe_all(url: str, root: Path, start: Barrier, done: Any) -> None:
    database, objects = Database(url), ObjectStore(root / "objects")
    start.wait(30)
    count = 0
    while described := describe_pending(database, objects, limit=4):
        count += described
    done.put(count)
    database.dispose()


def test_several_processes_describe_at_once(node: Node, database_url: str, tmp_path: Path) -> None:
    """On PostgreSQL each takes what the others have not; on SQLite two may read the same, and one result counts."""
    for number in range(40):
        node.receive(number, PatientID=f"P{number}")
    node.database.dispose()
    start, done = FORK.Barrier(3), FORK.Queue()
    processes = [FORK.Process(target=_describe_all, args=(database_url, tmp_path, start, done)) for _ in range(3)]
    for process in processes:
        process.start()
    counts = [done.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sum(counts) == 40 if not node.database.is_sqlite else sum(counts) >= 40
    assert node.described() == {f"1.2.3.4.{n}": f"P{n}" for n in range(40)}


def test_since_when_instances_wait(node: Node) -> None:
    assert waiting_since(node.database) is None
    node.receive(1)
    assert waiting_since(node.database) == (NOON, NOON)
    describe_pending(node.database, node.objects)
    assert waiting_since(node.database) is None


@pytest.mark.parametrize(
    ("oldest_s", "newest_s", "waits"), [(0.5, 0.1, True), (0.5, 0.3, False), (11, 0.1, False), (9, 0.1, True)]
)
def test_the_indexer_lets_a_burst_pass_but_not_for_ever(
    node: Node, monkeypatch: pytest.MonkeyPatch, oldest_s: float, newest_s: float, waits: bool
) -> None:
    for number, age_s in ((1, oldest_s), (2, newest_s)):
        node.receive(number, at=NOON - timedelta(seconds=age_s))
    monkeypatch.setattr(indexer, "utc_now", lambda: NOON)
    assert indexer._in_burst(node.database) is waits
