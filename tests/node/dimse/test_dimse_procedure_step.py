"""MPPS as provider: a scanner (pynetdicom) begins and ends steps; what it may not do is refused as PS3.4 F says."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import ModalityPerformedProcedureStep
from sqlalchemy import select

from node.dimse.procedure_step import ProcedureStepScp
from node.dimse.server import Receiver, ReceiverOptions
from storage.database import Database
from storage.models import JournalEntry, PerformedInstance, PerformedProcedureStep, PerformedStepStudy
from storage.objects import ObjectStore
from tests.fixtures.instances import mr_data_set

MR = str(mr_data_set().SOPClassUID)


@pytest.fixture
def port(database: Database, tmp_path: Path) -> Iterator[int]:
    options = ReceiverOptions(port=0)
    with Receiver(options, database, ObjectStore(tmp_path / "objects"), tmp_path / "spool") as receiver:
        yield receiver.port


@contextmanager
def scanner(port: int) -> Iterator[Association]:
    ae = AE("SCANNER")
    association = ae.associate(
        "127.0.0.1", port, [build_context(ModalityPerformedProcedureStep, ExplicitVRLittleEndian)], "PACSGATE"
    )
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def begun(*studies: str, **attributes: Any) -> Dataset:
    """The attributes of an N-CREATE."""
    step = Dataset()
    step.PatientName = "Doe^Jane"
    step.PatientID = "P1"
    step.PerformedProcedureStepID = "PPS1"
    step.PerformedStationAETitle = "SCANNER"
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.Modality = "MR"
    step.PerformedSeriesSequence = []
    items = []
    for study in studies or ("1.2.3",):
        item = Dataset()
        item.StudyInstanceUID = study
        items.append(item)
    step.ScheduledStepAttributesSequence = items
    for keyword, value in attributes.items():
        setattr(step, keyword, value)
    return step


def ended(status: str, named: dict[str, list[str]] | None = None) -> Dataset:
    """The modifications of an N-SET; ``named`` maps series to instances."""
    step = Dataset()
    step.PerformedProcedureStepStatus = status
    if named is not None:
        series = []
        for series_uid, instances in named.items():
            item = Dataset()
            item.SeriesInstanceUID = series_uid
            item.ReferencedImageSequence = []
            for uid in instances:
                reference = Dataset()
                reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = MR, uid
                item.ReferencedImageSequence.append(reference)
            series.append(item)
        step.PerformedSeriesSequence = series
    return step


def create(association: Association, step: Dataset, uid: str | None = "1.2.7") -> tuple[Dataset, Dataset | None]:
    return association.send_n_create(step, ModalityPerformedProcedureStep, uid)


def change(association: Association, modifications: Dataset, uid: str = "1.2.7") -> Dataset:
    return association.send_n_set(modifications, ModalityPerformedProcedureStep, uid)[0]


def stored(database: Database) -> PerformedProcedureStep:
    with database.read() as session:
        return session.scalars(select(PerformedProcedureStep)).one()


def test_a_step_from_beginning_to_end(database: Database, port: int) -> None:
    with scanner(port) as association:
        assert create(association, begun("1.2.3", "1.2.4"))[0].Status == 0x0000
        row = stored(database)
        assert (row.sop_instance_uid, row.status, row.calling_ae_title, row.modality) == (
            "1.2.7",
            "IN PROGRESS",
            "SCANNER",
            "MR",
        )
        assert change(association, ended("IN PROGRESS", {"1.2.3.4": ["1.2.3.4.1"]})).Status == 0x0000
        named = {"1.2.3.4": ["1.2.3.4.1", "1.2.3.4.2"], "1.2.3.5": ["1.2.3.5.1"]}
        assert change(association, ended("COMPLETED", named)).Status == 0x0000
    assert stored(database).status == "COMPLETED"
    with database.read() as session:
        assert set(session.scalars(select(PerformedStepStudy.study_instance_uid))) == {"1.2.3", "1.2.4"}
        instances = session.execute(select(PerformedInstance.series_instance_uid, PerformedInstance.sop_instance_uid))
        assert {tuple(row) for row in instances} == {
            ("1.2.3.4", "1.2.3.4.1"),
            ("1.2.3.4", "1.2.3.4.2"),
            ("1.2.3.5", "1.2.3.5.1"),
        }
        journal = [(e.study_instance_uid, e.event) for e in session.scalars(select(JournalEntry))]
    assert sorted(journal) == [
        (study, event) for study in ("1.2.3", "1.2.4") for event in ("procedure-step-ended", "procedure-step-started")
    ]


@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_is_final(database: Database, port: int, final: str) -> None:
    with scanner(port) as association:
        create(association, begun())
        assert change(association, ended(final, {"1.2.3.4": ["1.2.3.4.1"]})).Status == 0x0000
        refused = change(association, ended("IN PROGRESS", {}))
    assert (refused.Status, refused.ErrorID) == (0x0110, 0xA710)
    assert "may no longer be updated" in refused.ErrorComment
    assert stored(database).status == final
    with database.read() as session:
        assert len(session.scalars(select(PerformedInstance)).all()) == 1


def test_what_is_wrong_is_refused_with_its_status(database: Database, port: int) -> None:
    nothing_scheduled = begun()
    nothing_scheduled.ScheduledStepAttributesSequence = []
    nameless = begun()
    del nameless.ScheduledStepAttributesSequence[0].StudyInstanceUID
    with scanner(port) as association:
        assert change(association, ended("COMPLETED")).Status == 0x0112
        assert create(association, begun(PerformedProcedureStepStatus="COMPLETED"))[0].Status == 0x0106
        assert create(association, nothing_scheduled)[0].Status == 0x0120
        assert create(association, nameless)[0].Status == 0x0120
        assert create(association, begun())[0].Status == 0x0000
        assert create(association, begun("1.2.99"))[0].Status == 0x0111
        assert change(association, ended("FINISHED")).Status == 0x0106
        assert change(association, ended("COMPLETED", {"no uid": ["1.2"]})).Status == 0x0106
        assert stored(database).status == "IN PROGRESS"
        with database.read() as session:
            assert session.scalars(select(PerformedStepStudy.study_instance_uid)).all() == ["1.2.3"]


def test_a_step_without_uid_gets_one(database: Database, port: int) -> None:
    with scanner(port) as association:
        status, _ = create(association, begun(), None)
    assert status.Status == 0x0000
    assert stored(database).sop_instance_uid.startswith("1.")


def test_no_name_of_a_patient_in_the_log(
    port: int, database: Database, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with scanner(port) as association:
        create(association, begun())
        create(association, begun())
        change(association, ended("COMPLETED", {"1.2.3.4": ["1.2.3.4.1"]}))
    written = caplog.text + "".join(capfd.readouterr())
    assert "procedure-step" in written
    assert "Doe" not in written


class _Requestor:
    ae_title = "SCANNER"

    class address_info:
        address = "127.0.0.1"


class _Event:
    """What the handler looks at, with any data set in it."""

    def __init__(self, dataset: Dataset) -> None:
        self.attribute_list = self.modification_list = dataset
        self.assoc = type("Association", (), {"requestor": _Requestor})
        uid = generate_uid()
        self.request = type("Request", (), {"AffectedSOPInstanceUID": uid, "RequestedSOPInstanceUID": uid})


_KEYWORDS = ("PerformedProcedureStepStatus", "PerformedProcedureStepID", "Modality", "SeriesInstanceUID")
_values = st.text(max_size=80) | st.sampled_from(["IN PROGRESS", "COMPLETED", "1.2.3"])
_items = st.dictionaries(
    st.sampled_from([*_KEYWORDS, "StudyInstanceUID", "ReferencedSOPInstanceUID", "ReferencedSOPClassUID"]), _values
)


@settings(max_examples=60, deadline=None)
@given(_items, st.lists(_items, max_size=3), st.lists(_items, max_size=3))
def test_every_data_set_is_answered(
    sqlite_index: Database, attributes: dict[str, str], scheduled: list[dict[str, str]], performed: list[dict[str, str]]
) -> None:
    dataset = _data_set(attributes)
    dataset.ScheduledStepAttributesSequence = [_data_set(item) for item in scheduled]
    dataset.PerformedSeriesSequence = [_data_set(item) for item in performed]
    for item in dataset.PerformedSeriesSequence:
        item.ReferencedImageSequence = [_data_set(one) for one in scheduled]
    scp = ProcedureStepScp(sqlite_index)
    for answer, _ in (scp.on_n_create(_Event(dataset)), scp.on_n_set(_Event(dataset))):
        assert answer.Status in {0x0000, 0x0106, 0x0110, 0x0111, 0x0112, 0x0117, 0x0120, 0x0213}


def _data_set(values: dict[str, str]) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture(scope="module")
def sqlite_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('steps') / 'index.db'}")
    database.migrate()
    yield database
    database.dispose()
