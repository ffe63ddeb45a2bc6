"""Storage commitment we give (PS3.4 J): requests as rows, the check that each named instance is safe, the report.

A request is durable before it is answered; its report is made by whoever comes first, the receiver on the same
association or a worker on a new one, and counts as made only when the peer has confirmed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.deliveries import RetryPolicy
from storage.errors import IntegrityError, ObjectMissing, StorageError
from storage.journal import record
from storage.models import CommitmentItem, CommitmentRequest, CommitmentState, Instance, Series, Study
from storage.object_store import ObjectStorage

CHECK_S_PER_INSTANCE = 0.02
"""Reading 0.3 MB and its SHA-256, several times over: a busy disk must not make two report on one request."""

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an instance we cannot commit to (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION_UID = 0x0131


class UnknownRequest(StorageError):
    """No such storage commitment request."""


@dataclass(frozen=True)
class NewRequest:
    """A storage commitment request as a peer sends it."""

    transaction_uid: str
    items: Sequence[Reference]
    calling_ae_title: str
    peer_address: str


@dataclass(frozen=True)
class DueReport:
    """A request whose report is due; ``attempt`` makes it unique."""

    request_id: int
    calling_ae_title: str
    attempt: int


@dataclass(frozen=True)
class CommitmentReport:
    """What is to be reported on a request: instances we are responsible for, and those we are not, with the reason."""

    transaction_uid: str
    calling_ae_title: str
    stored: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]


def register_request(session: Session, new: NewRequest, now: datetime, lease_s: float) -> int:
    """Write a request and return its id; the same request again while it is pending is the same row.

    ``lease_s`` is the time the receiver has to report on the same association before a worker does, besides the time
    that checking takes.
    """
    references = list(dict.fromkeys(new.items))
    duplicate = False
    for earlier in _earlier_requests(session, new):
        same = {(item.sop_class_uid, item.sop_instance_uid) for item in earlier.items} == set(references)
        if same and earlier.state == CommitmentState.PENDING:
            return earlier.id
        duplicate = duplicate or not same
    request = CommitmentRequest(
        transaction_uid=new.transaction_uid,
        calling_ae_title=new.calling_ae_title,
        peer_address=new.peer_address,
        duplicate=duplicate,
        requested_at=now,
        next_attempt_at=now + timedelta(seconds=lease_s + CHECK_S_PER_INSTANCE * len(references)),
    )
    session.add(request)
    session.flush()
    by_instance = {sop_instance_uid: sop_class_uid for sop_class_uid, sop_instance_uid in references}
    rows = [
        {"request_id": request.id, "sop_class_uid": sop_class_uid, "sop_instance_uid": sop_instance_uid}
        for sop_instance_uid, sop_class_uid in by_instance.items()
    ]
    session.execute(insert(CommitmentItem), rows)
    return request.id


def pending_of(session: Session, calling_ae_title: str, peer_address: str) -> list[int]:
    """The requests of a peer that have not been reported on, oldest first."""
    query = select(CommitmentRequest.id).where(
        CommitmentRequest.state == CommitmentState.PENDING,
        CommitmentRequest.calling_ae_title == calling_ae_title,
        CommitmentRequest.peer_address == peer_address,
    )
    return list(session.scalars(query.order_by(CommitmentRequest.id)))


def due_reports(session: Session, now: datetime) -> list[DueReport]:
    """The requests that a worker is to report on now."""
    rows = session.execute(
        select(CommitmentRequest.id, CommitmentRequest.calling_ae_title, CommitmentRequest.attempts)
        .where(CommitmentRequest.state == CommitmentState.PENDING, CommitmentRequest.next_attempt_at <= now)
        .order_by(CommitmentRequest.id)
    )
    return [DueReport(*row) for row in rows]


def hand_over(session: Session, request_ids: Sequence[int], now: datetime) -> None:
    """The receiver cannot report on the association: let a worker do it at once."""
    session.execute(
        update(CommitmentRequest)
        .where(CommitmentRequest.id.in_(request_ids), CommitmentRequest.state == CommitmentState.PENDING)
        .values(next_attempt_at=now)
    )


def check(database: Database, objects: ObjectStorage, request_id: int) -> CommitmentReport | None:
    """Look for every instance of a request, in the index and byte for byte in the object store; keep the outcome.

    None if it has been reported on or given up.

    Raises
    ------
    UnknownRequest
    ObjectStoreUnavailable
        The volume cannot be read: that says nothing about the instances; try again later.
    """
    with database.read() as session:
        request = session.get(CommitmentRequest, request_id)
        if request is None:
            raise UnknownRequest(f"storage commitment request {request_id} is not in this index")
        rows = session.execute(
            select(CommitmentItem, Instance.sop_class_uid, Instance.object_digest)
            .outerjoin(Instance, Instance.sop_instance_uid == CommitmentItem.sop_instance_uid)
            .where(CommitmentItem.request_id == request_id)
            .order_by(CommitmentItem.id)
        ).all()
        if request.state != CommitmentState.PENDING:
            return None
        duplicate = request.duplicate
        transaction_uid, calling_ae_title = request.transaction_uid, request.calling_ae_title
    outcomes = {
        item: FailureReason.DUPLICATE_TRANSACTION_UID if duplicate else _fault(objects, item, sop_class_uid, digest)
        for item, sop_class_uid, digest in rows
    }
    with database.session() as session:
        for item, reason in outcomes.items():
            if reason is not None:
                session.execute(
                    update(CommitmentItem).where(CommitmentItem.id == item.id).values(failure_reason=int(reason))
                )
    references = {item: (item.sop_class_uid, item.sop_instance_uid) for item in outcomes}
    return CommitmentReport(
        transaction_uid,
        calling_ae_title,
        tuple(references[item] for item, reason in outcomes.items() if reason is None),
        tuple((references[item], int(reason)) for item, reason in outcomes.items() if reason is not None),
    )


def mark_reported(session: Session, request_id: int, report: CommitmentReport, how: str, now: datetime) -> None:
    """The peer has confirmed the report."""
    request = session.get_one(CommitmentRequest, request_id, with_for_update=True)
    request.state = CommitmentState.DONE
    request.attempts += 1
    request.reported_at = now
    request.status = how
    _journal(session, "storage-committed", request, report, how)


def mark_not_reported(
    session: Session, request_id: int, reason: str, policy: RetryPolicy | None, now: datetime
) -> CommitmentState:
    """The report did not reach the peer: try again later, or give up after the policy's last attempt."""
    request = session.get_one(CommitmentRequest, request_id, with_for_update=True)
    if request.state != CommitmentState.PENDING:
        return CommitmentState(request.state)
    request.attempts += 1
    request.status = reason
    if policy is None or request.attempts >= policy.max_attempts:
        request.state = CommitmentState.FAILED
        _journal(session, "storage-commitment-not-reported", request, None, reason)
    else:
        request.next_attempt_at = now + timedelta(seconds=policy.wait_s(request.attempts))
    return CommitmentState(request.state)


def _earlier_requests(session: Session, new: NewRequest) -> list[CommitmentRequest]:
    query = select(CommitmentRequest).where(
        CommitmentRequest.transaction_uid == new.transaction_uid,
        CommitmentRequest.calling_ae_title == new.calling_ae_title,
    )
    return list(session.scalars(query.order_by(CommitmentRequest.id)))


def _fault(
    objects: ObjectStorage, item: CommitmentItem, sop_class_uid: str | None, digest: str | None
) -> FailureReason | None:
    """Why we cannot commit to an instance; None: it is here, of that class, and its bytes are what was received."""
    if sop_class_uid is None or digest is None:
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    if sop_class_uid != item.sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    try:
        objects.verify(digest)
    except (ObjectMissing, IntegrityError):
        return FailureReason.PROCESSING_FAILURE
    return None


def _journal(
    session: Session, event: str, request: CommitmentRequest, report: CommitmentReport | None, how: str
) -> None:
    """Say it in the journal of every study that the request names instances of."""
    studies = session.scalars(
        select(Study.study_instance_uid)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .join(CommitmentItem, CommitmentItem.sop_instance_uid == Instance.sop_instance_uid)
        .where(CommitmentItem.request_id == request.id)
        .distinct()
    )
    outcome = f"{len(report.stored)} instances safe, {len(report.failed)} not; " if report else ""
    for study_instance_uid in list(studies):
        record(
            session,
            event,
            f"storage commitment {request.transaction_uid} for {request.calling_ae_title}: {outcome}{how}",
            study_instance_uid,
            transaction_uid=request.transaction_uid,
            peer=request.calling_ae_title,
            failures={uid: f"{reason:04X}H" for (_, uid), reason in report.failed[:100]} if report else {},
        )
