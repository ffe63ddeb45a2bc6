"""Storage commitment we ask for (PS3.4 J as SCU): one row per delivered object and destination that wants it.

An object counts as safe at its destination when the destination has said so; one it cannot commit to, or says nothing
about for long, is delivered again, ever more slowly and not for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from storage.deliveries import RetryPolicy
from storage.journal import record
from storage.models import (
    CommitmentState,
    Delivery,
    DeliveryCommitment,
    DeliveryState,
    Instance,
    ResultObject,
    StudyRevision,
)
from storage.upsert import get_or_create

REQUESTED_AT_ONCE = 1000
"""Instances of one request: a message of about 150 kB."""


@dataclass(frozen=True)
class DueCommitment:
    """A destination that is to be asked about delivered objects; ``attempt`` makes it unique."""

    destination: str
    attempt: str


@dataclass(frozen=True)
class OwnRequest:
    """A request to a destination: its Transaction UID and (SOP Class UID, SOP Instance UID) of each object."""

    transaction_uid: str
    items: tuple[tuple[str, str], ...]


def expect_commitment(
    session: Session, sop_class_uid: str, sop_instance_uid: str, destination: str, now: datetime
) -> None:
    """An object was delivered to a destination that is to commit itself to it: ask at the next opportunity."""
    key = {"sop_instance_uid": sop_instance_uid, "destination": destination}
    values = {"sop_class_uid": sop_class_uid, "next_attempt_at": now, "delivered_at": now}
    blank = {"state": CommitmentState.PENDING, "status": "", "transaction_uid": "", "attempts": 0}
    row_id = get_or_create(session, DeliveryCommitment, key, values | blank)
    row = session.get_one(DeliveryCommitment, row_id)
    row.state, row.status, row.delivered_at, row.next_attempt_at = CommitmentState.PENDING, "", now, now
    row.committed_at = None


def due_commitments(session: Session, now: datetime) -> list[DueCommitment]:
    """The destinations to be asked now. The attempt is made of an object's UID and what every request changes."""
    rows = session.execute(
        select(
            DeliveryCommitment.destination,
            func.max(DeliveryCommitment.sop_instance_uid),
            func.sum(DeliveryCommitment.attempts),
        )
        .where(DeliveryCommitment.state == CommitmentState.PENDING, DeliveryCommitment.next_attempt_at <= now)
        .group_by(DeliveryCommitment.destination)
    )
    return [DueCommitment(destination, f"{last}/{attempts}") for destination, last, attempts in rows]


def begin_request(
    session: Session, destination: str, transaction_uid: str, now: datetime, resend_after_s: float
) -> OwnRequest | None:
    """Put what is due of a destination into one request; None if nothing is. Written before it is sent.

    Called again with the same ``transaction_uid``, after a crash, it gives the same request again.
    """
    rows = session.scalars(
        select(DeliveryCommitment)
        .where(
            DeliveryCommitment.destination == destination,
            or_(
                and_(DeliveryCommitment.state == CommitmentState.PENDING, DeliveryCommitment.next_attempt_at <= now),
                and_(
                    DeliveryCommitment.state == CommitmentState.REQUESTED,
                    DeliveryCommitment.transaction_uid == transaction_uid,
                ),
            ),
        )
        .order_by(DeliveryCommitment.id)
        .limit(REQUESTED_AT_ONCE)
        .with_for_update()
    ).all()
    for row in rows:
        row.state = CommitmentState.REQUESTED
        row.transaction_uid = transaction_uid
        row.attempts += 1
        row.next_attempt_at = now + timedelta(seconds=resend_after_s)
    if not rows:
        return None
    return OwnRequest(transaction_uid, tuple((row.sop_class_uid, row.sop_instance_uid) for row in rows))


def request_failed(
    session: Session, transaction_uid: str, reason: str, policy: RetryPolicy | None, now: datetime
) -> None:
    """The destination did not take the request: ask again later, or give up after the policy's last attempt."""
    for row in _of_transaction(session, transaction_uid):
        if row.state != CommitmentState.REQUESTED:
            continue
        row.status = reason
        if policy is None or row.attempts >= policy.max_attempts:
            _give_up(session, row)
        else:
            row.state = CommitmentState.PENDING
            row.next_attempt_at = now + timedelta(seconds=policy.wait_s(row.attempts))


def apply_report(
    session: Session,
    transaction_uid: str,
    stored: Iterable[str],
    failed: Mapping[str, int],
    policy: RetryPolicy,
    now: datetime,
) -> bool:
    """Book a destination's report. False: no such transaction.

    What it cannot commit to is delivered again after the policy's wait; after its last attempt the delivery has failed.
    """
    rows = _of_transaction(session, transaction_uid)
    safe = set(stored)
    for row in rows:
        if row.sop_instance_uid in safe:
            row.state, row.committed_at, row.status = CommitmentState.DONE, now, "committed"
            _journal(session, row, "delivery-committed", f"{row.destination} has committed itself to it")
        elif row.sop_instance_uid in failed and row.state == CommitmentState.REQUESTED:
            row.status = f"{row.destination} cannot commit itself: failure reason {failed[row.sop_instance_uid]:04X}H"
            if row.attempts >= policy.max_attempts:
                _give_up(session, row)
                _fail_delivery(session, row)
            else:
                _deliver_again(session, row, now + timedelta(seconds=policy.wait_s(row.attempts)))
    return bool(rows)


def has_uncommitted(session: Session, now: datetime) -> bool:
    """Whether there is anything for `deliver_uncommitted_again`."""
    overdue = select(DeliveryCommitment.id).where(
        DeliveryCommitment.state == CommitmentState.REQUESTED, DeliveryCommitment.next_attempt_at <= now
    )
    return session.scalar(overdue.limit(1)) is not None


def deliver_uncommitted_again(session: Session, now: datetime, max_attempts: int) -> int:
    """Deliver again what was requested long ago and never reported on; returns how many. Gives up at the cap."""
    rows = session.scalars(
        select(DeliveryCommitment)
        .where(DeliveryCommitment.state == CommitmentState.REQUESTED, DeliveryCommitment.next_attempt_at <= now)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        row.status = f"{row.destination} has not reported on it"
        if row.attempts >= max_attempts:
            _give_up(session, row)
        else:
            _deliver_again(session, row, now)
    return len(rows)


def _of_transaction(session: Session, transaction_uid: str) -> Sequence[DeliveryCommitment]:
    query = select(DeliveryCommitment).where(DeliveryCommitment.transaction_uid == transaction_uid)
    return session.scalars(query.order_by(DeliveryCommitment.id).with_for_update()).all() if transaction_uid else ()


def _deliver_again(session: Session, row: DeliveryCommitment, at: datetime) -> None:
    """Make the delivery due again at that time; when it is done, the destination is asked again."""
    delivery = _delivery_of(session, row)
    if delivery is None:
        _give_up(session, row)
        return
    row.state = CommitmentState.FAILED
    delivery.state, delivery.status, delivery.delivered_at = DeliveryState.PENDING, row.status, None
    delivery.round += 1
    delivery.attempts = 0
    delivery.next_attempt_at = at
    _journal(session, row, "delivery-uncommitted", f"{row.status}; it is delivered again")


def _fail_delivery(session: Session, row: DeliveryCommitment) -> None:
    """The destination took the object and does not keep it: a dead letter, which a person may have sent once more."""
    delivery = _delivery_of(session, row)
    if delivery is not None:
        delivery.state, delivery.status, delivery.delivered_at = DeliveryState.FAILED, row.status, None


def _delivery_of(session: Session, row: DeliveryCommitment) -> Delivery | None:
    uid = row.sop_instance_uid
    return session.scalar(
        select(Delivery)
        .outerjoin(ResultObject)
        .outerjoin(Instance)
        .where(
            Delivery.destination == row.destination,
            or_(ResultObject.sop_instance_uid == uid, Instance.sop_instance_uid == uid),
        )
    )


def _give_up(session: Session, row: DeliveryCommitment) -> None:
    row.state = CommitmentState.FAILED
    _journal(session, row, "delivery-commitment-failed", f"{row.status}; given up after {row.attempts} attempts")


def _journal(session: Session, row: DeliveryCommitment, event: str, message: str) -> None:
    delivery = _delivery_of(session, row)
    revision = session.get(StudyRevision, delivery.revision_id) if delivery else None
    study_instance_uid = revision.study.study_instance_uid if revision else ""
    facts = {"sop_instance_uid": row.sop_instance_uid, "destination": row.destination}
    record(session, event, message, study_instance_uid, transaction_uid=row.transaction_uid, **facts)
