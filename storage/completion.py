"""Closing series and studies that are complete, by the evidence of `storage.evidence`, with reason and journal entry.

What is to be closed is decided on a snapshot, so that nothing is locked while there is nothing to do; it is closed
only if nothing has arrived since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from storage.completion_facts import (
    SERIES_IS_OPEN,
    OpenSeries,
    ReceivingStudy,
    facts_of_series,
    facts_of_study,
    open_series,
    receiving_studies,
    silent_since,
)
from storage.evidence import Closing, CompletionPolicy, Evidence, judge_series, judge_study
from storage.journal import record
from storage.models import Instance, RevisionState, Series, SeriesEvidence, Study, StudyRevision
from storage.upsert import get_or_create

LOOK_S_PER_INSTANCE = 0.005
"""A series must pause this long per instance before its headers are read: twice what reading them takes, so that a
long series arriving in bursts is not read again and again. Beyond a thousand instances silence closes it first."""


@dataclass(frozen=True)
class SeriesClosing:
    """An open series that may be closed, and why."""

    series: OpenSeries
    closing: Closing


@dataclass(frozen=True)
class StudyClosing:
    """A study being received that may be closed, and why."""

    study: ReceivingStudy
    closing: Closing


@dataclass(frozen=True)
class ClosedRevision:
    """A study revision that was just closed."""

    study_instance_uid: str
    number: int
    reason: str


def series_to_examine(session: Session, policy: CompletionPolicy, now: datetime) -> list[OpenSeries]:
    """The open series whose headers are to be read (again), because they have changed and now pause.

    A header that is not described yet (NULL) makes its series wait; without a look there is no evidence.
    """
    found = []
    for series in open_series(session, silent_since(now, policy)):
        if (now - series.last_received_at).total_seconds() < LOOK_S_PER_INSTANCE * series.instances:
            continue
        look = session.execute(
            select(SeriesEvidence.examined_through, SeriesEvidence.instances).where(
                SeriesEvidence.series_id == series.series_id
            )
        ).one_or_none()
        if look is not None and tuple(look) == (series.last_received_at, series.instances):
            continue
        undescribed = exists().where(Instance.series_id == series.series_id, Instance.header.is_(None))
        if not session.scalar(select(undescribed)):
            found.append(series)
    return found


def save_examination(
    session: Session, series: OpenSeries, evidence: Evidence | None, announced_study_instances: int | None
) -> None:
    """Keep what the headers of a series say, until it receives more."""
    values = {"examined_through": series.last_received_at, "instances": series.instances}
    row_id = get_or_create(session, SeriesEvidence, {"series_id": series.series_id}, _blank() | values)
    row = session.get_one(SeriesEvidence, row_id)
    row.examined_through, row.instances = series.last_received_at, series.instances
    row.kind = evidence.kind if evidence else ""
    row.missing = evidence.missing if evidence else 0
    row.reason = evidence.reason if evidence else ""
    row.open_ended = evidence.open_ended if evidence else False
    row.announced_study_instances = announced_study_instances


def series_to_close(session: Session, policy: CompletionPolicy, now: datetime) -> list[SeriesClosing]:
    """The open series for which there is enough evidence; reads only."""
    candidates = open_series(session, silent_since(now, policy))
    facts = facts_of_series(session, candidates, now)
    decided = ((series, judge_series(facts[series.series_id], policy)) for series in candidates)
    return [SeriesClosing(series, closing) for series, closing in decided if closing is not None]


def close_series(session: Session, closings: Sequence[SeriesClosing], now: datetime) -> int:
    """Close these series, except those that have received something in between; returns how many."""
    closed = 0
    for decided in closings:
        series, closing = decided.series, decided.closing
        row = session.scalar(
            select(Series)
            .where(Series.id == series.series_id, Series.last_received_at == series.last_received_at, SERIES_IS_OPEN)
            .with_for_update(skip_locked=True)
        )
        if row is None or _count(session, series.series_id) != series.instances:
            continue
        row.closed_at, row.closed_through = now, series.last_received_at
        row.closings += 1
        row.closed_evidence, row.closed_confidence, row.closed_reason = closing.kind, closing.confidence, closing.reason
        record(
            session,
            "series-closed",
            f"{series.instances} instances, {closing.reason}",
            series.study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            instances=series.instances,
            evidence=closing.kind,
            confidence=closing.confidence,
        )
        closed += 1
    return closed


def studies_to_close(session: Session, policy: CompletionPolicy, now: datetime) -> list[StudyClosing]:
    """The studies without open series for which there is enough evidence; reads only."""
    found = []
    for study in receiving_studies(session, silent_since(now, policy)):
        closing = judge_study(facts_of_study(session, study, policy, now), policy)
        if closing is not None:
            found.append(StudyClosing(study, closing))
    return found


def close_studies(session: Session, closings: Sequence[StudyClosing], now: datetime) -> list[ClosedRevision]:
    """Close these revisions, except of studies that have received something in between; returns those closed."""
    closed = []
    for decided in closings:
        study, closing = decided.study, decided.closing
        revision = session.scalar(
            select(StudyRevision)
            .where(StudyRevision.id == study.revision_id, StudyRevision.state == RevisionState.RECEIVING)
            .with_for_update(skip_locked=True)
        )
        # Asked after the lock: from now on a receiver has to open the next revision.
        unchanged = select(Study.id).where(Study.id == study.study_id, Study.last_received_at == study.last_received_at)
        if revision is None or session.scalar(unchanged) is None:
            continue
        revision.state = RevisionState.CLOSED
        revision.closed_at = now
        revision.closed_evidence, revision.closed_confidence = closing.kind, closing.confidence
        revision.closed_reason = closing.reason
        record(
            session,
            "study-closed",
            closing.reason,
            study.study_instance_uid,
            revision=study.number,
            evidence=closing.kind,
            confidence=closing.confidence,
        )
        closed.append(ClosedRevision(study.study_instance_uid, study.number, closing.reason))
    return closed


def close_complete(session: Session, policy: CompletionPolicy, now: datetime) -> list[ClosedRevision]:
    """Close first every series, then every study for which there is enough evidence; returns the revisions closed."""
    close_series(session, series_to_close(session, policy, now), now)
    session.flush()
    return close_studies(session, studies_to_close(session, policy, now), now)


def _blank() -> dict[str, object]:
    return {"kind": "", "missing": 0, "reason": "", "open_ended": False}


def _count(session: Session, series_id: int) -> int:
    return session.scalar(select(func.count(Instance.id)).where(Instance.series_id == series_id)) or 0
