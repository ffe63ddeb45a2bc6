"""Storage Commitment Push Model (PS3.4 J): as provider for the peers who send to us, and as receiver of the reports
that our destinations send us.

As provider: the request is durable before it is answered. The report goes over the same association while the peer
keeps it open and silent; otherwise a worker sends it over a new one.
"""

import select
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_role
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy.exc import SQLAlchemyError

from node.dimse.contexts import storage_commitment_context
from node.dimse.requestor import DestinationUnavailable, association_with
from node.dimse.requests import (
    MAXIMUM_REFERENCES,
    UNREADABLE_ELEMENT,
    InvalidRequest,
    items,
    referenced,
    text_of,
    uid_of,
)
from node.dimse.storage_scp import error_comment
from node.settings import CommitmentSettings, Destination
from storage.commitment import (
    CommitmentReport,
    NewRequest,
    Reference,
    check,
    hand_over,
    mark_reported,
    pending_of,
    register_request,
)
from storage.database import Database
from storage.deliveries import RetryPolicy
from storage.delivery_commitment import apply_report
from storage.errors import StorageError
from storage.models import utc_now
from storage.object_store import ObjectStorage

_log = structlog.get_logger(__name__)

REQUEST_STORAGE_COMMITMENT: Final = 1
"""Action Type ID (PS3.4 table J.3-1)."""
COMMITMENT_SUCCESSFUL: Final = 1
COMMITMENT_WITH_FAILURES: Final = 2
"""Event Type IDs (PS3.4 table J.3-2)."""
LEASE_S: Final = 10.0
"""A receiver that has not reported by then is gone; a worker takes over."""
_ANSWERED_AGAIN_S: Final = 0.5


class CommitmentStatus(IntEnum):
    """Statuses we answer (PS3.7 C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    NO_SUCH_ARGUMENT = 0x0114
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_ACTION = 0x0123
    RESOURCE_LIMITATION = 0x0213


def commitment_policy(options: CommitmentSettings) -> RetryPolicy:
    """When reports, requests and what a destination does not keep are tried again."""
    return RetryPolicy(options.first_retry_s, options.backoff_rate, options.max_attempts)


class StorageCommitment:
    """The N-ACTION and N-EVENT-REPORT handlers of one receiver.

    ``policy``: when what a destination cannot commit to is delivered again, and how often.
    ``silence_s``: how long a peer must stay silent after our answer before the report goes over the same association.
    """

    def __init__(
        self, database: Database, objects: ObjectStorage, policy: RetryPolicy, silence_s: float = _ANSWERED_AGAIN_S
    ) -> None:
        self._database = database
        self._objects = objects
        self._policy = policy
        self._silence_s = silence_s

    def on_n_action(self, event: Event) -> tuple[Dataset, None]:
        """Handle evt.EVT_N_ACTION: take a request; its report follows when it has been answered."""
        return _answered(event, "N-ACTION", lambda: self._take(event)), None

    def on_n_event_report(self, event: Event) -> tuple[Dataset, None]:
        """Handle evt.EVT_N_EVENT_REPORT: a destination reports on a commitment we asked for."""
        return _answered(event, "N-EVENT-REPORT", lambda: receive_report(self._database, event, self._policy)), None

    def _take(self, event: Event) -> None:
        if event.action_type != REQUEST_STORAGE_COMMITMENT:
            raise InvalidRequest(CommitmentStatus.NO_SUCH_ACTION, "action type is not 1, request storage commitment")
        _check_instance(event.request.RequestedSOPInstanceUID)
        transaction_uid, references = _references(event.action_information, "ReferencedSOPSequence")
        if not references:
            raise InvalidRequest(CommitmentStatus.NO_SUCH_ARGUMENT, "ReferencedSOPSequence names no instance")
        requestor = event.assoc.requestor
        new = NewRequest(transaction_uid, references, requestor.ae_title.strip(), requestor.address_info.address)
        with self._database.session() as session:
            register_request(session, new, utc_now(), LEASE_S)
        _log.info(
            "storage-commitment-requested",
            transaction_uid=transaction_uid,
            instances=len(references),
            calling_ae_title=new.calling_ae_title,
        )
        _after_answer(event.assoc, lambda: self._report(event.assoc, new))

    def _report(self, association: Association, new: NewRequest) -> None:
        """Report over the association all that this peer has not been told yet, or leave it to a worker."""
        try:
            with self._database.read() as session:
                request_ids = pending_of(session, new.calling_ae_title, new.peer_address)
            for request_id in request_ids:
                report = check(self._database, self._objects, request_id)
                if report is None:
                    continue
                fault = send_report(association, report) if self._is_silent(association) else "it has moved on"
                with self._database.session() as session:
                    if fault:
                        hand_over(session, request_ids, utc_now())
                        break
                    mark_reported(session, request_id, report, "reported on the same association", utc_now())
        except (StorageError, SQLAlchemyError) as error:
            # The rows are as they were: a worker reports when the lease has passed.
            _log.error("storage-commitment-not-reported", transaction_uid=new.transaction_uid, error=str(error))

    def _is_silent(self, association: Association) -> bool:
        """Whether the peer waits: it neither asks for something else nor releases the association."""
        connection = association.dul.socket.socket if association.dul.socket else None
        if connection is None or not association.is_established:
            return False
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if poll.poll(self._silence_s * 1000):
            return False
        idle = association.dul.peek_next_pdu() is None and association.dimse.msg_queue.empty()
        return bool(idle and association.is_established)


def receive_report(database: Database, event: Event, policy: RetryPolicy) -> None:
    """Book a destination's report on a commitment we asked for. Raises InvalidRequest."""
    if event.event_type not in (COMMITMENT_SUCCESSFUL, COMMITMENT_WITH_FAILURES):
        raise InvalidRequest(CommitmentStatus.NO_SUCH_EVENT_TYPE, "event type is neither 1 nor 2")
    _check_instance(event.request.AffectedSOPInstanceUID)
    information = event.event_information
    transaction_uid, stored = _references(information, "ReferencedSOPSequence")
    failed = {
        uid_of(item, "ReferencedSOPInstanceUID"): _failure_reason(item)
        for item in items(information, "FailedSOPSequence")
    }
    with database.session() as session:
        known = apply_report(session, transaction_uid, [uid for _, uid in stored], failed, policy, utc_now())
    facts = {"transaction_uid": transaction_uid, "stored": len(stored), "failed": len(failed)}
    if not known:
        _log.warning("storage-commitment-report-unknown", **facts)
        raise InvalidRequest(CommitmentStatus.INVALID_ARGUMENT_VALUE, "no such transaction")
    _log.info("storage-commitment-received", **facts)


def send_report(association: Association, report: CommitmentReport) -> str:
    """Send a report by N-EVENT-REPORT; returns what went wrong, empty if the peer confirmed it."""
    event_type = COMMITMENT_WITH_FAILURES if report.failed else COMMITMENT_SUCCESSFUL
    try:
        response, _ = association.send_n_event_report(
            event_information(report), event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError, AttributeError) as error:  # not established any more, no such context
        return str(error)
    status = response.get("Status")
    if status is None:
        return "the peer did not confirm the report"
    return "" if status == CommitmentStatus.SUCCESS else f"the peer answered the report with status 0x{status:04X}"


def report_to(peer: Destination, report: CommitmentReport, calling_ae_title: str) -> str:
    """Report over a new association, in which we are the SCP; returns what went wrong, empty if it was confirmed."""
    role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    try:
        with association_with(
            peer, [storage_commitment_context()], calling_ae_title, extended_negotiation=[role]
        ) as association:
            if not association.accepted_contexts:
                return f"{peer.label} does not accept reports of the Storage Commitment service"
            return send_report(association, report)
    except DestinationUnavailable as error:
        return str(error)


def event_information(report: CommitmentReport) -> Dataset:
    """The Event Information of a report (PS3.4 table J.3-2)."""
    information = Dataset()
    information.TransactionUID = report.transaction_uid
    if report.stored:
        information.ReferencedSOPSequence = [reference_item(reference) for reference in report.stored]
    if report.failed:
        information.FailedSOPSequence = [reference_item(reference) for reference, _ in report.failed]
        for item, (_, reason) in zip(information.FailedSOPSequence, report.failed, strict=True):
            item.FailureReason = reason
    return information


def reference_item(reference: Reference) -> Dataset:
    """An item of a reference sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    return item


def _after_answer(association: Association, act: Callable[[], None]) -> None:
    """Call ``act`` once the answer to the request being served is on its way, in the association's own thread."""
    provider: Any = association.dimse
    send = provider.send_msg

    def send_and_act(primitive: Any, context_id: int) -> None:
        provider.send_msg = send
        send(primitive, context_id)
        act()

    provider.send_msg = send_and_act


def _check_instance(uid: Any) -> None:
    if str(uid) != StorageCommitmentPushModelInstance:
        raise InvalidRequest(CommitmentStatus.NO_SUCH_SOP_INSTANCE, "not the well-known instance of the service")


def _references(information: Dataset, sequence: str) -> tuple[str, Sequence[Reference]]:
    """Transaction UID and references. Raises InvalidRequest."""
    missing, invalid = CommitmentStatus.NO_SUCH_ARGUMENT, CommitmentStatus.INVALID_ARGUMENT_VALUE
    transaction_uid = uid_of(information, "TransactionUID", missing, invalid)
    if len(items(information, sequence)) > MAXIMUM_REFERENCES:
        raise InvalidRequest(CommitmentStatus.RESOURCE_LIMITATION, f"more than {MAXIMUM_REFERENCES} instances")
    return transaction_uid, list(referenced(information, sequence, missing, invalid))


def _failure_reason(item: Dataset) -> int:
    text = text_of(item, "FailureReason")
    return int(text) if text.isdecimal() else int(CommitmentStatus.PROCESSING_FAILURE)


def _answered(event: Event, service: str, serve: Callable[[], None]) -> Dataset:
    """Serve a request; what goes wrong becomes its status."""
    response = Dataset()
    try:
        serve()
        response.Status = int(CommitmentStatus.SUCCESS)
        return response
    except InvalidRequest as error:
        response.Status, reason = int(error.status), str(error)
    except SQLAlchemyError as error:
        response.Status = int(CommitmentStatus.RESOURCE_LIMITATION)
        reason = f"the index cannot be written ({type(error).__name__})"
    except UNREADABLE_ELEMENT as error:
        response.Status = int(CommitmentStatus.PROCESSING_FAILURE)
        reason = f"data set cannot be decoded ({type(error).__name__})"
    response.ErrorComment = error_comment(reason)
    who = event.assoc.requestor.ae_title
    _log.warning(
        "storage-commitment-refused",
        service=service,
        status=f"0x{response.Status:04X}",
        reason=reason,
        calling_ae_title=who,
    )
    return response
