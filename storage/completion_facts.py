"""What the index knows of series and studies that are being received, gathered for the rules of `storage.evidence`.

Only series that have received something since they were last closed are looked at, and only those of studies being
received: the cost follows what is arriving, not what is stored.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, func, not_, or_, select
from sqlalchemy.orm import Session

from storage.evidence import (
    MAXIMUM_UIDS_IN_REASON,
    CompletionPolicy,
    Confidence,
    Evidence,
    EvidenceKind,
    Named,
    SeriesFacts,
    StudyFacts,
)
from storage.models import (
    Association,
    CommitmentItem,
    CommitmentRequest,
    Instance,
    PerformedInstance,
    PerformedProcedureStep,
    PerformedStepStudy,
    RevisionState,
    Series,
    SeriesEvidence,
    StepStatus,
    Study,
    StudyRevision,
)

SERIES_IS_OPEN: ColumnElement[bool] = or_(
    Series.closed_through.is_(None), Series.closed_through < Series.last_received_at
)
"""Something has arrived since it was last closed."""


@dataclass(frozen=True)
class OpenSeries:
    """An open series of a study that is being received."""

    series_id: int
    series_instance_uid: str
    study_id: int
    study_instance_uid: str
    last_received_at: datetime
    instances: int


@dataclass(frozen=True)
class ReceivingStudy:
    """A study that is being received and has no open series."""

    revision_id: int
    number: int
    study_id: int
    study_instance_uid: str
    last_received_at: datetime


def open_series(session: Session, silent_since: datetime) -> list[OpenSeries]:
    """The open series that have received nothing after ``silent_since``, oldest first."""
    rows = session.execute(
        select(
            Series.id,
            Series.series_instance_uid,
            Series.study_id,
            Study.study_instance_uid,
            Series.last_received_at,
            func.count(Instance.id),
        )
        .join(Study, Study.id == Series.study_id)
        .join(StudyRevision, StudyRevision.study_id == Series.study_id)
        .outerjoin(Instance, Instance.series_id == Series.id)
        .where(StudyRevision.state == RevisionState.RECEIVING, SERIES_IS_OPEN, Series.last_received_at <= silent_since)
        .group_by(
            Series.id, Series.series_instance_uid, Series.study_id, Study.study_instance_uid, Series.last_received_at
        )
        .order_by(Series.last_received_at)
    )
    return [OpenSeries(*row) for row in rows]


def facts_of_series(session: Session, series: Sequence[OpenSeries], now: datetime) -> dict[int, SeriesFacts]:
    """Series id -> what is known of it."""
    if not series:
        return {}
    busy = _busy(session, {one.study_id for one in series})
    steps = _named_by_steps(session, [one.series_instance_uid for one in series])
    commitments = _named_by_commitments(session, series)
    headers = _from_headers(session, series)
    return {
        one.series_id: SeriesFacts(
            silent_s=(now - one.last_received_at).total_seconds(),
            sender_done=one.series_id not in busy,
            step=steps.get(one.series_instance_uid),
            commitment=commitments.get(one.series_id),
            header=headers.get(one.series_id),
        )
        for one in series
    }


def receiving_studies(session: Session, silent_since: datetime) -> list[ReceivingStudy]:
    """The studies being received that have received nothing after ``silent_since`` and have no open series."""
    still_open = select(Series.id).where(Series.study_id == Study.id, SERIES_IS_OPEN).exists()
    rows = session.execute(
        select(StudyRevision.id, StudyRevision.number, Study.id, Study.study_instance_uid, Study.last_received_at)
        .join(Study, Study.id == StudyRevision.study_id)
        .where(
            StudyRevision.state == RevisionState.RECEIVING,
            Study.last_received_at <= silent_since,
            not_(still_open),
        )
        .order_by(Study.last_received_at)
    )
    return [ReceivingStudy(*row) for row in rows]


def facts_of_study(session: Session, study: ReceivingStudy, policy: CompletionPolicy, now: datetime) -> StudyFacts:
    """What is known of a study, as far as it matters.

    Nothing else counts while a procedure step is in progress; open associations do once silence could close it.
    """
    silent_s = (now - study.last_received_at).total_seconds()
    statuses = _step_statuses(session, study.study_instance_uid)
    in_progress = sum(status == StepStatus.IN_PROGRESS for status in statuses.values())
    if in_progress:
        return StudyFacts(silent_s, instances=0, open_associations=0, steps_in_progress=in_progress)
    instances = _instances_of_study(session, study.study_id)
    silence_counts = silent_s >= min(policy.study_quiet_s, policy.open_association_quiet_s)
    return StudyFacts(
        silent_s=silent_s,
        instances=instances,
        open_associations=open_associations(session, study.study_id) if silence_counts else 0,
        incomplete_series=_incomplete_series(session, study.study_id),
        step=_named_by(session, statuses),
        commitment=_whole_study_commitment(session, study.study_id, instances),
        announced_instances=session.scalar(
            select(func.max(SeriesEvidence.announced_study_instances))
            .join(Series, Series.id == SeriesEvidence.series_id)
            .where(Series.study_id == study.study_id)
        ),
    )


def open_associations(session: Session, study_id: int) -> int:
    """How many open associations may still bring something of the study.

    Those that have brought some of it, and those of the same peers that have brought nothing yet: a long object in
    flight is on an association of which the index has not seen an instance.
    """
    brought = (
        select(Instance.association_id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id, Instance.association_id.is_not(None))
        .distinct()
        .subquery()
    )
    sender = (
        select(Association.calling_ae_title, Association.peer_address)
        .join(brought, brought.c.association_id == Association.id)
        .distinct()
        .subquery()
    )
    fresh_of_sender = and_(
        Association.instances_received == 0,
        select(sender.c.peer_address)
        .where(
            sender.c.calling_ae_title == Association.calling_ae_title,
            sender.c.peer_address == Association.peer_address,
        )
        .exists(),
    )
    query = select(func.count(Association.id)).where(
        Association.released_at.is_(None),
        or_(Association.id.in_(select(brought.c.association_id)), fresh_of_sender),
    )
    return session.scalar(query) or 0


def _busy(session: Session, study_ids: set[int]) -> set[int]:
    """Series that an open association brought and after which it has brought no other series of the study."""
    rows = session.execute(
        select(Series.study_id, Instance.association_id, Series.id, func.max(Instance.received_at))
        .join(Instance, Instance.series_id == Series.id)
        .join(Association, Association.id == Instance.association_id)
        .where(Series.study_id.in_(study_ids), Association.released_at.is_(None))
        .group_by(Series.study_id, Instance.association_id, Series.id)
    )
    last: dict[tuple[int, int | None], tuple[datetime, set[int]]] = {}
    for study_id, association_id, series_id, received_at in rows:
        key = (study_id, association_id)
        latest, holders = last.get(key, (received_at, set()))
        if received_at > latest:
            last[key] = (received_at, {series_id})
        elif received_at == latest:
            last[key] = (latest, holders | {series_id})
    return {series_id for _, holders in last.values() for series_id in holders}


def _named_by_steps(session: Session, series_instance_uids: Sequence[str]) -> dict[str, Named]:
    """Series Instance UID -> what procedure steps that have ended name of it."""
    rows = session.execute(
        _named_instances()
        .add_columns(PerformedInstance.series_instance_uid)
        .where(
            PerformedInstance.series_instance_uid.in_(series_instance_uids),
            PerformedProcedureStep.status != StepStatus.IN_PROGRESS,
        )
    )
    by_series: dict[str, list[tuple[str, str, str, bool]]] = defaultdict(list)
    for step_uid, status, uid, here, series_uid in rows:
        by_series[series_uid].append((step_uid, status, uid, here is not None))
    return {series_uid: _named(entries) for series_uid, entries in by_series.items()}


def _named_by(session: Session, statuses: Mapping[str, StepStatus]) -> Named | None:
    """What these steps, all of which have ended, name; None where they name nothing."""
    if not statuses:
        return None
    rows = session.execute(_named_instances().where(PerformedProcedureStep.sop_instance_uid.in_(statuses))).all()
    return _named([(step, status, uid, here is not None) for step, status, uid, here in rows]) if rows else None


def _named_instances() -> Select[str, str, str, int | None]:
    """Step UID, its status, SOP Instance UID that it names, and the id of that instance's row if it is here."""
    return (
        select(
            PerformedProcedureStep.sop_instance_uid,
            PerformedProcedureStep.status,
            PerformedInstance.sop_instance_uid,
            Instance.id,
        )
        .join(PerformedProcedureStep, PerformedProcedureStep.id == PerformedInstance.step_id)
        .outerjoin(Instance, Instance.sop_instance_uid == PerformedInstance.sop_instance_uid)
        .order_by(PerformedInstance.id)
    )


def _named(entries: Sequence[tuple[str, str, str, bool]]) -> Named:
    """Step UID, status, SOP Instance UID and whether it is here, summed up."""
    steps = sorted({(uid, status) for uid, status, _, _ in entries})
    source = ", ".join(f"procedure step {uid} ({status.lower()})" for uid, status in steps[:MAXIMUM_UIDS_IN_REASON])
    here = {uid for _, _, uid, is_here in entries if is_here}
    missing = list(dict.fromkeys(uid for _, _, uid, is_here in entries if not is_here))
    return Named(source, len(here) + len(missing), len(missing), tuple(missing[:MAXIMUM_UIDS_IN_REASON]))


def _named_by_commitments(session: Session, series: Sequence[OpenSeries]) -> dict[int, Named]:
    """Series id -> the storage commitment requests that name every instance of it.

    Only requests without missing instances count: a request does not tell which series those belong to.
    """
    rows = session.execute(
        select(Instance.series_id, CommitmentItem.request_id, Instance.id)
        .join(CommitmentItem, CommitmentItem.sop_instance_uid == Instance.sop_instance_uid)
        .join(CommitmentRequest, CommitmentRequest.id == CommitmentItem.request_id)
        .where(Instance.series_id.in_([one.series_id for one in series]), CommitmentRequest.duplicate.is_(False))
    )
    named: dict[int, set[int]] = defaultdict(set)
    requests: dict[int, set[int]] = defaultdict(set)
    for series_id, request_id, instance_id in rows:
        named[series_id].add(instance_id)
        requests[series_id].add(request_id)
    found: dict[int, Named] = {}
    for one in series:
        if one.instances and len(named[one.series_id]) == one.instances:
            transactions, missing = _transactions(session, requests[one.series_id])
            if not missing:
                found[one.series_id] = Named(transactions, one.instances, 0)
    return found


def _transactions(session: Session, request_ids: set[int]) -> tuple[str, list[str]]:
    """The requests in words, and which of the instances they name are not here."""
    uids = session.scalars(
        select(CommitmentRequest.transaction_uid)
        .where(CommitmentRequest.id.in_(request_ids))
        .order_by(CommitmentRequest.id)
        .limit(MAXIMUM_UIDS_IN_REASON)
    )
    missing = session.scalars(
        select(CommitmentItem.sop_instance_uid)
        .outerjoin(Instance, Instance.sop_instance_uid == CommitmentItem.sop_instance_uid)
        .where(CommitmentItem.request_id.in_(request_ids), Instance.id.is_(None))
        .order_by(CommitmentItem.id)
    )
    return "storage commitment request " + ", ".join(uids), list(dict.fromkeys(missing))


def _from_headers(session: Session, series: Sequence[OpenSeries]) -> dict[int, Evidence]:
    """What the headers said, of series that have received nothing since they were read."""
    looks = session.scalars(
        select(SeriesEvidence).where(SeriesEvidence.series_id.in_([one.series_id for one in series]))
    )
    now_at = {one.series_id: one for one in series}
    return {
        look.series_id: Evidence(EvidenceKind(look.kind), look.missing, look.reason, look.open_ended)
        for look in looks
        if look.kind
        and look.examined_through == now_at[look.series_id].last_received_at
        and look.instances == now_at[look.series_id].instances
    }


def _step_statuses(session: Session, study_instance_uid: str) -> dict[str, StepStatus]:
    """SOP Instance UID -> status of the study's procedure steps."""
    rows = session.execute(
        select(PerformedProcedureStep.sop_instance_uid, PerformedProcedureStep.status)
        .join(PerformedStepStudy, PerformedStepStudy.step_id == PerformedProcedureStep.id)
        .where(PerformedStepStudy.study_instance_uid == study_instance_uid)
    )
    return {uid: StepStatus(status) for uid, status in rows}


def _instances_of_study(session: Session, study_id: int) -> int:
    query = select(func.count(Instance.id)).join(Series, Series.id == Instance.series_id)
    return session.scalar(query.where(Series.study_id == study_id)) or 0


def _incomplete_series(session: Session, study_id: int) -> int:
    """Series closed in spite of evidence that something is missing: weak, and not by silence."""
    silence = (EvidenceKind.QUIET, EvidenceKind.ASSOCIATIONS_RELEASED)
    query = select(func.count(Series.id)).where(
        Series.study_id == study_id,
        Series.closed_confidence == Confidence.WEAK,
        Series.closed_evidence.not_in(silence),
    )
    return session.scalar(query) or 0


def _whole_study_commitment(session: Session, study_id: int, instances: int) -> Named | None:
    """One request that names every instance of the study, of several series.

    A request for a study's only series may be the first of several: senders commit series by series, too.
    """
    newest = session.scalar(
        select(Instance.sop_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id)
        .order_by(Instance.id.desc())
        .limit(1)
    )
    request_id = session.scalar(
        select(CommitmentItem.request_id)
        .join(CommitmentRequest, CommitmentRequest.id == CommitmentItem.request_id)
        .where(CommitmentItem.sop_instance_uid == newest, CommitmentRequest.duplicate.is_(False))
        .order_by(CommitmentItem.request_id.desc())
        .limit(1)
    )
    if request_id is None:
        return None
    named, series = session.execute(
        select(func.count(Instance.id), func.count(func.distinct(Instance.series_id)))
        .select_from(CommitmentItem)
        .join(Instance, Instance.sop_instance_uid == CommitmentItem.sop_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .where(CommitmentItem.request_id == request_id, Series.study_id == study_id)
    ).one()
    if named < instances or series < 2:
        return None
    source, missing = _transactions(session, {request_id})
    return Named(source, named + len(missing), len(missing), tuple(missing[:MAXIMUM_UIDS_IN_REASON]))


def silent_since(now: datetime, policy: CompletionPolicy) -> datetime:
    """Nothing that has received something later can be closed, whatever the evidence."""
    return now - timedelta(seconds=min(policy.guard_s, policy.series_quiet_s))
