"""What stays known of a destination between deliveries: its runs, whether it is paused, and how it last answered."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from storage.bulk import change
from storage.models import Delivery, DeliveryState, DestinationState
from storage.upsert import insert_if_absent

_EMPTY = {"turn": 0, "paused_reason": "", "last_failure": ""}


@dataclass(frozen=True)
class DueRun:
    """Something is due at ``destination``; ``turn`` numbers the run that shall send it."""

    destination: str
    turn: int


def remember_destinations(session: Session, names: Iterable[str]) -> None:
    """Make sure that each destination has its row."""
    for name in sorted(set(names)):  # in one order, so that two processes never wait for each other
        if session.scalar(select(DestinationState.id).where(DestinationState.name == name)) is None:
            insert_if_absent(session, DestinationState, {"name": name}, _EMPTY)


def destination_state(session: Session, name: str) -> DestinationState:
    """The row of a destination; made where there is none."""
    remember_destinations(session, [name])
    return session.scalars(select(DestinationState).where(DestinationState.name == name).with_for_update()).one()


def due_runs(session: Session, now: datetime) -> list[DueRun]:
    """The destinations that are not paused and have something due."""
    due = exists().where(
        Delivery.destination == DestinationState.name,
        Delivery.state == DeliveryState.PENDING,
        Delivery.next_attempt_at <= now,
    )
    rows = session.execute(
        select(DestinationState.name, DestinationState.turn)
        .where(DestinationState.paused_at.is_(None), due)
        .order_by(DestinationState.name)
    )
    return [DueRun(name, turn) for name, turn in rows]


def begin_run(session: Session, name: str, turn: int, now: datetime) -> bool:
    """Begin the run of that number, or go on with it after a crash. False: it has ended, or the destination is paused.

    A paused destination's run is ended here, so that it counts as drained.
    """
    state = destination_state(session, name)
    if state.turn != turn:
        return False
    if state.paused_at is not None:
        _end(state)
        return False
    state.sending_since = now
    return True


def end_run(session: Session, name: str, turn: int) -> None:
    """The run of that number is over; the next one gets the next number."""
    state = destination_state(session, name)
    if state.turn == turn:
        _end(state)


def _end(state: DestinationState) -> None:
    state.turn += 1
    state.sending_since = None


def note_outcomes(session: Session, name: str, delivered: bool, failure: str, now: datetime) -> None:
    """Remember when the destination last took an object, and when and how it last failed (empty: it did not)."""
    values: dict[str, object] = {"last_success_at": now} if delivered else {}
    if failure:
        values |= {"last_failure_at": now, "last_failure": failure}
    if values:
        session.execute(update(DestinationState).where(DestinationState.name == name).values(**values))


def is_paused(session: Session, name: str) -> bool:
    """Whether nothing new shall be sent there."""
    query = select(DestinationState.paused_at).where(DestinationState.name == name)
    return session.scalar(query) is not None


def pause(session: Session, name: str, reason: str, now: datetime) -> DestinationState:
    """Send nothing more to the destination until `resume`; the objects on their way are finished, the rest waits."""
    state = destination_state(session, name)
    state.paused_at = state.paused_at or now
    state.paused_reason = reason
    return state


def resume(session: Session, name: str, now: datetime) -> int:
    """Send again, at once what had been waiting for its next attempt too; return how many objects are due."""
    state = destination_state(session, name)
    state.paused_at, state.paused_reason = None, ""
    pending = (Delivery.destination == name, Delivery.state == DeliveryState.PENDING)
    return change(session, update(Delivery).where(*pending).values(next_attempt_at=now))


def all_destinations(session: Session) -> list[DestinationState]:
    """Every destination that ever had a delivery or was paused, by name."""
    return list(session.scalars(select(DestinationState).order_by(DestinationState.name)))
