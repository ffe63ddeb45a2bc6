"""What the node knows of its deliveries and destinations, as JSON documents: for the command line and the web alike."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.settings import ObjectKind, Settings
from storage.database import Database
from storage.destinations import all_destinations
from storage.models import (
    Delivery,
    DeliveryState,
    DestinationState,
    Instance,
    JournalEntry,
    ResultObject,
    Study,
    StudyRevision,
)

CONFIGURATION_EVENTS = ("configuration-reloaded", "configuration-refused")


def list_deliveries(
    database: Database,
    state: str | None = None,
    destination: str | None = None,
    study_instance_uid: str | None = None,
    limit: int = 100,
    warnings: bool = False,
) -> list[dict[str, Any]]:
    """Deliveries, last created first; None means any, ``warnings`` only those delivered with a warning status."""
    query = (
        select(Delivery, ResultObject, Instance, Study.study_instance_uid, StudyRevision.number)
        .join(StudyRevision, StudyRevision.id == Delivery.revision_id)
        .join(Study)
        .outerjoin(ResultObject, ResultObject.id == Delivery.result_id)
        .outerjoin(Instance, Instance.id == Delivery.instance_id)
        .order_by(Delivery.id.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(Delivery.state == state)
    if destination is not None:
        query = query.where(Delivery.destination == destination)
    if study_instance_uid is not None:
        query = query.where(Study.study_instance_uid == study_instance_uid)
    if warnings:
        query = query.where(Delivery.state == DeliveryState.DELIVERED, Delivery.status.startswith("0xB"))
    with database.read() as session:
        return [
            _delivery(delivery, result, instance) | {"study_instance_uid": study, "revision": number}
            for delivery, result, instance, study, number in session.execute(query)
        ]


def destinations_of(session: Session, settings: Settings) -> list[dict[str, Any]]:
    """Every destination that is configured or still has a history: how it stands and what waits for it."""
    known = {state.name: state for state in all_destinations(session)}
    counts: dict[str, dict[str, int]] = {}
    for name, state, count in session.execute(
        select(Delivery.destination, Delivery.state, func.count()).group_by(Delivery.destination, Delivery.state)
    ):
        counts.setdefault(name, {})[state] = count
    configured = [destination.name for destination in settings.destinations]
    names = [*configured, *sorted(known.keys() - set(configured))]
    return [_destination(settings, name, known.get(name), counts.get(name, {})) for name in names]


def originals_of(session: Session, study_instance_uid: str) -> list[dict[str, Any]]:
    """How far the received instances of a study have been forwarded, by destination and state."""
    rows = session.execute(
        select(Delivery.destination, Delivery.state, func.count(), func.max(Delivery.status))
        .join(StudyRevision, StudyRevision.id == Delivery.revision_id)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid, Delivery.instance_id.is_not(None))
        .group_by(Delivery.destination, Delivery.state)
        .order_by(Delivery.destination, Delivery.state)
    )
    return [{"destination": d, "state": s, "count": n, "status": status} for d, s, n, status in rows]


def last_configuration_change(session: Session) -> dict[str, Any] | None:
    """What became of the configuration file when it last changed under the running node."""
    entry = session.scalar(
        select(JournalEntry)
        .where(JournalEntry.study_instance_uid == "", JournalEntry.event.in_(CONFIGURATION_EVENTS))
        .order_by(JournalEntry.at.desc(), JournalEntry.id.desc())
        .limit(1)
    )
    if entry is None:
        return None
    return {"at": entry.at.isoformat(), "event": entry.event, "message": entry.message, **entry.detail}


def _delivery(delivery: Delivery, result: ResultObject | None, instance: Instance | None) -> dict[str, Any]:
    sop_instance_uid = result.sop_instance_uid if result else instance.sop_instance_uid if instance else ""
    return {
        "id": delivery.id,
        "kind": result.kind if result else ObjectKind.ORIGINAL.value,
        "sop_instance_uid": sop_instance_uid,
        "destination": delivery.destination,
        "state": delivery.state,
        "status": delivery.status,
        "sent_as": delivery.sent_as,
        "priority": delivery.priority,
        "rules": delivery.rules,
        "round": delivery.round,
        "attempts": delivery.attempts,
        "created_at": _time(delivery.created_at),
        "first_attempt_at": _time(delivery.first_attempt_at),
        "last_attempt_at": _time(delivery.last_attempt_at),
        "next_attempt_at": _time(delivery.next_attempt_at) if delivery.state == DeliveryState.PENDING else None,
        "delivered_at": _time(delivery.delivered_at),
    }


def _destination(
    settings: Settings, name: str, state: DestinationState | None, counts: dict[str, int]
) -> dict[str, Any]:
    configured = settings.destination(name)
    return {
        "name": name,
        "address": f"{configured.ae_title}@{configured.host}:{configured.port}" if configured else None,
        "receives": [kind.value for kind in configured.receives] if configured else [],
        "paused_at": _time(state.paused_at) if state else None,
        "paused_reason": state.paused_reason if state else "",
        "sending_since": _time(state.sending_since) if state else None,
        "last_success_at": _time(state.last_success_at) if state else None,
        "last_failure_at": _time(state.last_failure_at) if state else None,
        "last_failure": state.last_failure if state else "",
        **{word.value: counts.get(word.value, 0) for word in DeliveryState},
    }


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
