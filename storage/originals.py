"""Forwarding received instances: which series await the rules' word, and their deliveries, one statement per series.

The bytes go as they were received. An instance never goes back to where it came from, and one that keeps returning
with other bytes stops after a number of rounds: two routers that change what they pass on would send it for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import ColumnElement, Table, and_, false, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from storage.bulk import change
from storage.deliveries import Recipient
from storage.destinations import remember_destinations
from storage.models import (
    Association,
    Delivery,
    DeliveryState,
    Instance,
    RevisionState,
    Series,
    Study,
    StudyRevision,
)

LOOP = "loop suspected: it has been sent here {rounds} times, each time with other bytes; see who sends it back to us"

_COLUMNS = (
    *("revision_id", "instance_id", "object_digest", "destination", "priority", "rules", "state", "round"),
    *("attempts", "status", "sent_as", "created_at", "next_attempt_at"),
)


@dataclass(frozen=True)
class Endpoint:
    """Where a destination listens: its AE title and the addresses its host has; None where they cannot be found."""

    ae_title: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True)
class Forwarded:
    """What became of a series at one destination."""

    new: int
    """Instances that now have a delivery."""
    newer: int
    """Instances delivered or pending before, that are sent again because their bytes were replaced."""
    looping: int
    """Instances given up because they keep coming back changed."""


@dataclass(frozen=True)
class ClosedSeries:
    """A closed series, the study revision it is in, and when its last instance came that is known of."""

    series_id: int
    revision_id: int
    last_received_at: datetime


def series_to_route(session: Session) -> list[ClosedSeries]:
    """The closed series of studies on their way whose instances the rules have not all seen yet."""
    any_revision = aliased(StudyRevision)
    latest = select(func.max(any_revision.number)).where(any_revision.study_id == Series.study_id).scalar_subquery()
    closed = or_(Series.closed_at >= Series.last_received_at, StudyRevision.state == RevisionState.CLOSED)
    rows = session.execute(
        select(Series.id, StudyRevision.id, Series.last_received_at)
        .join(StudyRevision, StudyRevision.study_id == Series.study_id)
        .where(
            StudyRevision.state.in_((RevisionState.RECEIVING, RevisionState.CLOSED)),
            StudyRevision.number == latest,
            closed,
            or_(Series.routed_until.is_(None), Series.routed_until < Series.last_received_at),
        )
        .order_by(Series.id)
    )
    return [ClosedSeries(*row) for row in rows]


def revisions_to_route(session: Session) -> list[int]:
    """Revisions that are judged, or never will be, and on whose instances the rules' last word is outstanding."""
    return list(
        session.scalars(
            select(StudyRevision.id)
            .where(
                StudyRevision.state.in_((RevisionState.FINISHED, RevisionState.FAILED)),
                StudyRevision.routed_at.is_(None),
            )
            .order_by(StudyRevision.id)
        )
    )


def forward_series(
    session: Session,
    series_id: int,
    revision_id: int,
    recipient: Recipient,
    endpoint: Endpoint,
    maximum_rounds: int,
    now: datetime,
) -> Forwarded:
    """Give every instance of the series that has none a delivery to the destination, ordered by instance number.

    Set-based: a thousand instances cost one statement. Repeating it adds nothing.
    """
    remember_destinations(session, [recipient.destination])
    new = _insert(session, series_id, revision_id, recipient, endpoint, now)
    changed = _replaced(series_id, recipient.destination, endpoint)
    looping = change(
        session,
        update(Delivery)
        .where(changed, Delivery.round >= maximum_rounds)
        .values(
            state=DeliveryState.FAILED,
            status=LOOP.format(rounds=maximum_rounds),
            object_digest=_present_digest(),
        ),
    )
    newer = change(
        session,
        update(Delivery)
        .where(changed, Delivery.round < maximum_rounds)
        .values(_due_again(revision_id, now) | {"object_digest": _present_digest()}),
    )
    return Forwarded(new, newer, looping)


def send_instances_again(
    session: Session, series_ids: Sequence[int], destinations: Sequence[str], now: datetime
) -> int:
    """Make the deliveries of these series' instances to these destinations due again (a replay); return how many."""
    return change(
        session,
        update(Delivery)
        .where(
            Delivery.destination.in_(destinations),
            Delivery.instance_id.in_(select(Instance.id).where(Instance.series_id.in_(series_ids))),
        )
        .values(_due_again(Delivery.revision_id, now)),
    )


def count_echoes(session: Session, series_id: int, endpoint: Endpoint) -> int:
    """How many instances of the series came from that destination and are therefore not sent to it."""
    query = (
        select(func.count(Instance.id))
        .outerjoin(Association, Association.id == Instance.association_id)
        .where(Instance.series_id == series_id, _came_from(endpoint))
    )
    return session.scalar(query) or 0


def mark_series_routed(session: Session, closed: ClosedSeries) -> None:
    """The rules have seen what the series held when ``closed`` was read; what came since is looked at again."""
    routed = update(Series).where(Series.id == closed.series_id)
    session.execute(routed.values(routed_until=closed.last_received_at))


def mark_revision_routed(session: Session, revision_id: int, now: datetime) -> bool:
    """The rules have had their last word on the revision; False if another process was first."""
    mine = update(StudyRevision).where(StudyRevision.id == revision_id, StudyRevision.routed_at.is_(None))
    return change(session, mine.values(routed_at=now)) == 1


def series_of(session: Session, revision_id: int) -> list[int]:
    """Ids of the series of the revision's study, in the order a viewer lists them."""
    return list(
        session.scalars(
            select(Series.id)
            .join(Study)
            .join(StudyRevision, StudyRevision.study_id == Study.id)
            .where(StudyRevision.id == revision_id)
            .order_by(Series.series_number.is_(None), Series.series_number, Series.id)
        )
    )


def _insert(
    session: Session, series_id: int, revision_id: int, recipient: Recipient, endpoint: Endpoint, now: datetime
) -> int:
    known = select(Delivery.id).where(
        Delivery.instance_id == Instance.id, Delivery.destination == recipient.destination
    )
    rows = (
        select(
            literal(revision_id),
            Instance.id,
            Instance.object_digest,
            literal(recipient.destination),
            literal(int(recipient.priority)),
            literal(recipient.rules),
            literal(DeliveryState.PENDING.value),
            literal(1),
            literal(0),
            literal(""),
            literal(""),
            literal(now, Delivery.created_at.type),
            literal(now, Delivery.created_at.type),
        )
        .outerjoin(Association, Association.id == Instance.association_id)
        .where(Instance.series_id == series_id, ~_came_from(endpoint), ~known.exists())
        .order_by(Instance.instance_number.is_(None), Instance.instance_number, Instance.id)
    )
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    # Another process may be doing the same: what it was first with is there already.
    table = cast(Table, Delivery.__table__)
    return change(session, dialect.insert(table).from_select(list(_COLUMNS), rows).on_conflict_do_nothing())


def _came_from(endpoint: Endpoint) -> ColumnElement[bool]:
    """Whether the instance was sent by the endpoint; of an unknown sender the AE title alone decides."""
    same_title = Instance.source_ae_title == endpoint.ae_title
    if endpoint.addresses is None:
        return same_title
    unknown = Association.peer_address.is_(None)
    return and_(same_title, or_(unknown, Association.peer_address.in_(endpoint.addresses)))


def _replaced(series_id: int, destination: str, endpoint: Endpoint) -> ColumnElement[bool]:
    """Deliveries of other bytes than the instance has now, unless the destination itself sent those."""
    instance = (
        select(Instance.id)
        .outerjoin(Association, Association.id == Instance.association_id)
        .where(
            Instance.id == Delivery.instance_id,
            Instance.series_id == series_id,
            Instance.object_digest != Delivery.object_digest,
            ~func.coalesce(_came_from(endpoint), false()),
        )
        .correlate(Delivery)
    )
    return and_(Delivery.destination == destination, Delivery.instance_id.is_not(None), instance.exists())


def _present_digest() -> ColumnElement[str]:
    return select(Instance.object_digest).where(Instance.id == Delivery.instance_id).scalar_subquery()


def _due_again(revision_id: object, now: datetime) -> dict[str, object]:
    return {
        "revision_id": revision_id,
        "state": DeliveryState.PENDING,
        "round": Delivery.round + 1,
        "attempts": 0,
        "status": "",
        "sent_as": "",
        "delivered_at": None,
        "next_attempt_at": now,
    }
