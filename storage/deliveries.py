"""Deliveries: one row per object and destination, with its state, its attempts and when it is due.

An object is a result of ours, or an instance as it was received (see `storage.originals`). What is due at a destination
goes by priority, then by age.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from storage.bulk import change
from storage.destinations import remember_destinations
from storage.models import Delivery, DeliveryState, Instance, ResultObject, Study, StudyRevision

LONGEST_WAIT_S = 3600.0
"""A dead PACS is tried at least once an hour."""


class Priority(IntEnum):
    """How urgent a delivery is; the smaller number goes first."""

    STAT = 0
    HIGH = 1
    ROUTINE = 2
    LOW = 3


@dataclass(frozen=True)
class Recipient:
    """A destination of an object, how urgent that is, and the names of the rules that say so."""

    destination: str
    priority: Priority = Priority.ROUTINE
    rules: str = ""


@dataclass(frozen=True)
class NewResult:
    """A result object as the report step made it, and where it goes."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    object_digest: str
    size_bytes: int
    recipients: tuple[Recipient, ...]


@dataclass(frozen=True)
class DueObject:
    """An object that is due at a destination. ``kind`` is empty for an instance as received."""

    delivery_id: int
    round: int
    study_instance_uid: str
    revision: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    object_digest: str
    priority: Priority


@dataclass(frozen=True)
class Attempt:
    """The outcome of one attempt. ``final``: trying again cannot help."""

    delivered: bool
    status: str
    sent_as: str = ""
    final: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed delivery is tried again.

    ``jitter`` is the width of the spread around each wait as a fraction of it. It derives from ``seed``, the
    destination and the attempt: the objects of one destination stay together, and a test can repeat it.
    """

    first_retry_s: float
    backoff_rate: float
    max_attempts: int
    jitter: float = 0.0
    seed: str = ""

    def wait_s(self, attempts: int, destination: str = "") -> float:
        """Seconds to wait after the given number of failed attempts."""
        wait_s = min(self.first_retry_s * self.backoff_rate ** (attempts - 1), LONGEST_WAIT_S)
        chance = random.Random(f"{self.seed}/{destination}/{attempts}").random()
        return float(min(wait_s * (1 + self.jitter * (chance - 0.5)), LONGEST_WAIT_S))


def save_results(session: Session, revision: StudyRevision, results: Iterable[NewResult], now: datetime) -> None:
    """Write result objects and their pending deliveries. A repeat after a crash finds them there and adds nothing."""
    known = {result.sop_instance_uid: result for result in revision.results}
    for new in results:
        row = known.get(new.sop_instance_uid)
        if row is None:
            row = _new_row(revision.id, new, now)
            session.add(row)
        remember_destinations(session, [recipient.destination for recipient in new.recipients])
        reached = {delivery.destination for delivery in row.deliveries}
        for recipient in new.recipients:
            if recipient.destination not in reached:
                row.deliveries.append(_new_delivery(row, recipient, now))


def save_variant(session: Session, of_sop_instance_uid: str, variant: NewResult, now: datetime) -> None:
    """Write a variant of a result, unless it is there: it must be known as ours before it leaves."""
    original = session.scalars(select(ResultObject).where(ResultObject.sop_instance_uid == of_sop_instance_uid)).one()
    known = select(ResultObject.id).where(ResultObject.sop_instance_uid == variant.sop_instance_uid)
    if session.scalar(known) is None:
        row = _new_row(original.revision_id, variant, now)
        row.variant_of = of_sop_instance_uid
        session.add(row)


def _new_row(revision_id: int, new: NewResult, now: datetime) -> ResultObject:
    return ResultObject(
        revision_id=revision_id,
        kind=new.kind,
        sop_instance_uid=new.sop_instance_uid,
        sop_class_uid=new.sop_class_uid,
        series_instance_uid=new.series_instance_uid,
        object_digest=new.object_digest,
        size_bytes=new.size_bytes,
        created_at=now,
        variant_of="",
    )


def _new_delivery(result: ResultObject, recipient: Recipient, now: datetime) -> Delivery:
    return Delivery(
        revision_id=result.revision_id,
        object_digest=result.object_digest,
        destination=recipient.destination,
        priority=recipient.priority,
        rules=recipient.rules,
        created_at=now,
        next_attempt_at=now,
    )


def due_at(session: Session, destination: str, now: datetime, limit: int) -> list[DueObject]:
    """What is due at the destination, most urgent and oldest first, at most ``limit`` objects."""
    # Not in a form that an index on it could serve: the one in the order of sending finds the first few at once, where
    # sorting all that is due of a backlog of 100,000 takes a third of a second (measured).
    its_time_has_come = func.coalesce(Delivery.next_attempt_at, Delivery.created_at) <= now
    rows = session.execute(
        select(
            Delivery.id,
            Delivery.round,
            Study.study_instance_uid,
            StudyRevision.number,
            func.coalesce(ResultObject.kind, ""),
            func.coalesce(ResultObject.sop_class_uid, Instance.sop_class_uid),
            func.coalesce(ResultObject.sop_instance_uid, Instance.sop_instance_uid),
            Delivery.object_digest,
            Delivery.priority,
        )
        .select_from(Delivery)
        .join(StudyRevision, StudyRevision.id == Delivery.revision_id)
        .join(Study, Study.id == StudyRevision.study_id)
        .outerjoin(ResultObject, ResultObject.id == Delivery.result_id)
        .outerjoin(Instance, Instance.id == Delivery.instance_id)
        .where(
            Delivery.destination == destination,
            Delivery.state == DeliveryState.PENDING,
            its_time_has_come,
        )
        .order_by(Delivery.priority, Delivery.id)
        .limit(limit)
    )
    return [DueObject(*row[:8], priority=Priority(row[8])) for row in rows]


def book(
    session: Session, attempts: Mapping[DueObject, Attempt], policy: RetryPolicy | None, now: datetime
) -> list[tuple[DueObject, Delivery]]:
    """Write the outcomes of attempts; return what was booked.

    An object that has been replayed or replaced while it was on its way stays due: the attempt was an earlier round's.
    """
    ids = [due.delivery_id for due in attempts]
    # Locked: a worker that was taken for dead may book the same attempts.
    rows = session.scalars(select(Delivery).where(Delivery.id.in_(ids)).with_for_update())
    by_id = {row.id: row for row in rows}
    booked = []
    for due, attempt in attempts.items():
        row = by_id.get(due.delivery_id)
        if row is None or row.round != due.round or row.state != DeliveryState.PENDING:
            continue
        row.sent_as = attempt.sent_as
        if attempt.delivered:
            mark_delivered(row, attempt.status, now)
        else:
            mark_failed(row, attempt.status, None if attempt.final else policy, now)
        booked.append((due, row))
    return booked


def mark_delivered(delivery: Delivery, status: str, now: datetime) -> None:
    """The destination took responsibility for the object."""
    delivery.state = DeliveryState.DELIVERED
    _attempted(delivery, status, now)
    delivery.delivered_at = now


def mark_failed(delivery: Delivery, reason: str, policy: RetryPolicy | None, now: datetime) -> None:
    """The attempt failed: try again later, or give up after the policy's last attempt (without a policy at once)."""
    _attempted(delivery, reason, now)
    if policy is None or delivery.attempts >= policy.max_attempts:
        delivery.state = DeliveryState.FAILED
    else:
        delivery.next_attempt_at = now + timedelta(seconds=policy.wait_s(delivery.attempts, delivery.destination))


def _attempted(delivery: Delivery, status: str, now: datetime) -> None:
    delivery.attempts += 1
    delivery.status = status
    delivery.last_attempt_at = now
    delivery.first_attempt_at = delivery.first_attempt_at or now


def fail_all_due(session: Session, destination: str, reason: str, policy: RetryPolicy | None, now: datetime) -> int:
    """The destination itself could not be reached: an attempt at everything that was due there has failed.

    One statement per number of attempts made so far, not one per object: behind a dead PACS there may be 100,000.
    """
    due = (
        Delivery.destination == destination,
        Delivery.state == DeliveryState.PENDING,
        Delivery.next_attempt_at <= now,
    )
    made = session.scalars(select(Delivery.attempts).where(*due).distinct()).all()
    count = 0
    # From the most attempts down: a row must not be met again after its count has risen.
    for attempts in sorted(made, reverse=True):
        gives_up = policy is None or attempts + 1 >= policy.max_attempts
        wait_s = 0.0 if policy is None else policy.wait_s(attempts + 1, destination)
        count += change(
            session,
            update(Delivery)
            .where(*due, Delivery.attempts == attempts)
            .values(
                attempts=attempts + 1,
                status=reason,
                state=DeliveryState.FAILED if gives_up else DeliveryState.PENDING,
                first_attempt_at=func.coalesce(Delivery.first_attempt_at, now),
                last_attempt_at=now,
                next_attempt_at=now + timedelta(seconds=wait_s),
            ),
        )
    return count


def send_again(
    session: Session, study_instance_uid: str, recipients_of: Mapping[str, Sequence[Recipient]], now: datetime
) -> int:
    """Make every delivery of the study's last reported revision due again; return how many.

    ``recipients_of`` names for each kind of object where it goes now: a destination that was added since the report
    gets the objects too, one that was removed no longer does.
    """
    count = 0
    for result in last_results(session, study_instance_uid):
        known = {delivery.destination: delivery for delivery in result.deliveries}
        recipients = recipients_of.get(result.kind, ())
        remember_destinations(session, [recipient.destination for recipient in recipients])
        for recipient in recipients:
            delivery = known.get(recipient.destination)
            if delivery is None:
                result.deliveries.append(_new_delivery(result, recipient, now))
            else:
                delivery.round += 1
                delivery.attempts = 0
                delivery.state = DeliveryState.PENDING
                delivery.status = ""
                delivery.delivered_at = None
                delivery.next_attempt_at = now
                delivery.priority = recipient.priority
                delivery.rules = recipient.rules
            count += 1
    return count


def last_results(session: Session, study_instance_uid: str) -> Sequence[ResultObject]:
    """The results of the study's last revision that has any, without variants, in the order they were made."""
    of_study = (
        select(StudyRevision.id)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid, StudyRevision.results.any())
        .order_by(StudyRevision.number.desc())
        .limit(1)
    )
    return session.scalars(
        select(ResultObject)
        .where(ResultObject.revision_id == of_study.scalar_subquery(), ResultObject.variant_of == "")
        .order_by(ResultObject.id)
    ).all()


def retry_failed(
    session: Session,
    now: datetime,
    destination: str | None = None,
    study_instance_uid: str | None = None,
    delivery_id: int | None = None,
) -> int:
    """Make what was given up due again, with all its attempts; return how many. None means any."""
    statement = update(Delivery).where(Delivery.state == DeliveryState.FAILED)
    if destination is not None:
        statement = statement.where(Delivery.destination == destination)
    if study_instance_uid is not None:
        statement = statement.where(Delivery.revision_id.in_(_revisions_of(study_instance_uid)))
    if delivery_id is not None:
        statement = statement.where(Delivery.id == delivery_id)
    again = {"state": DeliveryState.PENDING, "round": Delivery.round + 1, "attempts": 0, "next_attempt_at": now}
    return change(session, statement.values(again))


def _revisions_of(study_instance_uid: str) -> Select[int]:
    return select(StudyRevision.id).join(Study).where(Study.study_instance_uid == study_instance_uid)
