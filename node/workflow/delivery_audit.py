"""What a delivery attempt leaves in the audit trail (PS3.15 A.5.3.3, A.5.3.7): that it begins, and what went over."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node import audit
from node.audit import Action, RemoteNode, Transfer
from node.settings import Destination
from storage.database import Database
from storage.deliveries import DueObject
from storage.errors import StorageError
from storage.patients import patient_ids_of

log = structlog.get_logger()


def audits_of(database: Database, destination: Destination, due: Iterable[DueObject]) -> list["DeliveryAudit"]:
    """An audit of the attempt for each study that has objects in it."""
    by_study: dict[str, dict[str, str]] = defaultdict(dict)
    for item in due:
        by_study[item.study_instance_uid][item.sop_instance_uid] = item.sop_class_uid
    return [DeliveryAudit(database, destination, study, classes) for study, classes in by_study.items()]


class DeliveryAudit:
    """One attempt to deliver objects of one study. ``sop_classes`` is the SOP Class UID by SOP Instance UID."""

    def __init__(
        self, database: Database, destination: Destination, study_instance_uid: str, sop_classes: Mapping[str, str]
    ) -> None:
        self._node = RemoteNode(destination.host, destination.ae_title)
        self._study_instance_uid = study_instance_uid
        self._sop_classes = sop_classes
        self._patient_id = _patient_id(database, study_instance_uid) if audit.trail().include_patient_id else ""

    def begins(self) -> None:
        """Record that sending begins."""
        if self._sop_classes:
            audit.trail().sending_begins(self._node, self._transfer(self._sop_classes))

    def ended(self, delivered: Mapping[str, bool]) -> None:
        """Record what was delivered and what was not. Why not stays in the journal: a PACS may name patients in it."""
        arrived = [uid for uid in self._sop_classes if delivered.get(uid, False)]
        failed = [uid for uid in self._sop_classes if not delivered.get(uid, False)]
        if arrived:
            audit.trail().instances_sent(self._node, self._transfer(arrived))
        if failed:
            failure = f"{len(failed)} instances not delivered in this attempt; the study's journal says why"
            audit.trail().instances_sent(self._node, self._transfer(failed), failure)

    def _transfer(self, sop_instance_uids: Iterable[str]) -> Transfer:
        counts = Counter(self._sop_classes[uid] for uid in sop_instance_uids)
        return Transfer(self._study_instance_uid, Action.READ, dict(counts), self._patient_id)


def _patient_id(database: Database, study_instance_uid: str) -> str:
    try:
        return patient_ids_of(database, [study_instance_uid]).get(study_instance_uid, "")
    except (SQLAlchemyError, StorageError) as error:
        log.error("audit-without-patient-id", error=type(error).__name__)
        return ""
