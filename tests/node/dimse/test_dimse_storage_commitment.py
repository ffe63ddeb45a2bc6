"""Storage commitment as provider: a scanner asks, is told what is safe and what is not, and no request is forgotten."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import select

from node.dimse.server import Receiver, ReceiverOptions
from node.settings import Settings, load_settings
from node.workflow.commitment import report_commitment_step
from node.workflow.context import NodeContext
from storage.commitment import due_reports
from storage.database import Database
from storage.ingest import Reception, ingest
from storage.models import CommitmentRequest, Instance, JournalEntry, utc_now
from storage.objects import ObjectStore
from tests.fixtures.dcmtk import free_port
from tests.fixtures.instances import mr_data_set, mr_file
from tests.fixtures.running_node import make_node, running_node

MR = str(mr_data_set().SOPClassUID)
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


@pytest.fixture
def port(database: Database, objects: ObjectStore, tmp_path: Path) -> Iterator[int]:
    """A receiver that holds three instances."""
    for number in (1, 2, 3):
        keep(database, objects, tmp_path, f"1.2.3.4.{number}")
    with Receiver(ReceiverOptions(port=0), database, objects, tmp_path / "spool") as receiver:
        yield receiver.port


def keep(database: Database, objects: ObjectStore, folder: Path, uid: str) -> None:
    ingest(database, objects, mr_file(folder, SOPInstanceUID=uid), Reception("SCANNER", "127.0.0.1", utc_now()))


@dataclass
class Reports:
    """What a scanner was told: event type, transaction, safe instances, failures by instance."""

    told: list[tuple[int, str, set[str], dict[str, int]]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    answer: int = 0x0000

    def on_report(self, event: Any) -> tuple[int, None]:
        information = event.event_information
        stored = {item.ReferencedSOPInstanceUID for item in information.get("ReferencedSOPSequence", [])}
        failed = {i.ReferencedSOPInstanceUID: i.FailureReason for i in information.get("FailedSOPSequence", [])}
        self.told.append((event.event_type, str(information.TransactionUID), stored, failed))
        self.arrived.set()
        return self.answer, None


@contextmanager
def scanner(port: int, reports: Reports) -> Iterator[Association]:
    ae = AE("SCANNER")
    association = ae.associate(
        "127.0.0.1",
        port,
        [build_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)],
        "PACSGATE",
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.on_report)],
    )
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


@contextmanager
def listening_scanner(reports: Reports) -> Iterator[int]:
    """A scanner that takes reports on a port of its own."""
    ae, port = AE("SCANNER"), free_port()
    ae.add_supported_context(StorageCommitmentPushModel, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.on_report)]
    )
    try:
        yield port
    finally:
        server.shutdown()


def request(
    association: Association, uids: list[str], transaction: str = "1.9.1", sop_class: str = MR, action: int = 1
) -> int:
    information = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        information.ReferencedSOPSequence.append(item)
    response, _ = association.send_n_action(
        information, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return int(response.Status)


def state(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        rows = session.scalars(select(CommitmentRequest).order_by(CommitmentRequest.id))
        return [(row.state, row.status) for row in rows]


def worker(database_url: str, tmp_path: Path, port: int | None) -> NodeContext:
    """A worker's context, with the scanner configured as a peer that listens on ``port``."""
    peer = {"name": "scanner", "ae_title": "SCANNER", "host": "127.0.0.1"} | ({"port": port} if port else {})
    settings: Settings = load_settings(
        storage={"data_dir": tmp_path, "database_url": database_url},
        peers=[peer],
        commitment={"first_retry_s": 0.01, "max_attempts": 2},
    )
    return NodeContext(settings)


def report_what_is_due(context: NodeContext) -> int:
    with context.database.read() as session:
        due = due_reports(session, utc_now() + timedelta(seconds=60))
    for one in due:
        report_commitment_step(context, one.request_id, one.calling_ae_title, one.attempt)
    return len(due)


def test_a_waiting_scanner_is_told_on_the_same_association(database: Database, port: int) -> None:
    reports = Reports()
    with scanner(port, reports) as association:
        assert request(association, ["1.2.3.4.1", "1.2.3.4.2"]) == 0x0000
        assert reports.arrived.wait(20)
    assert reports.told == [(1, "1.9.1", {"1.2.3.4.1", "1.2.3.4.2"}, {})]
    (row,) = wait_for(lambda: state(database), lambda rows: rows[0][0] == "done")
    assert row == ("done", "reported on the same association")
    with database.read() as session:
        events = session.scalars(select(JournalEntry.message).where(JournalEntry.event == "storage-committed")).all()
    assert len(events) == 1
    assert "2 instances safe, 0 not" in events[0]


def wait_for(look: Any, until: Any, timeout_s: float = 10) -> Any:
    deadline = time.monotonic() + timeout_s
    while not until(found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_what_is_not_safe_is_told_with_its_reason(database: Database, objects: ObjectStore, port: int) -> None:
    with database.read() as session:
        digest = session.scalars(select(Instance.object_digest).where(Instance.sop_instance_uid == "1.2.3.4.2")).one()
        gone = session.scalars(select(Instance.object_digest).where(Instance.sop_instance_uid == "1.2.3.4.3")).one()
    objects.path(digest).write_bytes(b"damaged")
    objects.path(gone).unlink()
    reports = Reports()
    asked = [
        (["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3", "1.2.3.4.9"], "1.9.1", MR),
        (["1.2.3.4.1"], "1.9.2", CT),
        (["1.2.3.4.1"], "1.9.1", MR),
    ]
    for number, (uids, transaction, sop_class) in enumerate(asked, start=1):
        with scanner(port, reports) as association:
            assert request(association, uids, transaction, sop_class) == 0x0000
            told = ["done"] * number
            assert wait_for(lambda told=told: [row[0] for row in state(database)] == told, bool, 20)
    failures = {"1.2.3.4.2": 0x0110, "1.2.3.4.3": 0x0110, "1.2.3.4.9": 0x0112}
    assert reports.told == [
        (2, "1.9.1", {"1.2.3.4.1"}, failures),
        (2, "1.9.2", set(), {"1.2.3.4.1": 0x0119}),
        (2, "1.9.1", set(), {"1.2.3.4.1": 0x0131}),
    ]


def test_a_scanner_that_hangs_up_is_told_on_a_new_association(
    database: Database, database_url: str, port: int, tmp_path: Path
) -> None:
    reports = Reports()
    with scanner(port, reports) as association:
        assert request(association, ["1.2.3.4.1", "1.2.3.4.9"]) == 0x0000
    with listening_scanner(reports) as listening:
        context = worker(database_url, tmp_path, listening)
        assert report_what_is_due(context) == 1
        assert report_what_is_due(context) == 0
        context.database.dispose()
    assert reports.told == [(2, "1.9.1", {"1.2.3.4.1"}, {"1.2.3.4.9": 0x0112})]
    assert state(database) == [("done", "reported on a new association")]


def test_a_scanner_that_is_away_is_tried_again_and_given_up_with_the_reason(
    database: Database, database_url: str, port: int, tmp_path: Path
) -> None:
    with scanner(port, Reports()) as association:
        request(association, ["1.2.3.4.1"])
    context = worker(database_url, tmp_path, free_port())
    assert [report_what_is_due(context) for _ in range(3)] == [1, 1, 0]
    context.database.dispose()
    ((final, reason),) = state(database)
    assert final == "failed"
    assert "cannot connect to scanner" in reason
    with database.read() as session:
        dead = session.scalars(select(JournalEntry).where(JournalEntry.event == "storage-commitment-not-reported"))
        assert len(dead.all()) == 1


def test_a_scanner_without_a_port_is_given_up_at_once(
    database: Database, database_url: str, port: int, tmp_path: Path
) -> None:
    with scanner(port, Reports()) as association:
        request(association, ["1.2.3.4.1"])
    context = worker(database_url, tmp_path, None)
    assert [report_what_is_due(context) for _ in range(2)] == [1, 0]
    context.database.dispose()
    ((final, reason),) = state(database)
    assert (final, "set port under its [[peers]] entry" in reason) == ("failed", True)


def test_a_scanner_that_refuses_a_report_gets_it_again(
    database: Database, database_url: str, port: int, tmp_path: Path
) -> None:
    reports = Reports(answer=0x0110)
    with scanner(port, reports) as association:
        request(association, ["1.2.3.4.1"])
        assert reports.arrived.wait(20)
    reports.answer = 0x0000
    with listening_scanner(reports) as listening:
        context = worker(database_url, tmp_path, listening)
        wait_for(lambda: report_what_is_due(context), bool)
        context.database.dispose()
    assert [told[1] for told in reports.told] == ["1.9.1", "1.9.1"]
    assert state(database)[0][0] == "done"


def test_the_same_request_again_is_the_same_request(database: Database, port: int) -> None:
    reports = Reports()
    with scanner(port, reports) as association:
        assert request(association, ["1.2.3.4.1"]) == 0x0000
    with scanner(port, reports) as association:
        assert request(association, ["1.2.3.4.1"]) == 0x0000
        assert reports.arrived.wait(20)
    assert reports.told == [(1, "1.9.1", {"1.2.3.4.1"}, {})]
    assert len(state(database)) == 1


def test_what_is_no_request_is_refused_with_its_status(database: Database, port: int) -> None:
    with scanner(port, Reports()) as association:
        assert request(association, ["1.2.3.4.1"], action=2) == 0x0123
        assert request(association, []) == 0x0114
        assert request(association, ["not a uid"]) == 0x0115
        assert request(association, ["1.2.3.4.1"], transaction="") == 0x0114
        wrong = association.send_n_action(_report("1.9.5"), 1, StorageCommitmentPushModel, "1.2.3")[0]
        assert wrong.Status == 0x0112
        unknown = association.send_n_event_report(
            _report("1.9.77"), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )[0]
        assert unknown.Status == 0x0115
    assert state(database) == []


def _report(transaction: str) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction
    return information


def test_a_report_may_come_with_reversed_roles(port: int) -> None:
    """A PACS that opens an association to us to report proposes to be the SCP in it."""
    ae = AE("PACS")
    association = ae.associate(
        "127.0.0.1",
        port,
        [build_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)],
        "PACSGATE",
        ext_neg=[build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)],
    )
    assert association.is_established
    (context,) = association.accepted_contexts
    assert (context.as_scu, context.as_scp) == (False, True)
    association.release()


@pytest.fixture(params=["sqlite", "postgresql"])
def index_url(request: pytest.FixtureRequest) -> str:
    """Of an index that the node is to make: empty for SQLite in its data folder."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("empty_postgresql_url"))


@pytest.mark.slow
def test_a_node_killed_after_its_answer_reports_when_it_is_back(index_url: str, tmp_path: Path) -> None:
    """kill -9 of all its processes between the success of N-ACTION and the report; its worker makes it."""
    reports = Reports()
    instance = mr_data_set(SOPInstanceUID="1.2.3.4.1")
    with listening_scanner(reports) as listening:
        node = make_node(tmp_path / "node", {}, database_url=index_url)
        peer = f'name = "scanner"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = {listening}\n'
        peer += 'rights = ["store", "storage-commitment"]\n'
        node.config.write_text(f"{node.config.read_text()}\n[[peers]]\n{peer}")
        with running_node(node):
            contexts = [build_context(uid, ExplicitVRLittleEndian) for uid in (MR, StorageCommitmentPushModel)]
            association = AE("SCANNER").associate("127.0.0.1", node.dicom_port, contexts, "PACSGATE")
            instance.file_meta = FileMetaDataset()
            instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            assert association.send_c_store(instance).Status == 0x0000
            assert request(association, ["1.2.3.4.1", "1.2.3.4.9"]) == 0x0000
            node.kill()
            association.abort()
            assert reports.told == []
            node.start()
            assert reports.arrived.wait(60), node.log.read_text()[-3000:]
    assert reports.told == [(2, "1.9.1", {"1.2.3.4.1"}, {"1.2.3.4.9": 0x0112})]
