"""Result objects and their deliveries: one row per object and destination, with state, attempts and when it is due."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.models import Delivery, DeliveryState, ResultObject, Study, StudyRevision

LONGEST_WAIT_S = 3600.0
"""A dead PACS is tried at least once an hour."""


@dataclass(frozen=True)
class NewResult:
    """A result object as the report step made it, and where it goes."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    object_digest: str
    size_bytes: int
    destinations: tuple[str, ...]


@dataclass(frozen=True)
class DueDelivery:
    """Work for the delivery step: all that is due of one revision for one destination. ``attempt`` makes it unique."""

    study_instance_uid: str
    revision: int
    destination: str
    attempt: str


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed delivery is tried again."""

    first_retry_s: float
    backoff_rate: float
    max_attempts: int

    def wait_s(self, attempts: int) -> float:
        """Seconds to wait after the given number of failed attempts."""
        return float(min(self.first_retry_s * self.backoff_rate ** (attempts - 1), LONGEST_WAIT_S))


def save_results(session: Session, revision: StudyRevision, results: Iterable[NewResult], now: datetime) -> None:
    """Write result objects and their pending deliveries. A repeat after a crash finds them there and adds nothing."""
    known = {result.sop_instance_uid: result for result in revision.results}
    for new in results:
        row = known.get(new.sop_instance_uid)
        if row is None:
            row = ResultObject(
                revision_id=revision.id,
                kind=new.kind,
                sop_instance_uid=new.sop_instance_uid,
                sop_class_uid=new.sop_class_uid,
                series_instance_uid=new.series_instance_uid,
                object_digest=new.object_digest,
                size_bytes=new.size_bytes,
                created_at=now,
            )
            session.add(row)
        reached = {delivery.destination for delivery in row.deliveries}
        for destination in new.destinations:
            if destination not in reached:
                row.deliveries.append(Delivery(destination=destination, created_at=now, next_attempt_at=now))


def due_deliveries(session: Session, now: datetime) -> list[DueDelivery]:
    """Everything to be sent now, by revision and destination.

    ``attempt`` is made of the round and the sum of all attempts made in it, delivered objects included. That sum rises
    with every outcome that is booked, while the attempts of what is due may be those of an earlier time: after a crash
    in the middle of an attempt its objects are due at different times.
    """
    due = (
        select(ResultObject.revision_id, Delivery.destination)
        .join(Delivery)
        .where(Delivery.state == DeliveryState.PENDING, Delivery.next_attempt_at <= now)
        .distinct()
        .subquery()
    )
    rows = session.execute(
        select(
            Study.study_instance_uid,
            StudyRevision.number,
            Delivery.destination,
            func.max(Delivery.round),
            func.sum(Delivery.attempts),
        )
        .select_from(due)
        .join(ResultObject, ResultObject.revision_id == due.c.revision_id)
        .join(Delivery, (Delivery.result_id == ResultObject.id) & (Delivery.destination == due.c.destination))
        .join(StudyRevision, StudyRevision.id == due.c.revision_id)
        .join(Study)
        .group_by(Study.study_instance_uid, StudyRevision.number, Delivery.destination)
    )
    return [DueDelivery(uid, number, name, f"{round_}.{attempts}") for uid, number, name, round_, attempts in rows]


def pending_for(
    session: Session, revision: StudyRevision, destination: str, now: datetime, *, locked: bool = False
) -> list[Delivery]:
    """The due deliveries of a revision for a destination, in the order the objects were made.

    ``locked`` until the transaction ends: for one that books an outcome which another worker may book as well.
    """
    query = (
        select(Delivery)
        .join(ResultObject)
        .where(
            ResultObject.revision_id == revision.id,
            Delivery.destination == destination,
            Delivery.state == DeliveryState.PENDING,
            Delivery.next_attempt_at <= now,
        )
        .order_by(ResultObject.id)
    )
    return list(session.scalars(query.with_for_update(of=Delivery) if locked else query))


def mark_delivered(delivery: Delivery, status: str, now: datetime) -> None:
    """The destination took responsibility for the object."""
    delivery.state = DeliveryState.DELIVERED
    delivery.attempts += 1
    delivery.status = status
    delivery.delivered_at = now


def mark_failed(delivery: Delivery, reason: str, policy: RetryPolicy | None, now: datetime) -> None:
    """The attempt failed: try again later, or give up after the policy's last attempt (without a policy at once)."""
    delivery.attempts += 1
    delivery.status = reason
    if policy is None or delivery.attempts >= policy.max_attempts:
        delivery.state = DeliveryState.FAILED
    else:
        delivery.next_attempt_at = now + timedelta(seconds=policy.wait_s(delivery.attempts))


def send_again(
    session: Session, study_instance_uid: str, destinations_of: Mapping[str, Sequence[str]], now: datetime
) -> int:
    """Make every delivery of the study's last reported revision due again; return how many.

    ``destinations_of`` names the destinations configured now for each kind of object: one that was added since the
    report gets the objects too, one that was removed no longer does.
    """
    last = session.scalar(
        select(func.max(StudyRevision.number))
        .join(Study)
        .join(ResultObject)
        .where(Study.study_instance_uid == study_instance_uid)
    )
    results = session.scalars(
        select(ResultObject)
        .join(StudyRevision)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid, StudyRevision.number == last)
    ).all()
    count = 0
    for result in results:
        known = {delivery.destination: delivery for delivery in result.deliveries}
        for destination in destinations_of.get(result.kind, ()):
            delivery = known.get(destination)
            if delivery is None:
                result.deliveries.append(Delivery(destination=destination, created_at=now, next_attempt_at=now))
            else:
                delivery.round += 1
                delivery.attempts = 0
                delivery.state = DeliveryState.PENDING
                delivery.status = ""
                delivery.delivered_at = None
                delivery.next_attempt_at = now
            count += 1
    return count
