"""What routing rules look at, read from the index: the series of a study, its verdict, the urgency it asks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.routing.rules import VERDICT, Facts
from storage.deliveries import Priority
from storage.models import Instance, RevisionState, Series, Study, StudyRevision
from storage.revisions import UnknownStudy

_PRIORITY_TAGS = ("00401003", "00401009")
"""Requested Procedure Priority, Reporting Priority."""
_REQUEST_ATTRIBUTES = "00400275"
_PRIORITIES = {
    "STAT": Priority.STAT,
    "HIGH": Priority.HIGH,
    "ROUTINE": Priority.ROUTINE,
    "MEDIUM": Priority.ROUTINE,
    "LOW": Priority.LOW,
}


@dataclass(frozen=True)
class SeriesFacts:
    """A series and what the rules see of it when they ask about its instances alone."""

    series_id: int
    series_instance_uid: str
    facts: Facts


@dataclass(frozen=True)
class StudyFacts:
    """A study revision: what the rules see of it as a whole, where any series' value counts, and series by series."""

    study_instance_uid: str
    revision_id: int
    revision: int
    whole: Facts
    series: tuple[SeriesFacts, ...]


def study_facts(session: Session, revision: StudyRevision) -> StudyFacts:
    """Read the facts of a study revision as they are known now."""
    study = revision.study
    of_study = _study_values(revision)
    roles = {row.series_instance_uid: row.role for row in revision.assessments}
    judged = of_study[VERDICT] is not None
    rows: list[tuple[Series, dict[str, tuple[str, ...] | None], Priority | None]] = []
    for series in _series(session, study):
        sample = _sample_header(session, series.id)
        values = of_study | _series_values(session, series, roles.get(series.series_instance_uid), judged)
        rows.append((series, values, _priority(sample)))
    asked = [priority for _, _, priority in rows if priority is not None]
    priority = min(asked) if asked else None
    completed_at = revision.closed_at or revision.opened_at
    urgency = {"requested_priority": (priority.name.lower(),) if priority is not None else ("",)}
    return StudyFacts(
        study.study_instance_uid,
        revision.id,
        revision.number,
        Facts(of_study | _any_of(values for _, values, _ in rows) | urgency, completed_at.astimezone(), priority),
        tuple(
            SeriesFacts(
                series.id,
                series.series_instance_uid,
                Facts(values | urgency, (series.closed_at or completed_at).astimezone(), priority),
            )
            for series, values, _ in rows
        ),
    )


def facts_of_study(session: Session, study_instance_uid: str) -> StudyFacts:
    """The facts of a study's last revision. Raises UnknownStudy."""
    revision = session.scalar(
        select(StudyRevision)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid)
        .order_by(StudyRevision.number.desc())
        .limit(1)
    )
    if revision is None:
        raise UnknownStudy(f"study {study_instance_uid} is not in this index")
    return study_facts(session, revision)


def headers_are_read(session: Session, series_id: int) -> bool:
    """Whether some instance of the series has its header in the index, which is filled in after its reception."""
    return _sample_header(session, series_id) is not None


def _study_values(revision: StudyRevision) -> dict[str, tuple[str, ...] | None]:
    """What is known of the study as a whole. Of one that failed, what had been found out before stands."""
    verdict = revision.verdict
    ended = revision.state in (RevisionState.FAILED, RevisionState.FINISHED)
    values: dict[str, tuple[str, ...] | None] = {
        "study_description": (revision.study.study_description,),
        VERDICT: None,
        "detection_state": None,
        "candidate_above_operating_point": None,
    }
    if ended or (verdict is not None and verdict.detection_state):
        above = any(candidate.above_operating_point for candidate in revision.candidates)
        values[VERDICT] = (verdict.verdict if verdict else "not-assessed",)
        values["detection_state"] = (
            verdict.detection_state if verdict and verdict.detection_state else "not-attempted",
        )
        values["candidate_above_operating_point"] = ("yes" if above else "no",)
    return values


def _series(session: Session, study: Study) -> Iterable[Series]:
    return session.scalars(
        select(Series)
        .where(Series.study_id == study.id)
        .order_by(Series.series_number.is_(None), Series.series_number, Series.id)
    )


def _series_values(
    session: Session, series: Series, role: str | None, judged: bool
) -> dict[str, tuple[str, ...] | None]:
    senders = session.scalars(
        select(Instance.source_ae_title).where(Instance.series_id == series.id).distinct().order_by("source_ae_title")
    )
    other = "other" if series.modality == "MR" else series.modality.lower()
    # Before the verdict a role may still change with what else arrives.
    roles = (other if role is None else role,) if judged else None
    return {
        "source_ae_title": tuple(senders) or ("",),
        "modality": (series.modality,),
        "body_part": (series.body_part_examined,),
        "station_name": (series.station_name,),
        "manufacturer": (series.manufacturer,),
        "series_description": (series.series_description,),
        "role": roles,
    }


def _any_of(series: Iterable[Mapping[str, tuple[str, ...] | None]]) -> dict[str, tuple[str, ...] | None]:
    """The values of all series together; unknown where those of one are."""
    together: dict[str, tuple[str, ...] | None] = {}
    for values in series:
        for name, seen in values.items():
            before = together.get(name, ())
            together[name] = None if seen is None or before is None else tuple(dict.fromkeys((*before, *seen)))
    return together


def _sample_header(session: Session, series_id: int) -> dict[str, Any] | None:
    """The header of one instance of the series: what is asked of it belongs to the procedure, not to the instance."""
    query = select(Instance.header).where(Instance.series_id == series_id, Instance.header.is_not(None))
    return session.scalar(query.order_by(Instance.id).limit(1))


def _priority(header: Mapping[str, Any] | None) -> Priority | None:
    """The most urgent priority that the header states, in itself or in its Request Attributes Sequence."""
    if header is None:
        return None
    requests = header.get(_REQUEST_ATTRIBUTES, {}).get("Value") or []
    items = [header, *(item for item in requests if isinstance(item, dict))]
    stated = [str(value) for item in items for tag in _PRIORITY_TAGS for value in item.get(tag, {}).get("Value") or []]
    known = [_PRIORITIES[word.strip().upper()] for word in stated if word.strip().upper() in _PRIORITIES]
    return min(known) if known else None
