"""Storage service as provider (PS3.4 B): from the spooled data set of a C-STORE request to an honest status.

Success is answered only after `storage.ingest` has returned, when bytes and index row are durable.
"""

import time
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

import structlog
from pynetdicom.association import Association

from node import telemetry
from node.dimse.association import AssociationRegister
from node.dimse.command_set import StoreRequest
from node.dimse.messages import StoreAnswer
from node.settings import Right
from storage.errors import (
    IndexUnavailable,
    MismatchedInstance,
    ObjectStoreUnavailable,
    StorageError,
    UnreadableInstance,
)
from storage.ingest import Intake, Reception
from storage.objects import StoredObject, digest_of
from storage.spool import DiskGuard, Spool, SpooledFile, part10_prefix

_log = structlog.get_logger(__name__)


class StoreStatus(IntEnum):
    """C-STORE statuses we answer (PS3.4 table B.2-1, PS3.7 C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    ELEMENTS_DISCARDED = 0xB006
    """A warning: the sender need not try again, and is not told that these bytes were stored."""


MAXIMUM_ERROR_COMMENT_LENGTH: Final = 64
"""Error Comment (0000,0902) is a long string, LO (PS3.5 6.2)."""

_STATUS_OF_ERROR: Final[tuple[tuple[type[Exception], StoreStatus], ...]] = (
    (MismatchedInstance, StoreStatus.DATA_SET_DOES_NOT_MATCH),
    (UnreadableInstance, StoreStatus.CANNOT_UNDERSTAND),
    (ObjectStoreUnavailable, StoreStatus.OUT_OF_RESOURCES),
    (IndexUnavailable, StoreStatus.OUT_OF_RESOURCES),
    (OSError, StoreStatus.OUT_OF_RESOURCES),
    (StorageError, StoreStatus.PROCESSING_FAILURE),
)


class StorageScp:
    """Takes in the data sets of one receiver's associations.

    ``register`` knows the associations: their rows in the index and their rights; it is told of what they brought.
    """

    def __init__(
        self,
        intake: Intake,
        spool: Spool,
        disk: DiskGuard,
        register: AssociationRegister,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self._disk = disk
        self._register = register

    def refusal(self, association: Association, *, now: bool = False) -> StoreAnswer | None:
        """Not authorised, or out of resources while the disk is almost full (PS3.4 B.2.3, PS3.7 C); None otherwise."""
        if not self._register.may(association, Right.STORE):
            return StoreAnswer(StoreStatus.NOT_AUTHORISED, "this peer has no right to store here")
        try:
            reason = self._disk.refusal(now=now)
        except StorageError as error:
            reason = str(error)
        return StoreAnswer(StoreStatus.OUT_OF_RESOURCES, error_comment(reason)) if reason else None

    def open(self, association: Association, request: StoreRequest, transfer_syntax_uid: str) -> SpooledFile:
        """Begin a data set: a spool file that holds its file meta information already."""
        file = self._spool.new_file(self._register.row_id(association))
        file.write(part10_prefix(request.sop_class_uid, request.sop_instance_uid, transfer_syntax_uid))
        return file

    def store(self, association: Association, request: StoreRequest, file: SpooledFile) -> StoreAnswer:
        """Ingest a whole data set and say what became of it; the spool file may be discarded then."""
        requestor = association.requestor
        reception = Reception(
            calling_ae_title=requestor.ae_title,
            peer_address=requestor.address_info.address,
            association_id=self._register.row_id(association),
            received_at=datetime.now(UTC),
            expected_sop_class_uid=request.sop_class_uid,
            expected_sop_instance_uid=request.sop_instance_uid,
        )
        status, reason = self._ingest(association, request, file, reception)
        _log_outcome(status, reason, reception)
        return StoreAnswer(status, error_comment(reason))

    def recover(self) -> int:
        """Ingest what a crash left whole in the spool; returns how many. Call it before anything is received."""
        count = 0
        for orphan in self._spool.recover():
            sender = self._register.sender_of(orphan.association_id)
            reception = Reception(*sender, datetime.now(UTC), association_id=orphan.association_id)
            stored = digest_of(orphan.path)
            try:
                if not self._intake.holds(stored.digest):  # named by another digest: a power cut took some of its bytes
                    raise UnreadableInstance("its bytes are not those that were received")
                self._intake.ingest(orphan.path, stored, reception)
                count += 1
            except (UnreadableInstance, MismatchedInstance) as error:
                _log.warning("orphan-dropped", reason=str(error))
            orphan.path.unlink(missing_ok=True)
        return count

    def _ingest(
        self, association: Association, request: StoreRequest, file: SpooledFile, reception: Reception
    ) -> tuple[StoreStatus, str]:
        started = time.perf_counter()
        try:
            ingested = self._intake.ingest(file.path, StoredObject(file.digest, file.size_bytes), reception)
        except (StorageError, OSError) as error:
            return status_of(error), str(error)
        seconds = time.perf_counter() - started
        telemetry.instance_received(reception.calling_ae_title, ingested.outcome, seconds, file.size_bytes)
        self._register.instance_received(association, request.sop_class_uid, ingested)
        if ingested.outcome == "kept-first":
            return StoreStatus.ELEMENTS_DISCARDED, "known instance with other content: the first version is kept"
        return StoreStatus.SUCCESS, ""


def status_of(error: StorageError | OSError) -> StoreStatus:
    """Return the status that tells a sender of ``error`` honestly whether to correct the object or to try again."""
    return next(status for kind, status in _STATUS_OF_ERROR if isinstance(error, kind))


def error_comment(reason: str) -> str:
    """Return ``reason`` as an Error Comment: at most 64 printable ASCII characters, no backslash (PS3.5 6.2, LO)."""
    printable = "".join(character if " " <= character <= "~" and character != "\\" else " " for character in reason)
    return " ".join(printable.split())[:MAXIMUM_ERROR_COMMENT_LENGTH]


def _log_outcome(status: StoreStatus, reason: str, reception: Reception) -> None:
    facts = {
        "sop_instance_uid": reception.expected_sop_instance_uid,
        "sop_class_uid": reception.expected_sop_class_uid,
        "calling_ae_title": reception.calling_ae_title,
        "association_id": reception.association_id,
    }
    if status is StoreStatus.SUCCESS:
        _log.debug("instance-stored", **facts)
    else:
        _log.warning("instance-refused", status=f"0x{status:04X}", reason=reason, **facts)
