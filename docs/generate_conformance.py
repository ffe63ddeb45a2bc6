"""Write docs/conformance-statement.md: the template with its tables and figures taken from the code (PS3.2).

Run ``python docs/generate_conformance.py`` after a change; a test fails where the committed file is not current.
"""

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from inspect import signature
from pathlib import Path
from typing import Final, TypeVar

from pydicom.uid import UID

from node.audit import codes
from node.dimse.association import AssociationLimits
from node.dimse.contexts import (
    CURRENT_STORAGE_SOP_CLASSES,
    RETIRED_STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    is_storage_context,
    supported_contexts,
)
from node.dimse.listener import CONNECTIONS_PER_ASSOCIATION
from node.dimse.messages import MAXIMUM_BUFFERED_MESSAGE_BYTES, MAXIMUM_COMMAND_BYTES
from node.dimse.outgoing import MAXIMUM_CONTEXTS
from node.dimse.procedure_step import MAY_NO_LONGER_BE_UPDATED, StepResponse
from node.dimse.requests import MAXIMUM_REFERENCES
from node.dimse.rights import right_of
from node.dimse.storage_commitment import CommitmentStatus, StorageCommitment
from node.dimse.storage_scp import MAXIMUM_ERROR_COMMENT_LENGTH, StoreStatus, status_of
from node.dimse.upper_layer import MAXIMUM_CONTROL_PDU_BYTES
from node.results.codes import (
    METRICS,
    PRIVATE_SCHEME,
    PRIVATE_SCHEME_VERSION,
    PROBABILITY_NON_DIAGNOSTIC,
    RESEARCH_USE,
)
from node.settings import (
    AssociationSettings,
    CommitmentSettings,
    CompletionSettings,
    DeliverySettings,
    DicomSettings,
    Peer,
    Right,
    StorageSettings,
    TlsProfile,
    TlsSettings,
)
from node.tls import CIPHERS
from node.workflow.version import PIPELINE_VERSION
from storage.commitment import FailureReason
from storage.deliveries import LONGEST_WAIT_S
from storage.errors import (
    IndexUnavailable,
    MismatchedInstance,
    ObjectStoreUnavailable,
    StorageError,
    UnreadableInstance,
)
from storage.procedure_steps import MAXIMUM_STUDIES
from storage.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

Status = TypeVar("Status", bound=IntEnum)

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

STEP_MEANINGS: Final[Mapping[StepResponse, str]] = {
    StepResponse.SUCCESS: "committed to the index",
    StepResponse.INVALID_ATTRIBUTE_VALUE: "an attribute has a value that cannot be: Error Comment names it",
    StepResponse.PROCESSING_FAILURE: "the data set cannot be decoded, or the step has ended",
    StepResponse.DUPLICATE_SOP_INSTANCE: "a step of this UID exists",
    StepResponse.NO_SUCH_SOP_INSTANCE: "N-SET to a step that was not created here",
    StepResponse.INVALID_SOP_INSTANCE: "the SOP Instance UID is none",
    StepResponse.MISSING_ATTRIBUTE: "an attribute is missing: Error Comment names it",
    StepResponse.RESOURCE_LIMITATION: "the index cannot be written, or more references than a request may have",
}
COMMITMENT_MEANINGS: Final[Mapping[CommitmentStatus, str]] = {
    CommitmentStatus.SUCCESS: "taken: the report follows; or, of a report, booked",
    CommitmentStatus.PROCESSING_FAILURE: "the data set cannot be decoded",
    CommitmentStatus.NO_SUCH_SOP_INSTANCE: "not the well-known SOP instance of the service",
    CommitmentStatus.NO_SUCH_EVENT_TYPE: "an event type other than 1 and 2",
    CommitmentStatus.NO_SUCH_ARGUMENT: "no Transaction UID, or no instance named",
    CommitmentStatus.INVALID_ARGUMENT_VALUE: "a UID that is none, or a report on an unknown transaction",
    CommitmentStatus.NO_SUCH_ACTION: "an action type other than 1",
    CommitmentStatus.RESOURCE_LIMITATION: "the index cannot be written, or more references than a request may have",
}
FAILURE_MEANINGS: Final[Mapping[FailureReason, str]] = {
    FailureReason.PROCESSING_FAILURE: "its stored bytes are missing or damaged",
    FailureReason.NO_SUCH_OBJECT_INSTANCE: "the instance is not here",
    FailureReason.CLASS_INSTANCE_CONFLICT: "it is here, of another SOP class",
    FailureReason.DUPLICATE_TRANSACTION_UID: "the Transaction UID was used before, for other instances",
}
PROFILES: Final[Mapping[TlsProfile, str]] = {
    TlsProfile.BCP195: "B.12 BCP 195 RFC 8996, 9325",
    TlsProfile.BCP195_EXTENDED: "B.13 Extended BCP 195 RFC 8996, 9325",
}
AUDIT_EVENTS: Final = (
    (codes.APPLICATION_ACTIVITY, (codes.APPLICATION_START, codes.APPLICATION_STOP)),
    (codes.BEGIN_TRANSFERRING, ()),
    (codes.INSTANCES_TRANSFERRED, ()),
    (
        codes.SECURITY_ALERT,
        (
            codes.NODE_AUTHENTICATION,
            codes.USE_OF_RESTRICTED_FUNCTION,
            codes.SOFTWARE_CONFIGURATION,
            codes.AUDIT_RECORDING_STOPPED,
        ),
    ),
    (codes.USER_AUTHENTICATION, (codes.LOGIN,)),
)
"""Audit events with their types. Queries have a code, too; this version answers none."""

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
    completion, commitment, storage = CompletionSettings(), CommitmentSettings(), StorageSettings()
    association, tls = AssociationSettings(), TlsSettings()
    values = {
        "version": PIPELINE_VERSION,
        "current_count": len(CURRENT_STORAGE_SOP_CLASSES),
        "retired_count": len(RETIRED_STORAGE_SOP_CLASSES),
        "implementation_class_uid": IMPLEMENTATION_CLASS_UID,
        "implementation_version_name": IMPLEMENTATION_VERSION_NAME,
        "ae_title": dicom.ae_title,
        "maximum_associations": dicom.maximum_associations,
        "maximum_associations_per_peer": association.maximum_associations_per_peer,
        "maximum_bytes_per_association": association.maximum_bytes_per_association,
        "connections_per_association": CONNECTIONS_PER_ASSOCIATION,
        "maximum_control_pdu_bytes": MAXIMUM_CONTROL_PDU_BYTES,
        "maximum_command_bytes": MAXIMUM_COMMAND_BYTES,
        "maximum_message_bytes": MAXIMUM_BUFFERED_MESSAGE_BYTES,
        "maximum_studies": MAXIMUM_STUDIES,
        "maximum_references": MAXIMUM_REFERENCES,
        "error_id": f"0x{MAY_NO_LONGER_BE_UPDATED:04X}",
        "report_silence_s": f"{signature(StorageCommitment).parameters['silence_s'].default:g}",
        "commitment_first_retry_s": f"{commitment.first_retry_s:g}",
        "commitment_backoff_rate": f"{commitment.backoff_rate:g}",
        "commitment_max_attempts": commitment.max_attempts,
        "report_wait_s": f"{commitment.report_wait_s:g}",
        "resend_after_s": f"{commitment.resend_after_s:g}",
        "duplicates": storage.duplicates,
        "minimum_free_bytes": storage.minimum_free_bytes,
        "discarded_status": f"0x{StoreStatus.ELEMENTS_DISCARDED:04X}",
        "resources_status": f"0x{StoreStatus.OUT_OF_RESOURCES:04X}",
        "maximum_contexts": MAXIMUM_CONTEXTS,
        "maximum_decompressed_bytes": delivery.maximum_decompressed_bytes,
        "decompression_timeout_s": f"{delivery.decompression_timeout_s:g}",
        "batch_objects": delivery.batch_objects,
        "jitter": f"{delivery.jitter:.0%}",
        "longest_retry_s": f"{LONGEST_WAIT_S:g}",
        "delivery_timeout_s": f"{delivery.timeout_s:g}",
        "tls_port": tls.port,
        "handshake_timeout_s": f"{tls.handshake_timeout_s:g}",
        "default_rights": " and ".join(f"`{right}`" for right in Peer.model_fields["rights"].default),
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
        "evidence_guard_s": f"{completion.evidence_guard_s:g}",
        "series_quiet_s": f"{completion.series_quiet_s:g}",
        "incomplete_wait_s": f"{completion.incomplete_wait_s:g}",
        "procedure_step_wait_s": f"{completion.procedure_step_wait_s:g}",
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
        "rights": _table(("right", "opens"), _rights()),
        "step_statuses": _rows_of(STEP_MEANINGS),
        "commitment_statuses": _rows_of(COMMITMENT_MEANINGS),
        "failure_reasons": _rows_of(FAILURE_MEANINGS),
        "tls_profiles": "\n".join(
            _row((f"`{profile}`", PROFILES[profile], ", ".join(CIPHERS[profile]))) for profile in TlsProfile
        ),
        "audit_events": "\n".join(
            _row((event.meaning, event.value, ", ".join(f"{kind.meaning} ({kind.value})" for kind in kinds)))
            for event, kinds in AUDIT_EVENTS
        ),
        "private_codes": _table(("code value", "meaning"), ((code.value, code.meaning) for code in private)),
    }


def _rights() -> Iterable[tuple[str, str]]:
    """The rights that open something, and what."""
    opened: dict[Right, list[str]] = {}
    for context in supported_contexts():
        right = right_of(context)
        assert right is not None, f"no right opens {context.abstract_syntax}"
        is_storage = is_storage_context(context)
        name = "the storage SOP classes of annex A" if is_storage else str(UID(context.abstract_syntax).name)
        opened.setdefault(right, []).append(name)
    return ((f"`{right}`", ", ".join(dict.fromkeys(names))) for right, names in opened.items())


def _rows_of(meanings: Mapping[Status, str]) -> str:
    return "\n".join(_row((f"0x{status:04X}", meanings[status])) for status in sorted(meanings))


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
