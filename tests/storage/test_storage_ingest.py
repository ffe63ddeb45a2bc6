"""Ingest: what is acknowledged is stored and indexed, once, in the right study, series and revision."""

import hashlib
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import OperationalError

import storage.ingest
from storage.associations import close_association, open_association
from storage.database import Database
from storage.describe import describe_pending, describe_study
from storage.errors import IndexUnavailable, MismatchedInstance, ObjectStoreUnavailable, UnreadableInstance
from storage.header import dataset_from_json
from storage.indexing import Arrival
from storage.ingest import DuplicatePolicy, Ingested, Intake, Reception, ingest
from storage.models import (
    Association,
    Instance,
    JournalEntry,
    Patient,
    ResultObject,
    RevisionState,
    Series,
    Study,
    StudyRevision,
    utc_now,
)
from storage.objects import ObjectStore, digest_of
from tests.fixtures.instances import mr_file

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


class Node:
    """The index and object store under test, with what the tests ask of them."""

    def __init__(self, database: Database, objects: ObjectStore, folder: Path) -> None:
        self.database = database
        self.objects = objects
        self.folder = folder

    def receive(self, at: datetime = NOON, reception: dict[str, Any] | None = None, **attributes: Any) -> Ingested:
        path = mr_file(self.folder, **attributes)
        return ingest(self.database, self.objects, path, Reception("MR1", "10.0.0.1", at, **(reception or {})))

    def rows(self, *columns: Any) -> list[Any]:
        with self.database.read() as session:
            return [tuple(row) for row in session.execute(select(*columns).order_by(columns[0]))]

    def set_revision(self, state: RevisionState) -> None:
        with self.database.session() as session:
            session.execute(update(StudyRevision).values(state=state))

    def stored_files(self) -> int:
        return sum(path.is_file() for path in self.objects.root.rglob("*"))


@pytest.fixture
def node(database: Database, objects: ObjectStore, tmp_path: Path) -> Node:
    return Node(database, objects, tmp_path)


def test_an_instance_is_stored_and_indexed(node: Node, tmp_path: Path) -> None:
    path = mr_file(tmp_path)
    data = path.read_bytes()
    ingested = ingest(node.database, node.objects, path, Reception("MR1", "10.0.0.1", NOON))
    assert (ingested.outcome, ingested.revision_number, ingested.faults) == ("stored", 1, [])
    assert ingested.digest == hashlib.sha256(data).hexdigest()
    assert not path.exists()
    assert node.objects.read(ingested.digest) == data
    assert node.rows(Instance.id, Instance.header) == [(1, None)]
    assert describe_pending(node.database, node.objects) == 1
    assert describe_pending(node.database, node.objects) == 0
    with node.database.read() as session:
        instance = session.scalars(select(Instance)).one()
        study = instance.series.study
        assert (instance.sop_instance_uid, instance.instance_number, instance.size_bytes) == ("1.2.3.4.5", 7, len(data))
        assert (instance.source_ae_title, instance.received_at) == ("MR1", NOON)
        assert dataset_from_json(instance.header).PatientName == "Doe^Jane"
        assert (instance.series.series_instance_uid, instance.series.series_number) == ("1.2.3.4", 4)
        assert (study.study_instance_uid, study.study_date, study.accession_number) == ("1.2.3", "20110707", "A1")
        assert (study.first_received_at, study.last_received_at) == (NOON, NOON)
        assert (study.patient.patient_id, study.patient.patient_name) == ("P1", "Doe^Jane")
        (revision,) = study.revisions
        assert (revision.number, revision.state) == (1, RevisionState.RECEIVING)
    assert node.rows(JournalEntry.event, JournalEntry.study_instance_uid) == [("revision-opened", "1.2.3")]


def test_a_study_of_two_series_shares_its_rows(node: Node) -> None:
    for series in "45":
        for number in "123":
            uid = f"1.2.3.{series}.{number}"
            node.receive(SeriesInstanceUID=f"1.2.3.{series}", SOPInstanceUID=uid)
    counts = [len(node.rows(model.id)) for model in (Patient, Study, Series, Instance, StudyRevision)]
    assert counts == [1, 1, 2, 6, 1]


def test_last_received_moves_forward_only(node: Node) -> None:
    later, earlier = NOON + timedelta(minutes=1), NOON - timedelta(minutes=1)
    node.receive(NOON)
    node.receive(later, SOPInstanceUID="1.2.3.4.6")
    node.receive(earlier, SOPInstanceUID="1.2.3.4.7", SeriesInstanceUID="1.2.3.5")
    assert node.rows(Study.last_received_at) == [(later,)]
    assert node.rows(Series.series_instance_uid, Series.last_received_at) == [("1.2.3.4", later), ("1.2.3.5", earlier)]


def test_the_same_bytes_again_change_nothing(node: Node) -> None:
    first = node.receive()
    node.set_revision(RevisionState.FINISHED)
    again = node.receive(NOON + timedelta(hours=1))
    assert (again.outcome, again.revision_number, again.digest) == ("duplicate", 1, first.digest)
    assert node.rows(Study.last_received_at) == [(NOON,)]
    assert node.rows(StudyRevision.number) == [(1,)]
    assert node.stored_files() == 1


def test_other_bytes_under_a_known_uid_replace_and_both_are_kept(node: Node) -> None:
    old = node.receive()
    node.set_revision(RevisionState.CLOSED)
    new = node.receive(InstanceNumber=8)
    assert (new.outcome, new.revision_number) == ("replaced", 2)
    assert node.rows(Instance.object_digest, Instance.instance_number, Instance.revision_number) == [(new.digest, 8, 2)]
    assert old.digest is not None
    node.objects.verify(old.digest)
    with node.database.read() as session:
        entry = session.scalars(select(JournalEntry).where(JournalEntry.event == "instance-replaced")).one()
    assert (entry.study_instance_uid, entry.detail["old_digest"]) == ("1.2.3", old.digest)


@pytest.mark.parametrize("state", [RevisionState.CLOSED, RevisionState.FINISHED, RevisionState.FAILED])
def test_a_late_instance_opens_the_next_revision(node: Node, state: RevisionState) -> None:
    node.receive()
    node.set_revision(state)
    assert node.receive(SOPInstanceUID="1.2.3.4.6").revision_number == 2
    assert node.receive(SOPInstanceUID="1.2.3.4.7").revision_number == 2
    assert node.rows(StudyRevision.number, StudyRevision.state) == [(1, state), (2, RevisionState.RECEIVING)]
    messages = [message for _, message in node.rows(JournalEntry.id, JournalEntry.message)]
    assert messages[-1] == f"instance 1.2.3.4.6 arrived after revision 1 was {state}"


def test_an_instance_that_moves_to_another_study_reopens_both(node: Node) -> None:
    node.receive()
    node.set_revision(RevisionState.FINISHED)
    assert node.receive(StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.4").outcome == "replaced"
    open_studies = select(Study.study_instance_uid, StudyRevision.number).join(StudyRevision)
    with node.database.read() as session:
        opened = session.execute(open_studies.where(StudyRevision.state == RevisionState.RECEIVING)).all()
    assert sorted(map(tuple, opened)) == [("1.2.3", 2), ("1.2.9", 1)]
    assert ("instance-moved", "1.2.3") in node.rows(JournalEntry.event, JournalEntry.study_instance_uid)


def test_our_own_result_is_not_taken_for_an_image(node: Node) -> None:
    node.receive()
    with node.database.session() as session:
        revision_id = session.scalars(select(StudyRevision.id)).one()
        result = ResultObject(
            revision_id=revision_id,
            kind="quality-report",
            sop_instance_uid="1.2.3.9.9",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
            series_instance_uid="1.2.3.9",
            object_digest="0" * 64,
            size_bytes=1,
            created_at=utc_now(),
        )
        session.add(result)
    node.set_revision(RevisionState.FINISHED)
    identity = {"SOPInstanceUID": "1.2.3.9.9", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}
    ingested = node.receive(SeriesInstanceUID="1.2.3.9", **identity)
    assert (ingested.outcome, ingested.digest, ingested.revision_number) == ("own-result", None, None)
    assert len(node.rows(Instance.id)) == len(node.rows(StudyRevision.id)) == node.stored_files() == 1
    assert not (node.folder / "received.part").exists()


@pytest.mark.parametrize(
    ("announced", "name"),
    [
        ({"expected_sop_instance_uid": "1.2.3.4.6"}, "SOP Instance UID"),
        ({"expected_sop_class_uid": "1.2"}, "SOP Class"),
    ],
)
def test_another_instance_than_announced_is_refused(node: Node, announced: dict[str, str], name: str) -> None:
    with pytest.raises(MismatchedInstance, match=name):
        node.receive(reception=announced)
    assert node.rows(Instance.id) == node.rows(Study.id) == []
    assert node.stored_files() == 0
    assert (node.folder / "received.part").exists()


def test_an_announced_instance_is_stored(node: Node) -> None:
    announced = {"expected_sop_instance_uid": "1.2.3.4.5", "expected_sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}
    assert node.receive(reception=announced).outcome == "stored"


def test_instances_are_counted_for_their_association(node: Node) -> None:
    association = open_association(node.database, "receiver-0", "MR1", "10.0.0.1")
    for uid in ("1.2.3.4.5", "1.2.3.4.6"):
        node.receive(reception={"association_id": association}, SOPInstanceUID=uid)
    close_association(node.database, association)
    assert node.rows(Association.id, Association.instances_received) == [(association, 2)]
    assert node.rows(Instance.sop_instance_uid, Instance.association_id) == [
        ("1.2.3.4.5", association),
        ("1.2.3.4.6", association),
    ]


def test_a_study_keeps_its_first_patient_and_the_contradiction_is_noted_once(node: Node) -> None:
    node.receive()
    for number in "678":
        ingested = node.receive(SOPInstanceUID=f"1.2.3.4.{number}", PatientID="P2")
        assert any("another patient" in fault for fault in ingested.faults)
    assert node.rows(Patient.patient_id) == [("P1",)]
    assert [event for (event,) in node.rows(JournalEntry.event)] == ["patient-differs", "revision-opened"]
    with node.database.read() as session:
        faults = session.scalars(select(Instance.header_faults).where(Instance.sop_instance_uid == "1.2.3.4.6")).one()
    assert len(faults) == 1


def test_two_patients_with_one_id_stay_two(node: Node) -> None:
    node.receive()
    node.receive(StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.4", SOPInstanceUID="1.2.9.4.5", PatientName="Roe^R")
    assert node.rows(Patient.patient_name) == [("Doe^Jane",), ("Roe^R",)]


def test_the_longest_identifiers_fit_the_index(node: Node) -> None:
    """PostgreSQL's index entries end at 2,704 bytes: four bytes each are the worst case, and they must not compress."""
    marks = "".join(chr(0x20000 + (n * 7919) % 40_000) for n in range(400))
    text = {"PatientID": marks, "PatientName": marks, "IssuerOfPatientID": marks, "AccessionNumber": marks}
    ingested = node.receive(SpecificCharacterSet="ISO_IR 192", PatientBirthDate="0123456789" * 3, StudyID=marks, **text)
    assert ingested.outcome == "stored"


def test_a_locked_index_is_reported_as_such(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> None:
        raise OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))

    monkeypatch.setattr("storage.ingest.index_arrivals", locked)
    with pytest.raises(IndexUnavailable, match="index"):
        node.receive()
    assert node.rows(Instance.id) == []


def test_a_refusing_volume_is_reported_as_such(node: Node) -> None:
    for folder in node.objects.root.iterdir():
        folder.rmdir()
    with pytest.raises(ObjectStoreUnavailable):
        node.receive()
    assert node.rows(Instance.id) == node.rows(Study.id) == []


def _receive_study(url: str, root: Path, sender: int, start: Barrier) -> None:
    """Half of the instances are sent by every sender, half by this one only."""
    database, objects = Database(url), ObjectStore(root / "objects")
    folder = root / f"sender-{sender}"
    folder.mkdir()
    start.wait()
    for number in range(24):
        uid = f"1.2.3.4.{number}" if number % 2 else f"1.2.3.{5 + sender}.{number}"
        path = mr_file(folder, SOPInstanceUID=uid, SeriesInstanceUID=uid.rpartition(".")[0])
        ingest(database, objects, path, Reception(f"MR{sender}", "10.0.0.1", utc_now()))
    database.dispose()


def test_four_processes_receive_one_study(node: Node, database_url: str, tmp_path: Path) -> None:
    node.database.dispose()  # connections do not survive a fork
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(4)
    senders = [fork.Process(target=_receive_study, args=(database_url, tmp_path, n, start)) for n in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [sender.exitcode for sender in senders] == [0, 0, 0, 0]
    counts = [len(node.rows(model.id)) for model in (Patient, Study, Series, StudyRevision, Instance)]
    assert counts == [1, 1, 5, 1, 12 + 4 * 12]
    assert [event for (event,) in node.rows(JournalEntry.event)] == ["revision-opened"]
    for (digest,) in node.rows(Instance.object_digest):
        node.objects.verify(digest)


class Senders:
    """Many threads of one process that ingest through one intake, as a receiver's associations do."""

    def __init__(self, node: Node, policy: DuplicatePolicy = DuplicatePolicy.REPLACE_IF_CHANGED) -> None:
        self._node = node
        self._intake = Intake(node.database, node.objects, policy)

    def receive(self, name: str, at: datetime = NOON, **attributes: Any) -> Ingested:
        path = mr_file(self._node.folder, f"{name}.part", **attributes)
        try:
            return self._intake.ingest(path, digest_of(path), Reception("MR1", "10.0.0.1", at))
        finally:
            path.unlink()

    def at_once(self, many: list[dict[str, Any]]) -> list[Ingested | BaseException]:
        """Ingest instances of these attributes from a thread each, all together."""
        start = threading.Barrier(len(many))

        def receive(number: int) -> Ingested:
            start.wait(30)
            return self.receive(f"sender-{number}", **many[number])

        with ThreadPoolExecutor(len(many)) as pool:
            futures = [pool.submit(receive, number) for number in range(len(many))]
            return [future.exception(60) or future.result() for future in futures]


POLICIES = {
    DuplicatePolicy.KEEP_FIRST: ("duplicate", "kept-first", 1, 7, "instance-kept"),
    DuplicatePolicy.REPLACE_IF_CHANGED: ("duplicate", "replaced", 2, 8, "instance-replaced"),
    DuplicatePolicy.REPLACE_ALWAYS: ("replaced", "replaced", 2, 8, "instance-replaced"),
}


@pytest.mark.parametrize(("policy", "expected"), POLICIES.items())
def test_the_sites_policy_decides_about_known_instances(
    node: Node, policy: DuplicatePolicy, expected: tuple[str, str, int, int, str]
) -> None:
    """The same bytes again, then others, after the study was finished; what changed is in the journal."""
    same, other, files, instance_number, event = expected
    senders = Senders(node, policy)
    first = senders.receive("a")
    node.set_revision(RevisionState.FINISHED)
    again = senders.receive("b", NOON + timedelta(hours=1))
    assert again.outcome == same
    assert [number for (number,) in node.rows(StudyRevision.number)] == ([1] if same == "duplicate" else [1, 2])
    node.set_revision(RevisionState.FINISHED)
    changed = senders.receive("c", InstanceNumber=8)
    assert (changed.outcome, changed.digest is None) == (other, other == "kept-first")
    assert node.rows(Instance.sop_instance_uid, Instance.instance_number) == [("1.2.3.4.5", instance_number)]
    assert node.rows(Instance.object_digest) == [(changed.digest or first.digest,)]
    assert event in {row for (row,) in node.rows(JournalEntry.event)}
    assert node.stored_files() == files
    assert node.objects.read(first.digest or "")


def test_many_threads_receive_one_study(node: Node) -> None:
    """Forty instances in four series: each once, shared rows once."""
    many = [{"SOPInstanceUID": f"1.2.3.{n % 4}.{n}", "SeriesInstanceUID": f"1.2.3.{n % 4}"} for n in range(40)]
    outcomes = Senders(node).at_once(many)
    assert [getattr(outcome, "outcome", outcome) for outcome in outcomes] == ["stored"] * 40
    counts = [len(node.rows(model.id)) for model in (Patient, Study, Series, StudyRevision, Instance)]
    assert counts == [1, 1, 4, 1, 40]
    for outcome in outcomes:
        assert isinstance(outcome, Ingested)
        assert outcome.digest is not None
        node.objects.verify(outcome.digest)


@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_one_instance_at_once_by_many_is_stored_once(node: Node, policy: DuplicatePolicy) -> None:
    """Its second arrival is judged by the first, also within one commit."""
    outcomes = Senders(node, policy).at_once([{}] * 8)
    later = "replaced" if policy is DuplicatePolicy.REPLACE_ALWAYS else "duplicate"
    assert sorted(getattr(outcome, "outcome", str(outcome)) for outcome in outcomes) == sorted(["stored"] + [later] * 7)
    assert len(node.rows(Instance.id)) == len(node.rows(Study.id)) == len(node.rows(Series.id)) == 1
    assert node.stored_files() == 1


@pytest.mark.parametrize("policy", DuplicatePolicy)
def test_other_bytes_at_once_leave_one_version_and_say_which(node: Node, policy: DuplicatePolicy) -> None:
    outcomes = Senders(node, policy).at_once([{"InstanceNumber": number} for number in range(8)])
    later = "kept-first" if policy is DuplicatePolicy.KEEP_FIRST else "replaced"
    assert sorted(getattr(outcome, "outcome", str(outcome)) for outcome in outcomes) == sorted(["stored"] + [later] * 7)
    ((digest,),) = node.rows(Instance.object_digest)
    assert digest in {getattr(outcome, "digest", None) for outcome in outcomes}
    assert node.objects.read(digest)
    event = "instance-kept" if policy is DuplicatePolicy.KEEP_FIRST else "instance-replaced"
    assert [row for (row,) in node.rows(JournalEntry.event)].count(event) == 7


def test_an_instance_that_cannot_be_indexed_costs_its_neighbours_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refuses any transaction with one of them in it."""
    index = storage.ingest.index_arrivals

    def refuses(connection: Connection, arrivals: Sequence[Arrival], policy: DuplicatePolicy) -> list[Ingested]:
        outcomes = index(connection, arrivals, policy)
        if any(arrival.header.sop_instance_uid.endswith(".13") for arrival in arrivals):
            raise OperationalError("INSERT", {}, Exception("value refused"))
        return outcomes

    monkeypatch.setattr("storage.ingest.index_arrivals", refuses)
    outcomes = Senders(node).at_once([{"SOPInstanceUID": f"1.2.3.4.{number}"} for number in range(20)])
    assert isinstance(outcomes[13], IndexUnavailable)
    assert {getattr(outcome, "outcome", "") for n, outcome in enumerate(outcomes) if n != 13} == {"stored"}
    expected = {f"1.2.3.4.{number}" for number in range(20) if number != 13}
    assert {uid for (uid,) in node.rows(Instance.sop_instance_uid)} == expected


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["malformed", "fuzz", "charsets"])
def test_broken_files_are_indexed_or_refused(node: Node, shared_data: Path, tmp_path: Path, folder: str) -> None:
    paths = [path for path in sorted((shared_data / folder).rglob("*")) if path.suffix == ".dcm"]
    kept = 0
    for path in paths:
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
        try:
            ingested = ingest(node.database, node.objects, copy, Reception("FUZZ", "10.0.0.1", NOON))
        except UnreadableInstance:
            assert copy.read_bytes() == path.read_bytes()
            continue
        kept += 1
        assert ingested.digest is not None
        assert node.objects.read(ingested.digest) == path.read_bytes()
        describe_study(node.database, node.objects, ingested.study_instance_uid)
        with node.database.read() as session:
            query = select(Instance).where(Instance.sop_instance_uid == ingested.sop_instance_uid)
            instance = session.scalars(query).one()
            assert dataset_from_json(instance.header).SOPInstanceUID == ingested.sop_instance_uid
            if folder == "charsets":
                assert instance.series.study.patient.patient_name == str(dcmread(path).PatientName)
    assert kept >= len(paths) // 2
    with node.database.read() as session:
        indexed = select(func.count(func.distinct(Instance.series_id)))
        assert session.scalar(indexed) == session.scalar(select(func.count(Series.id)))
