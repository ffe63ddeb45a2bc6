"""Counts and times the attempts of delivery, from the row that was just booked."""

from sqlalchemy.orm import Session

from node import telemetry
from storage.models import Delivery, DeliveryState, utc_now
from storage.turnaround import is_delivered, last_received_at


def count_attempt(session: Session, delivery: Delivery) -> None:
    """One attempt was booked: count it, and time the object and its study when they have arrived.

    What a replay sends again counts as an attempt, but its time would be the age of the study.
    """
    if delivery.state != DeliveryState.DELIVERED:
        outcome = "given-up" if delivery.state == DeliveryState.FAILED else "retry"
        telemetry.delivery_attempted(delivery.destination, outcome)
        return
    telemetry.delivery_attempted(delivery.destination, "delivered")
    if delivery.round > 1:
        return
    now = utc_now()
    telemetry.object_delivered(delivery.destination, (now - delivery.created_at).total_seconds())
    if delivery.result is None:  # an instance as it was received: nobody waits for it with a stopwatch
        return
    revision = delivery.result.revision
    session.flush()
    if is_delivered(session, revision):
        last = last_received_at(session, revision)
        if last is not None:
            telemetry.study_delivered((now - last).total_seconds())
