"""Write docs/conformance-statement.md: the template with its tables and figures taken from the code (PS3.2).

Run ``python docs/generate_conformance.py`` after a change; a test fails where the committed file is not current.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from node.dimse.association import AssociationLimits
from node.dimse.contexts import CURRENT_STORAGE_SOP_CLASSES, RETIRED_STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from node.dimse.requestor import TIMEOUT_S
from node.dimse.storage_scp import MAXIMUM_ERROR_COMMENT_LENGTH, StoreStatus, status_of
from node.results.codes import (
    METRICS,
    PRIVATE_SCHEME,
    PRIVATE_SCHEME_VERSION,
    PROBABILITY_NON_DIAGNOSTIC,
    RESEARCH_USE,
)
from node.settings import CompletionSettings, DeliverySettings, DicomSettings
from node.workflow.version import PIPELINE_VERSION
from storage.errors import (
    IndexUnavailable,
    MismatchedInstance,
    ObjectStoreUnavailable,
    StorageError,
    UnreadableInstance,
)

FOLDER: Final = Path(__file__).parent
TEMPLATE: Final = FOLDER / "conformance-statement.template.md"
STATEMENT: Final = FOLDER / "conformance-statement.md"

STATUS_MEANINGS: Final[Mapping[StoreStatus, tuple[str, str]]] = {
    StoreStatus.SUCCESS: ("the instance is durably stored and indexed", "go on"),
    StoreStatus.OUT_OF_RESOURCES: ("disk almost full, or index or object store unavailable", "send again later"),
    StoreStatus.DATA_SET_DOES_NOT_MATCH: ("the data set is not the instance announced", "correct the object"),
    StoreStatus.CANNOT_UNDERSTAND: ("not a DICOM instance that can be indexed", "correct the object"),
    StoreStatus.NOT_AUTHORISED: ("the peer has no right to store here", "grant it the right under [[peers]]"),
    StoreStatus.ELEMENTS_DISCARDED: (
        "warning: a known instance with other content, and the site keeps the first version: these bytes are not kept",
        "nothing: a repeat changes nothing",
    ),
    StoreStatus.PROCESSING_FAILURE: ("another failure inside the node", "send again; tell the node's operator"),
}
"""Per status what it means and what the sender should do."""

INGEST_ERRORS: Final[tuple[type[StorageError], ...]] = (
    UnreadableInstance,
    MismatchedInstance,
    ObjectStoreUnavailable,
    IndexUnavailable,
)
"""What `storage.ingest.ingest` documents that it raises."""


def statement() -> str:
    """The whole document. Raises KeyError for a placeholder of the template that has no value."""
    values = _tables() | _figures()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], TEMPLATE.read_text(encoding="utf-8"))


def _figures() -> dict[str, str]:
    limits, dicom, delivery = AssociationLimits(), DicomSettings(), DeliverySettings()
    completion = CompletionSettings()
    values = {
        "version": PIPELINE_VERSION,
        "current_count": len(CURRENT_STORAGE_SOP_CLASSES),
        "retired_count": len(RETIRED_STORAGE_SOP_CLASSES),
        "implementation_class_uid": PYNETDICOM_IMPLEMENTATION_UID,
        "implementation_version_name": PYNETDICOM_IMPLEMENTATION_VERSION,
        "maximum_associations": dicom.maximum_associations,
        "maximum_pdu_bytes": limits.maximum_pdu_bytes,
        "maximum_announced_pdu_bytes": limits.maximum_announced_pdu_bytes,
        "maximum_object_gib": limits.maximum_object_bytes >> 30,
        "acse_timeout_s": f"{limits.acse_timeout_s:g}",
        "network_timeout_s": f"{dicom.network_timeout_s:g}",
        "idle_timeout_s": f"{limits.idle_timeout_s:g}",
        "error_comment_length": MAXIMUM_ERROR_COMMENT_LENGTH,
        "first_retry_s": f"{delivery.first_retry_s:g}",
        "backoff_rate": f"{delivery.backoff_rate:g}",
        "max_attempts": delivery.max_attempts,
        "study_quiet_s": f"{completion.study_quiet_s:g}",
        "open_association_quiet_s": f"{completion.open_association_quiet_s:g}",
        "scu_timeout_s": f"{TIMEOUT_S:g}",
        "port": dicom.port,
        "host": dicom.host,
        "research_use": RESEARCH_USE,
        "private_scheme": PRIVATE_SCHEME,
        "private_scheme_version": PRIVATE_SCHEME_VERSION,
    }
    return {name: str(value) for name, value in values.items()}


def _tables() -> dict[str, str]:
    statuses = ((f"0x{status:04X}", *STATUS_MEANINGS[status]) for status in sorted(StoreStatus))
    errors = [(_first_sentence(error), _status(error())) for error in INGEST_ERRORS]
    errors.append(("Fewer free bytes on the volume than configured, or it refuses a write.", _status(OSError())))
    private = [
        code for code in (PROBABILITY_NON_DIAGNOSTIC, *METRICS.values()) if code.scheme_designator == PRIVATE_SCHEME
    ]
    return {
        "transfer_syntaxes": _table(("transfer syntax", "UID"), _named(TRANSFER_SYNTAXES)),
        "current_sop_classes": _table(("SOP class", "UID"), _named(CURRENT_STORAGE_SOP_CLASSES)),
        "retired_sop_classes": _table(("SOP class", "UID"), _named(RETIRED_STORAGE_SOP_CLASSES)),
        "statuses": _table(("status", "meaning", "the sender should"), statuses),
        "errors": "\n".join(_row(error) for error in errors),
        "private_codes": _table(("code value", "meaning"), ((code.value, code.meaning) for code in private)),
    }


def _status(error: StorageError | OSError) -> str:
    return f"0x{status_of(error):04X}"


def _first_sentence(error: type[StorageError]) -> str:
    """The first sentence of its docstring; a point inside a number ends none."""
    return re.split(r"(?<=\.)\s", error.__doc__ or "", maxsplit=1)[0]


def _named(uids: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Names of the standard's dictionary; a UID it does not know stands for itself, by our keyword where it has one."""
    keywords = {**CURRENT_STORAGE_SOP_CLASSES, **RETIRED_STORAGE_SOP_CLASSES}
    for uid in uids:
        name = UID(uid).name
        yield (keywords.get(uid, uid) if name == uid else name), uid


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join([_row(head), _row(("---",) * len(head)), *(_row(row) for row in rows)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    STATEMENT.write_text(statement(), encoding="utf-8")
