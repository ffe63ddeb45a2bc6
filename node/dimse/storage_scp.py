"""Storage service as provider (PS3.4 B): from the spooled data set of a C-STORE request to an honest status.

Success is answered only after `storage.ingest` has returned, when bytes and index row are durable.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Final

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.events import Event

from storage.database import Database
from storage.errors import (
    IndexUnavailable,
    MismatchedInstance,
    ObjectStoreUnavailable,
    StorageError,
    UnreadableInstance,
)
from storage.ingest import Reception, ingest
from storage.object_store import ObjectStorage
from storage.spool import Spool

_log = structlog.get_logger(__name__)


class StoreStatus(IntEnum):
    """C-STORE statuses we answer (PS3.4 table B.2-1, PS3.7 C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


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
    """The C-STORE handler of one receiver.

    ``association_row`` tells the index row of an association.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStorage,
        spool: Spool,
        minimum_free_bytes: int,
        association_row: Callable[[Association], int | None],
    ) -> None:
        self._database = database
        self._objects = objects
        self._spool = spool
        self._minimum_free_bytes = minimum_free_bytes
        self._association_row = association_row

    def on_c_store(self, event: Event) -> Dataset:
        """Handle evt.EVT_C_STORE: ingest the spooled data set, answer what became of it, leave no spool file."""
        received_at = datetime.now(UTC)
        request, path = event.request, event.dataset_path
        # pynetdicom keeps the file open for writing; on disk it is complete, because every fragment was flushed.
        request._dataset_file.close()
        reception = Reception(
            calling_ae_title=event.assoc.requestor.ae_title,
            peer_address=event.assoc.requestor.address_info.address,
            association_id=self._association_row(event.assoc),
            received_at=received_at,
            expected_sop_class_uid=str(request.AffectedSOPClassUID),
            expected_sop_instance_uid=str(request.AffectedSOPInstanceUID),
        )
        try:
            status, reason = self._store(path, reception)
        finally:
            path.unlink(missing_ok=True)
        _log_outcome(status, reason, reception)
        return _response(status, reason)

    def _store(self, path: Path, reception: Reception) -> tuple[StoreStatus, str]:
        try:
            free_bytes = self._spool.free_bytes()
            if free_bytes < self._minimum_free_bytes:
                return StoreStatus.OUT_OF_RESOURCES, f"disk almost full: {free_bytes >> 20} MiB free"
            ingest(self._database, self._objects, path, reception)
        except (StorageError, OSError) as error:
            return status_of(error), str(error)
        return StoreStatus.SUCCESS, ""


def status_of(error: StorageError | OSError) -> StoreStatus:
    """Return the status that tells a sender of ``error`` honestly whether to correct the object or to try again."""
    return next(status for kind, status in _STATUS_OF_ERROR if isinstance(error, kind))


def error_comment(reason: str) -> str:
    """Return ``reason`` as an Error Comment: at most 64 printable ASCII characters, no backslash (PS3.5 6.2, LO)."""
    printable = "".join(character if " " <= character <= "~" and character != "\\" else " " for character in reason)
    return " ".join(printable.split())[:MAXIMUM_ERROR_COMMENT_LENGTH]


def _response(status: StoreStatus, reason: str) -> Dataset:
    response = Dataset()
    response.Status = int(status)
    if reason:
        response.ErrorComment = error_comment(reason)
    return response


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
