"""Acting on the rules: the recipients of results, and received instances handed to the destinations that get them.

A series is routed when it closes, by what is known then; what waits for the verdict is routed when the study's revision
is judged. A revision that failed counts as not assessed: images never wait for a node that cannot judge them. At that
last word every series of the study is looked at again, so that an instance that came between is not forgotten.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.orm import Session

from node.routing.endpoints import endpoint_of
from node.routing.facts import SeriesFacts, StudyFacts, facts_of_study, headers_are_read, study_facts
from node.routing.rules import Decision, decide, rules_version
from node.settings import ObjectKind, Settings
from storage.database import Database
from storage.deliveries import Recipient, last_results, send_again
from storage.journal import record
from storage.models import StudyRevision
from storage.originals import (
    ClosedSeries,
    Endpoint,
    Forwarded,
    forward_series,
    mark_revision_routed,
    mark_series_routed,
    revisions_to_route,
    send_instances_again,
    series_to_route,
)

log = structlog.get_logger()

_ORIGINAL = (ObjectKind.ORIGINAL,)


def route_results(
    session: Session, settings: Settings, revision: StudyRevision, kinds: Collection[ObjectKind]
) -> tuple[dict[str, tuple[Recipient, ...]], Decision]:
    """The recipients of each kind of result of a judged revision, and the decision behind them."""
    decision = decide(settings, study_facts(session, revision).whole, kinds)
    return {kind.value: recipients_of(decision, kind) for kind in kinds}, decision


def recipients_of(decision: Decision, kind: ObjectKind) -> tuple[Recipient, ...]:
    """Where objects of this kind go."""
    return tuple(
        Recipient(send.destination, send.priority, ", ".join(send.rules))
        for send in decision.sends
        if send.kind is kind
    )


def results_again(session: Session, settings: Settings, study_instance_uid: str, now: datetime) -> int:
    """Make the study's last results due again at every destination that gets them now; return how many deliveries."""
    facts = facts_of_study(session, study_instance_uid)
    kinds = [ObjectKind(kind) for kind in {result.kind for result in last_results(session, study_instance_uid)}]
    decision = decide(settings, facts.whole, kinds)
    return send_again(session, study_instance_uid, {kind: recipients_of(decision, kind) for kind in kinds}, now)


def forward_again(session: Session, settings: Settings, study_instance_uid: str, now: datetime) -> int:
    """Make the study's received instances due (again) wherever the rules send them now; return how many deliveries."""
    endpoints = _endpoints(settings)
    if not endpoints:
        return 0
    study = facts_of_study(session, study_instance_uid)
    count = 0
    for series in study.series:
        decision = _forward(session, settings, endpoints, study, series, now)
        names = [recipient.destination for recipient in recipients_of(decision, ObjectKind.ORIGINAL)]
        count += send_instances_again(session, [series.series_id], names, now)
    return count


def journal_decision(
    session: Session, settings: Settings, study_instance_uid: str, revision: int, decision: Decision
) -> None:
    """Say in the study's journal where its results go, by which rules, and what goes nowhere."""
    routes = [f"{send.kind} to {send.destination}" for send in decision.sends]
    nowhere = [f"{kind} to nobody" for kind in decision.nowhere]
    record(
        session,
        "routed",
        ", ".join(routes + nowhere) or "nothing to route",
        study_instance_uid,
        revision=revision,
        **decision_detail(settings, decision),
    )


def decision_detail(settings: Settings, decision: Decision) -> dict[str, Any]:
    """What a program needs to retrace a decision."""
    return {
        "rules_version": rules_version(settings),
        "rules_that_hold": list(decision.holding),
        "rules_that_wait": list(decision.waits_for),
        "sends": [
            {"kind": s.kind, "destination": s.destination, "priority": s.priority.name.lower(), "rules": list(s.rules)}
            for s in decision.sends
        ],
    }


def forwards_originals(settings: Settings) -> bool:
    """Whether this configuration can send received instances anywhere."""
    by_rule = any(rule.objects is None or ObjectKind.ORIGINAL in rule.objects for rule in settings.rules)
    return by_rule or bool(settings.receivers_of(ObjectKind.ORIGINAL))


def route_received(database: Database, settings: Settings, now: datetime) -> None:
    """Hand on what has been received and is closed or judged since the last time. Safe in several processes at once."""
    with database.read() as session:
        # What an instance asks for is known once its header has been read, a moment after its reception. Until then
        # its series waits; the last word comes without it if need be.
        closed = [series for series in series_to_route(session) if headers_are_read(session, series.series_id)]
        judged = revisions_to_route(session)
    if not closed and not judged:
        return
    endpoints = _endpoints(settings)
    for series in closed:
        with database.session() as session:
            if endpoints:
                _route_closed(session, settings, endpoints, series, now)
            mark_series_routed(session, series)
    for revision_id in judged:
        with database.session() as session:
            if mark_revision_routed(session, revision_id, now) and endpoints:
                _route_judged(session, settings, endpoints, revision_id, now)


def _endpoints(settings: Settings) -> dict[str, Endpoint]:
    """Of the destinations that may get received instances; found before any transaction, as names may take a while."""
    if not forwards_originals(settings):
        return {}
    return {destination.name: endpoint_of(destination) for destination in settings.destinations}


def _route_closed(
    session: Session, settings: Settings, endpoints: Mapping[str, Endpoint], closed: ClosedSeries, now: datetime
) -> None:
    study = study_facts(session, session.get_one(StudyRevision, closed.revision_id))
    series = next(item for item in study.series if item.series_id == closed.series_id)
    _forward(session, settings, endpoints, study, series, now)


def _route_judged(
    session: Session, settings: Settings, endpoints: Mapping[str, Endpoint], revision_id: int, now: datetime
) -> None:
    study = study_facts(session, session.get_one(StudyRevision, revision_id))
    for series in study.series:
        _forward(session, settings, endpoints, study, series, now)


def _forward(
    session: Session,
    settings: Settings,
    endpoints: Mapping[str, Endpoint],
    study: StudyFacts,
    series: SeriesFacts,
    now: datetime,
) -> Decision:
    decision = decide(settings, series.facts, _ORIGINAL)
    outcomes: dict[str, Forwarded] = {}
    for recipient in recipients_of(decision, ObjectKind.ORIGINAL):
        outcomes[recipient.destination] = forward_series(
            session,
            series.series_id,
            study.revision_id,
            recipient,
            endpoints[recipient.destination],
            settings.delivery.maximum_rounds,
            now,
        )
    told = [
        f"{outcome.new + outcome.newer} instances to {name}"
        + (f", {outcome.looping} in a loop" * bool(outcome.looping))
        for name, outcome in outcomes.items()
        if outcome.new or outcome.newer or outcome.looping
    ]
    if decision.waits_for:
        told.append(f"waiting to be decided: {', '.join(decision.waits_for)}")
    if told:
        record(
            session,
            "originals-routed",
            "; ".join(told),
            study.study_instance_uid,
            revision=study.revision,
            series_instance_uid=series.series_instance_uid,
            **decision_detail(settings, decision),
        )
        log.info(
            "originals.routed",
            study_instance_uid=study.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            destinations=sorted(outcomes),
        )
    return decision
