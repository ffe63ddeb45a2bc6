"""Which series and studies are complete: silence, and released associations as evidence (PS3.4 has no end-of-study).

A study over two associations is common, so a release alone never closes it; a scanner that keeps its association open
all day never releases, so silence alone must do after longer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.journal import record
from storage.models import Association, Instance, RevisionState, Series, Study, StudyRevision


@dataclass(frozen=True)
class QuietTimes:
    """Seconds of silence after which a series or study counts as complete."""

    series_s: float
    study_s: float
    open_association_s: float


@dataclass(frozen=True)
class ClosedRevision:
    """A study revision that was just closed."""

    study_instance_uid: str
    number: int
    reason: str


def close_quiet_series(session: Session, quiet: QuietTimes, now: datetime) -> int:
    """Close every series that has been silent long enough, of studies that are being received; return how many."""
    silent_since = now - timedelta(seconds=quiet.series_s)
    rows = session.execute(
        select(Series, Study.study_instance_uid)
        .join(Study)
        .join(StudyRevision)
        .where(
            StudyRevision.state == RevisionState.RECEIVING,
            Series.last_received_at <= silent_since,
            (Series.closed_at.is_(None)) | (Series.closed_at < Series.last_received_at),
        )
    ).all()
    for series, study_instance_uid in rows:
        instances = session.scalar(select(func.count(Instance.id)).where(Instance.series_id == series.id))
        series.closed_at = now
        record(
            session,
            "series-closed",
            f"{instances} instances, silent for {quiet.series_s:g} s",
            study_instance_uid,
            series_instance_uid=series.series_instance_uid,
            instances=instances,
        )
    return len(rows)


def close_quiet_studies(session: Session, quiet: QuietTimes, now: datetime) -> Iterator[ClosedRevision]:
    """Close every receiving revision whose study has been silent long enough; yield each with its reason."""
    candidates = session.execute(
        select(StudyRevision, Study)
        .join(Study)
        .where(
            StudyRevision.state == RevisionState.RECEIVING,
            Study.last_received_at <= now - timedelta(seconds=quiet.study_s),
        )
        .with_for_update(of=StudyRevision, skip_locked=True)
    ).all()
    for revision, study in candidates:
        reason = _closing_reason(session, study, quiet, now)
        if reason is None:
            continue
        revision.state = RevisionState.CLOSED
        revision.closed_at = now
        revision.closed_reason = reason
        record(session, "study-closed", reason, study.study_instance_uid, revision=revision.number)
        yield ClosedRevision(study.study_instance_uid, revision.number, reason)


def _closing_reason(session: Session, study: Study, quiet: QuietTimes, now: datetime) -> str | None:
    """Why the study may be closed now, None if it must wait."""
    open_associations = session.scalar(
        select(func.count(func.distinct(Association.id)))
        .join(Instance, Instance.association_id == Association.id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study.id, Association.released_at.is_(None))
    )
    if not open_associations:
        return f"associations released, silent for {quiet.study_s:g} s"
    if study.last_received_at <= now - timedelta(seconds=quiet.open_association_s):
        return f"silent for {quiet.open_association_s:g} s with {open_associations} association(s) still open"
    return None
