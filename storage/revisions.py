"""Study revisions on their way: what the workflow's steps read and write."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from storage.errors import StorageError
from storage.models import (
    DetectionCandidate,
    Instance,
    RevisionState,
    Series,
    SeriesAssessmentRow,
    Study,
    StudyRevision,
    StudyVerdict,
)

_CANDIDATE_COLUMNS = (
    "tracking_uid",
    "probability",
    "above_operating_point",
    "volume_ml",
    "centroid_lps_mm",
    "sector",
    "segment_number",
)


REPLAYED = "replayed"
"""Why a revision was closed that somebody opened to have the study judged anew."""


class UnknownStudy(StorageError):
    """No such study (or revision) in the index."""


@dataclass(frozen=True)
class StoredInstance:
    """What a step needs of an instance: its identity, its bytes' name, its header as DICOM JSON."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    object_digest: str
    header: dict[str, Any]


def find_revision(session: Session, study_instance_uid: str, number: int, *, locked: bool = False) -> StudyRevision:
    """The revision, or UnknownStudy; ``locked`` until the transaction ends, for one that decides by its state."""
    query = (
        select(StudyRevision)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid, StudyRevision.number == number)
    )
    revision = session.scalar(query.with_for_update(of=StudyRevision) if locked else query)
    if revision is None:
        raise UnknownStudy(f"study {study_instance_uid} has no revision {number} in this index")
    return revision


def closed_revisions(session: Session) -> list[tuple[str, int]]:
    """Study UID and number of every revision that is complete but not finished, oldest first."""
    rows = session.execute(
        select(Study.study_instance_uid, StudyRevision.number)
        .join(StudyRevision)
        .where(StudyRevision.state == RevisionState.CLOSED)
        .order_by(StudyRevision.closed_at)
    )
    return [(uid, number) for uid, number in rows]


def stored_instances(session: Session, revision: StudyRevision) -> list[StoredInstance]:
    """The instances of the revision's study, without what arrived in later revisions.

    Their headers are those that `storage.describe` has written by now: a step has the study described first.

    So a step repeated after a crash sees the same input, with one exception: an instance that was replaced in between
    belongs to the later revision, which is then already open and reports anew.
    """
    query = (
        select(Instance, Series.series_instance_uid)
        .join(Series)
        .where(Series.study_id == revision.study_id, Instance.revision_number <= revision.number)
        .order_by(Instance.id)
    )
    return [
        StoredInstance(series_uid, i.sop_class_uid, i.sop_instance_uid, i.object_digest, i.header or {})
        for i, series_uid in session.execute(query)
    ]


def assessments_that_hold(
    session: Session, revision: StudyRevision, pipeline_version: str
) -> dict[str, dict[str, Any]]:
    """Series Instance UID -> assessment document of the revision before, for series that have not changed since.

    Only what the same pipeline version judged holds, and nothing where somebody asked to judge the study anew.
    """
    if revision.closed_reason == REPLAYED:
        return {}
    before = session.scalar(
        select(StudyRevision)
        .where(
            StudyRevision.study_id == revision.study_id,
            StudyRevision.number < revision.number,
            StudyRevision.pipeline_version == pipeline_version,
            StudyRevision.assessments.any(),
        )
        .order_by(StudyRevision.number.desc())
        .limit(1)
    )
    if before is None:
        return {}
    changed = set(
        session.scalars(
            select(Series.series_instance_uid)
            .join(Instance)
            .where(
                Series.study_id == revision.study_id,
                Instance.revision_number > before.number,
                Instance.revision_number <= revision.number,
            )
        )
    )
    return {a.series_instance_uid: a.document for a in before.assessments if a.series_instance_uid not in changed}


def save_assessments(session: Session, revision: StudyRevision, assessments: Iterable[dict[str, Any]]) -> None:
    """Write the series assessments (documents of the JSON contract), replacing those of an earlier try."""
    session.execute(delete(SeriesAssessmentRow).where(SeriesAssessmentRow.revision_id == revision.id))
    for document in assessments:
        session.add(
            SeriesAssessmentRow(
                revision_id=revision.id,
                series_instance_uid=document["series_instance_uid"],
                role=document["role"],
                b_value=document["b_value"],
                verdict=document["verdict"],
                score=document["score"],
                probability_non_diagnostic=document["probability_non_diagnostic"],
                reason=document["reason"],
                document=document,
            )
        )


def save_verdict(
    session: Session,
    revision: StudyRevision,
    *,
    verdict: str,
    reason: str,
    gate_open: bool,
    gate_reasons: Iterable[str],
    document: dict[str, Any],
    decided_at: datetime,
) -> None:
    """Write the study verdict, replacing that of an earlier try."""
    session.execute(delete(StudyVerdict).where(StudyVerdict.revision_id == revision.id))
    session.add(
        StudyVerdict(
            revision_id=revision.id,
            verdict=verdict,
            reason=reason,
            gate_open=gate_open,
            gate_reasons=list(gate_reasons),
            document=document,
            decided_at=decided_at,
        )
    )


def save_detection(
    session: Session,
    revision: StudyRevision,
    *,
    state: str,
    reason: str,
    digest: str,
    candidates: Iterable[dict[str, Any]],
) -> None:
    """Write the detector's state and candidates (documents of the JSON contract), replacing an earlier try's."""
    if revision.verdict is None:
        raise StorageError(f"revision {revision.number} has no verdict yet; detection comes after the gate")
    revision.verdict.detection_state = state
    revision.verdict.detection_reason = reason
    revision.verdict.detection_digest = digest
    session.execute(delete(DetectionCandidate).where(DetectionCandidate.revision_id == revision.id))
    for candidate in candidates:
        columns = {name: candidate[name] for name in _CANDIDATE_COLUMNS}
        session.add(DetectionCandidate(revision_id=revision.id, **columns))


def finish(revision: StudyRevision, at: datetime) -> None:
    """The revision's results are made and handed to delivery."""
    revision.state = RevisionState.FINISHED
    revision.finished_at = at


def fail(revision: StudyRevision, reason: str, at: datetime) -> None:
    """The revision cannot be processed; it stays in the index with the reason and can be replayed."""
    revision.state = RevisionState.FAILED
    revision.finished_at = at
    revision.failure = reason


def open_again(session: Session, study_instance_uid: str, at: datetime, pipeline_version: str) -> StudyRevision:
    """Open and close at once the next revision of a study, so that it is processed anew."""
    study = session.scalar(select(Study).where(Study.study_instance_uid == study_instance_uid))
    if study is None:
        raise UnknownStudy(f"study {study_instance_uid} is not in this index")
    if any(r.state == RevisionState.RECEIVING for r in study.revisions):
        raise StorageError(
            f"study {study_instance_uid} is still being received; it will be processed when it is complete"
        )
    revision = StudyRevision(
        study_id=study.id,
        number=max((r.number for r in study.revisions), default=0) + 1,
        state=RevisionState.CLOSED,
        opened_at=at,
        closed_at=at,
        closed_reason=REPLAYED,
        pipeline_version=pipeline_version,
    )
    session.add(revision)
    return revision
