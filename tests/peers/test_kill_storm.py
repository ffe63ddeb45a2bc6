"""Two hundred kill -9 of receivers, indexers and workers under load, half of them on each database.

Afterwards every acknowledged instance is there byte for byte, once, described, in rows that nobody doubled. The
processes are those of ``pacsgate up``; most are forked from a server that has imported them already, because starting
Python takes longer than everything they are killed at. Some go through the supervisor.
"""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from sqlalchemy import func, select

from node.settings import load_settings
from storage.database import Database
from storage.describe import describe_pending
from storage.models import Association, Instance, RevisionState, Series, Study, StudyRevision
from storage.objects import ObjectStore
from storage.spool import part10_prefix
from tests.fixtures.instances import sized_mr_bytes
from tests.fixtures.raw_dimse import AssociationEnded, RawAssociation
from tests.fixtures.running_node import RunningNode, make_node, running_node

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(600)]

SEED = 20261124
DIRECT_KILLS = 92
SUPERVISED_KILLS = 8
VICTIMS = ("receiver", "receiver", "receiver", "indexer", "indexer", "worker")
"""Receivers most often: they hold what is acknowledged next."""
SENDERS = 3
INSTANCES_PER_STUDY = 40
PAUSE_S = 0.03
"""Between two instances of a sender: what is stored must be read again in the end."""
CONTEXTS = [(MRImageStorage, ExplicitVRLittleEndian)]


class Sender(threading.Thread):
    """A scanner: sends small instances over one association after the other, each until it is acknowledged."""

    TEMPLATE_UID, TEMPLATE_STUDY = "1.2.826.0.1.90.10000000", "1.2.826.0.1.91.1000"
    TEMPLATE = sized_mr_bytes(TEMPLATE_UID, TEMPLATE_STUDY, rows=16, columns=16)

    def __init__(self, number: int, port: int) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self.acknowledged: list[str] = []
        self.attempted: set[str] = set()
        self.asked = self.accepted = 0
        self._number, self._port = number, port
        self._sent = 0
        self._ended = threading.Event()

    @classmethod
    def data_set(cls, uid: str) -> bytes:
        """The data set of an instance: as long as its template, other UIDs."""
        _, sender, number = uid.rsplit(".", 2)
        study = f"1.2.826.0.1.{sender}.{1000 + int(number[1:]) // INSTANCES_PER_STUDY}"
        data = cls.TEMPLATE.replace(cls.TEMPLATE_UID.encode(), uid.encode())
        return data.replace(cls.TEMPLATE_STUDY.encode(), study.encode())

    def run(self) -> None:
        while not self._ended.is_set():
            self.asked += 1
            try:
                with RawAssociation(self._port, CONTEXTS, timeout_s=60) as association:
                    self.accepted += 1
                    self._send_over(association)
            except (AssociationEnded, OSError):
                self._ended.wait(0.02)

    def _send_over(self, association: RawAssociation) -> None:
        chance = random.Random(f"{SEED} {self.name} {self.asked}")
        for _ in range(chance.randint(5, 60)):
            if self._ended.is_set():
                break
            uid = f"1.2.826.0.1.{90 - self._number}.{10_000_000 + self._sent}"
            self.attempted.add(uid)
            if association.store(MRImageStorage, uid, self.data_set(uid)).Status == 0x0000:
                self.acknowledged.append(uid)
                self._sent += 1
            self._ended.wait(chance.uniform(0, 2 * PAUSE_S))
        association.release()

    def stop(self) -> None:
        """Finish the instance that is under way, release, end."""
        self._ended.set()


@contextmanager
def sending(port: int) -> Iterator[list[Sender]]:
    senders = [Sender(number, port) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.stop()
        for sender in senders:
            sender.join(60)


def acknowledged(senders: Sequence[Sender]) -> int:
    return sum(len(sender.acknowledged) for sender in senders)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 0.05) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(poll_s)


def wait_for_more(senders: Sequence[Sender], count: int = 1) -> None:
    """Until so many more instances are acknowledged: looked at often, because it costs nothing, and kills follow."""
    wanted = acknowledged(senders) + count
    wait_until(lambda: acknowledged(senders) >= wanted, 60, "instances are acknowledged", poll_s=0.005)


def _be(kind: str, config: Path, log: Path) -> None:
    """Be one of the node's processes, in a fork of the server that has imported them."""
    from node.log import configure_logging
    from node.process import RUNNERS
    from node.signals import stop_on

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ["PACSGATE_CONFIG"] = str(config)
    configure_logging(f"{kind}-0")
    RUNNERS[kind](load_settings(config), f"{kind}-0", stop_on({signal.SIGTERM}))
    os._exit(0)


@dataclass
class Processes:
    """The node's processes without their supervisor: killed and started again at once."""

    node: RunningNode
    running: dict[str, ForkServerProcess] = field(default_factory=dict)

    def start(self, kind: str) -> None:
        self.running[kind] = FORK_SERVER.Process(target=_be, args=(kind, self.node.config, self.node.log))
        self.running[kind].start()

    def kill(self, kind: str) -> None:
        process = self.running[kind]
        assert process.is_alive(), f"{kind} ended by itself: {self.node.log.read_text()[-3000:]}"
        process.kill()
        process.join(10)

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.join(60)
            if process.is_alive():
                process.kill()
                process.join(10)


FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["node.process", "node.dimse.server", "node.indexer", "node.workflow.worker"])


def assert_nothing_lost(database_url: str, data_dir: Path, senders: Sequence[Sender]) -> None:
    """What the index, the object store and the spool must hold after a storm."""
    sent = set().union(*(sender.attempted for sender in senders))
    promised = [uid for sender in senders for uid in sender.acknowledged]
    assert len(promised) == len(set(promised)) > 50
    objects = ObjectStore(data_dir / "objects")
    database = Database(database_url)
    # What the last receiver to come back has recovered may not have been described before all were stopped.
    assert describe_pending(database, objects) <= 1
    with database.read() as session:
        rows = session.execute(
            select(Instance.sop_instance_uid, Instance.object_digest, Instance.size_bytes, Study.study_instance_uid)
            .join(Series, Instance.series_id == Series.id)
            .join(Study, Series.study_id == Study.id)
        ).all()
        studies = session.scalars(select(Study.study_instance_uid)).all()
        series = session.scalar(select(func.count(Series.id)))
        associations = session.execute(
            select(Association.instances_received, Association.released_at, func.count(Instance.id))
            .outerjoin(Instance, Instance.association_id == Association.id)
            .group_by(Association.id)
        ).all()
        undescribed = session.scalar(select(func.count(Instance.id)).where(Instance.header.is_(None)))
        revisions = session.execute(
            select(StudyRevision.study_id, StudyRevision.number, StudyRevision.state).order_by(StudyRevision.id)
        ).all()
        faults = [faults for faults in session.scalars(select(Instance.header_faults)) if faults]
    database.dispose()
    stored = [row.sop_instance_uid for row in rows]
    assert len(stored) == len(set(stored))
    assert set(promised) <= set(stored) <= sent
    for row in rows:
        data = Sender.data_set(row.sop_instance_uid)
        expected = part10_prefix(MRImageStorage, row.sop_instance_uid, ExplicitVRLittleEndian) + data
        assert objects.read(row.object_digest) == expected
        assert row.size_bytes == len(expected)
        assert row.study_instance_uid.encode() in data
    assert sorted(studies) == sorted({row.study_instance_uid for row in rows})
    assert series == len(studies)
    assert all(released_at for _, released_at, _ in associations)
    assert [received for received, _, _ in associations] == [counted for _, _, counted in associations]
    assert sum(sender.accepted for sender in senders) <= len(associations) <= sum(sender.asked for sender in senders)
    assert undescribed == 0
    assert faults == []
    for study_id in {row.study_id for row in revisions}:
        mine = [row for row in revisions if row.study_id == study_id]
        assert [row.number for row in mine] == list(range(1, len(mine) + 1))
        assert [row.state for row in mine[:-1]].count(RevisionState.RECEIVING) == 0
    assert [path for path in (data_dir / "spool").rglob("*") if path.is_file()] == []


def described(database_url: str) -> bool:
    database = Database(database_url)
    with database.read() as session:
        waiting = session.scalar(select(func.count(Instance.id)).where(Instance.header.is_(None)))
    database.dispose()
    return waiting == 0


def test_killed_under_load(database_url: str, tmp_path: Path) -> None:
    node = make_node(tmp_path / "node", {}, database_url=database_url)
    (tmp_path / "node" / "data").mkdir()
    chance = random.Random(SEED)
    processes = Processes(node)
    kills = dict.fromkeys(VICTIMS, 0)
    try:
        for kind in kills:
            processes.start(kind)
        wait_until(node.listens, 60, "the receiver listens")
        with sending(node.dicom_port) as senders:
            for _ in range(DIRECT_KILLS):
                kind = chance.choice(VICTIMS)
                wait_for_more(senders)
                time.sleep(chance.uniform(0, 0.15))
                processes.kill(kind)
                kills[kind] += 1
                processes.start(kind)
        wait_until(node.listens, 60, "the receiver listens again")
        wait_until(lambda: described(database_url), 120, "all instances are described")
    finally:
        processes.stop()
    assert sum(kills.values()) == DIRECT_KILLS
    assert min(kills.values()) > 5
    assert "Traceback" not in node.log.read_text()
    assert_nothing_lost(database_url, tmp_path / "node" / "data", senders)


def test_killed_under_the_supervisor(database_url: str, tmp_path: Path) -> None:
    node = make_node(tmp_path / "node", {}, database_url=database_url, processes=2)
    chance = random.Random(SEED)
    slots = ["receiver-0", "receiver-1", "indexer-0", "worker-0"] * (SUPERVISED_KILLS // 4)
    killed: dict[str, int] = {}
    with running_node(node):
        with sending(node.dicom_port) as senders:
            for slot in slots:
                wait_for_more(senders)
                time.sleep(chance.uniform(0, 0.15))
                wait_until(lambda: node.pid_of(slot) != killed.get(slot), 60, f"{slot} is started again")  # noqa: B023
                killed[slot] = node.pid_of(slot)
                os.kill(killed[slot], signal.SIGKILL)
            wait_until(lambda: all(node.pid_of(s) != killed[s] for s in killed), 60, "all are started again")
            wait_for_more(senders, 11)
        wait_until(lambda: described(database_url), 120, "all instances are described")
        assert node.stop() == 0
    assert node.log.read_text().count("process.died") == SUPERVISED_KILLS
    assert_nothing_lost(database_url, tmp_path / "node" / "data", senders)
