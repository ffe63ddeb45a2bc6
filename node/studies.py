"""What the node knows of its studies, as JSON documents: for the command line and the web interface alike."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.deliveries import originals_of
from node.history import study_history
from storage.database import Database
from storage.models import (
    Association,
    Delivery,
    Instance,
    JournalEntry,
    RevisionState,
    Series,
    SeriesVerdict,
    Study,
    StudyRevision,
)
from storage.revisions import UnknownStudy


def list_studies(database: Database, limit: int) -> list[dict[str, Any]]:
    """The studies received last, newest first."""
    with database.read() as session:
        studies = session.scalars(select(Study).order_by(Study.last_received_at.desc()).limit(limit)).all()
        return [_summary(session, study) for study in studies]


def show_study(database: Database, study_instance_uid: str) -> dict[str, Any]:
    """A study in full: series, last revision's assessments and candidates, result objects, deliveries, journal, and the
    history: the journal and the receptions in sentences.

    Raises:
        UnknownStudy: it is not in this index.
    """
    with database.read() as session:
        # PostgreSQL refuses NUL in a text; no UID in the index has one.
        known = "\x00" not in study_instance_uid
        study = session.scalar(select(Study).where(Study.study_instance_uid == study_instance_uid)) if known else None
        if study is None:
            raise UnknownStudy(f"study {study_instance_uid} is not in this index")
        revision = _judged_revision(study)
        verdicts = _series_verdicts(session, study)
        return {
            **_summary(session, study),
            "series": [
                {
                    "series_instance_uid": s.series_instance_uid,
                    "modality": s.modality,
                    "series_number": s.series_number,
                    "series_description": s.series_description,
                    "instances": _count(session, Instance.series_id == s.id),
                    "completion": _series_completion(s),
                    "assessment": verdicts.get(s.id),
                }
                for s in sorted(study.series, key=lambda s: (s.series_number is None, s.series_number, s.id))
            ],
            "assessment": revision.verdict.document if revision and revision.verdict else None,
            "detection": _detection(revision),
            "objects": _objects(revision),
            "originals": originals_of(session, study_instance_uid),
            "journal": _journal(session, study_instance_uid),
            "history": [line.document() for line in study_history(session, study)],
        }


def node_status(database: Database) -> dict[str, Any]:
    """Counts that tell whether the node keeps up."""
    with database.read() as session:
        states = session.execute(select(StudyRevision.state, func.count()).group_by(StudyRevision.state)).all()
        deliveries = session.execute(
            select(Delivery.destination, Delivery.state, func.count()).group_by(Delivery.destination, Delivery.state)
        ).all()
        return {
            "studies": session.scalar(select(func.count(Study.id))),
            "instances": session.scalar(select(func.count(Instance.id))),
            "open_associations": session.scalar(
                select(func.count(Association.id)).where(Association.released_at.is_(None))
            ),
            "revisions": {row[0]: row[1] for row in states},
            "deliveries": [{"destination": d, "state": s, "count": n} for d, s, n in deliveries],
        }


def _count(session: Session, *where: Any) -> int:
    return session.scalar(select(func.count(Instance.id)).where(*where)) or 0


def _judged_revision(study: Study) -> StudyRevision | None:
    """The last revision with a verdict."""
    return next((r for r in reversed(study.revisions) if r.verdict is not None), None)


def _summary(session: Session, study: Study) -> dict[str, Any]:
    last = study.revisions[-1] if study.revisions else None
    judged = _judged_revision(study)
    verdict = judged.verdict if judged else None
    instances = session.scalar(select(func.count(Instance.id)).join(Series).where(Series.study_id == study.id))
    return {
        "study_instance_uid": study.study_instance_uid,
        "patient_name": study.patient.patient_name,
        "patient_id": study.patient.patient_id,
        "accession_number": study.accession_number,
        "study_date": study.study_date,
        "study_description": study.study_description,
        "instances": instances,
        "last_received_at": study.last_received_at.isoformat(),
        "revision": last.number if last else None,
        "state": last.state if last else RevisionState.RECEIVING,
        "failure": last.failure if last else "",
        "completion": {
            "evidence": last.closed_evidence or None,
            "confidence": last.closed_confidence or None,
            "reason": last.closed_reason or None,
        }
        if last
        else None,
        "verdict": verdict.verdict if verdict else None,
        "reason": verdict.reason if verdict else None,
        "gate_open": verdict.gate_open if verdict else None,
    }


def _series_completion(series: Series) -> dict[str, Any]:
    """Whether a series is closed, and on what evidence it was when it last was."""
    through = series.closed_through
    return {
        "closed": through is not None and through >= series.last_received_at,
        "closed_at": series.closed_at.isoformat() if series.closed_at else None,
        "evidence": series.closed_evidence or None,
        "confidence": series.closed_confidence or None,
        "reason": series.closed_reason or None,
    }


def _series_verdicts(session: Session, study: Study) -> dict[int, dict[str, Any]]:
    """Series id -> the verdict reached when the series closed; what the whole study says is in ``assessment``."""
    rows = session.scalars(select(SeriesVerdict).join(Series).where(Series.study_id == study.id))
    return {
        row.series_id: {key: row.document[key] for key in ("role", "b_value", "verdict", "score", "reason")}
        | {"decided_at": row.decided_at.isoformat()}
        for row in rows
        if row.closing == row.series.closings
    }


def _detection(revision: StudyRevision | None) -> dict[str, Any] | None:
    if revision is None or revision.verdict is None or not revision.verdict.detection_state:
        return None
    return {
        "state": revision.verdict.detection_state,
        "reason": revision.verdict.detection_reason,
        "candidates": [
            {
                "tracking_uid": c.tracking_uid,
                "probability": c.probability,
                "above_operating_point": c.above_operating_point,
                "volume_ml": c.volume_ml,
                "centroid_lps_mm": c.centroid_lps_mm,
                "sector": c.sector,
                "segment_number": c.segment_number,
            }
            for c in revision.candidates
        ],
    }


def _objects(revision: StudyRevision | None) -> list[dict[str, Any]]:
    return [
        {
            "kind": result.kind,
            "sop_class_uid": result.sop_class_uid,
            "sop_instance_uid": result.sop_instance_uid,
            "object_digest": result.object_digest,
            "deliveries": [
                {
                    "destination": d.destination,
                    "state": d.state,
                    "attempts": d.attempts,
                    "status": d.status,
                    "sent_as": d.sent_as,
                    "rules": d.rules,
                    "delivered_at": d.delivered_at.isoformat() if d.delivered_at else None,
                }
                for d in result.deliveries
            ],
        }
        for result in (revision.results if revision else [])
    ]


def _journal(session: Session, study_instance_uid: str) -> list[dict[str, Any]]:
    entries = session.scalars(
        select(JournalEntry)
        .where(JournalEntry.study_instance_uid == study_instance_uid)
        .order_by(JournalEntry.at, JournalEntry.id)
    )
    return [{"at": e.at.isoformat(), "event": e.event, "message": e.message, "detail": e.detail} for e in entries]
