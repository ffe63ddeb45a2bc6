"""A delivery attempt in the audit trail: that it begins, what arrived, what did not."""

from datetime import UTC, datetime
from pathlib import Path

from node.settings import Destination
from node.workflow.delivery_audit import DeliveryAudit
from storage.database import Database
from storage.ingest import Reception, ingest
from storage.objects import ObjectStore
from tests.fixtures.audit_sinks import trail_into
from tests.fixtures.instances import mr_file

PACS = Destination(name="pacs", ae_title="PACS", host="10.0.0.5", port=104)
SOP_CLASSES = {"1.1": "1.2.840.10008.5.1.4.1.1.88.33", "1.2": "1.2.840.10008.5.1.4.1.1.66.4", "1.3": "1.2.3"}


def test_an_attempt_is_audited_with_what_arrived_and_what_did_not(database: Database, tmp_path: Path) -> None:
    reception = Reception("A", "B", datetime.now(UTC))
    ingest(database, ObjectStore(tmp_path), mr_file(tmp_path, StudyInstanceUID="1.9", PatientID="MRN-7"), reception)
    for include, patient in ((False, "withheld"), (True, "MRN-7")):
        with trail_into(include_patient_id=include) as sink:
            recorder = DeliveryAudit(database, PACS, "1.9", SOP_CLASSES)
            recorder.begins()
            recorder.ended({"1.1": True, "1.2": False})
            begins, arrived, failed = sink.events()
        assert begins.event == "Begin Transferring DICOM Instances"
        assert begins.objects == {"1.9": dict.fromkeys(SOP_CLASSES.values(), 1), patient: {}}
        assert (arrived.outcome, arrived.objects["1.9"]) == ("0", {SOP_CLASSES["1.1"]: 1})
        assert (failed.outcome, set(failed.objects["1.9"])) == ("4", {SOP_CLASSES["1.2"], SOP_CLASSES["1.3"]})
        assert failed.description.startswith("2 instances not delivered")
        assert begins.addresses == arrived.addresses == ("10.0.0.5",)
        assert begins.ae_titles == ("PACSGATE", "PACS")


def test_nothing_due_leaves_nothing(database: Database) -> None:
    with trail_into() as sink:
        recorder = DeliveryAudit(database, PACS, "1.9", {})
        recorder.begins()
        recorder.ended({})
        assert sink.events() == []
