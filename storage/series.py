"""Closed series and the verdicts on them, which a study's revision takes over where nothing has changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, not_, or_, select
from sqlalchemy.orm import Session

from storage.completion_facts import SERIES_IS_OPEN
from storage.models import Instance, RevisionState, Series, SeriesVerdict, Study, StudyRevision
from storage.revisions import StoredInstance, UnknownStudy
from storage.upsert import get_or_create


@dataclass(frozen=True)
class KnownVerdict:
    """A verdict on a series as it was judged without its study."""

    fingerprint: str
    roles: Mapping[str, Any]
    document: Mapping[str, Any]


def series_headers(session: Session, series_id: int) -> list[dict[str, Any]]:
    """The headers of a series as DICOM JSON, those not described yet left out."""
    query = select(Instance.header).where(Instance.series_id == series_id, Instance.header.is_not(None))
    return list(session.scalars(query.order_by(Instance.id)))


def series_instances(session: Session, study_instance_uid: str, series_instance_uid: str) -> list[StoredInstance]:
    """The instances of a series as they are now. Raises UnknownStudy."""
    series = _find(session, study_instance_uid, series_instance_uid)
    rows = session.scalars(select(Instance).where(Instance.series_id == series.id).order_by(Instance.id))
    return [
        StoredInstance(series_instance_uid, i.sop_class_uid, i.sop_instance_uid, i.object_digest, i.header or {})
        for i in rows
    ]


def fingerprint(instances: Iterable[StoredInstance]) -> str:
    """SHA-256 over identity and content of the instances, in any order."""
    lines = sorted(f"{i.sop_instance_uid} {i.object_digest}\n" for i in instances)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def closed_series(session: Session, pipeline_version: str) -> list[tuple[str, str, int]]:
    """Study UID, series UID and closing of every closed series without a verdict, of studies still being received.

    A study that has been closed judges its series itself. A series whose headers are not all described yet waits.
    """
    judged = and_(
        SeriesVerdict.series_id == Series.id,
        SeriesVerdict.closing == Series.closings,
        SeriesVerdict.pipeline_version == pipeline_version,
    )
    undescribed = exists().where(Instance.series_id == Series.id, Instance.header.is_(None))
    rows = session.execute(
        select(Study.study_instance_uid, Series.series_instance_uid, Series.closings)
        .join(Study, Study.id == Series.study_id)
        .join(StudyRevision, StudyRevision.study_id == Series.study_id)
        .outerjoin(SeriesVerdict, judged)
        .where(
            StudyRevision.state == RevisionState.RECEIVING,
            not_(or_(Series.closings == 0, SERIES_IS_OPEN)),
            SeriesVerdict.id.is_(None),
            not_(undescribed),
        )
        .order_by(Series.closed_at)
    )
    return [(study, series, closing) for study, series, closing in rows]


def save_series_verdict(
    session: Session,
    study_instance_uid: str,
    document: Mapping[str, Any],
    *,
    closing: int,
    fingerprint: str,
    pipeline_version: str,
    roles: Mapping[str, Any],
    decided_at: datetime,
) -> bool:
    """Write the verdict on a series, replacing one on an earlier closing; False if a later closing has one already.

    ``document`` is the series' part of the JSON contract; ``fingerprint`` is empty where judging failed.
    """
    series = _find(session, study_instance_uid, document["series_instance_uid"])
    values: dict[str, Any] = {
        "closing": closing,
        "fingerprint": fingerprint,
        "pipeline_version": pipeline_version,
        "roles": dict(roles),
        "document": dict(document),
        "decided_at": decided_at,
    }
    row = session.get_one(SeriesVerdict, get_or_create(session, SeriesVerdict, {"series_id": series.id}, values))
    if row.closing > closing:
        return False
    for name, value in values.items():
        setattr(row, name, value)
    return True


def known_verdicts(
    session: Session, study_id: int, instances: Sequence[StoredInstance], pipeline_version: str
) -> dict[str, KnownVerdict]:
    """Series UID -> the verdict on exactly these instances by this pipeline version."""
    by_series: dict[str, list[StoredInstance]] = {}
    for instance in instances:
        by_series.setdefault(instance.series_instance_uid, []).append(instance)
    rows = session.execute(
        select(Series.series_instance_uid, SeriesVerdict)
        .join(SeriesVerdict, SeriesVerdict.series_id == Series.id)
        .where(Series.study_id == study_id, SeriesVerdict.pipeline_version == pipeline_version)
    )
    return {
        uid: KnownVerdict(row.fingerprint, row.roles, row.document)
        for uid, row in rows
        if uid in by_series and row.fingerprint == fingerprint(by_series[uid])
    }


def _find(session: Session, study_instance_uid: str, series_instance_uid: str) -> Series:
    series = session.scalar(
        select(Series)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid, Series.series_instance_uid == series_instance_uid)
    )
    if series is None:
        raise UnknownStudy(f"series {series_instance_uid} of study {study_instance_uid} is not in this index")
    return series
