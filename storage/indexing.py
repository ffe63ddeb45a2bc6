"""Index rows of received instances, many in one transaction: the study's, the series', the instance's own.

Concurrent receivers of one study do not collide: shared rows are made with ON CONFLICT and locked in one order (studies
by UID, then series, instance, revision), so that PostgreSQL lets them wait instead of fail.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, case, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.header import IndexAttributes, InstanceHeader
from storage.journal import record
from storage.models import (
    Instance,
    JournalEntry,
    Patient,
    RevisionState,
    Series,
    Study,
    StudyRevision,
)
from storage.objects import StoredObject
from storage.policies import DuplicatePolicy
from storage.prepared import Prepared
from storage.upsert import get_or_create

Outcome = Literal["stored", "duplicate", "replaced", "kept-first", "own-result"]

_PATIENT_IDENTITY = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date")
_OTHER_PATIENT = "patient-differs"


@dataclass(frozen=True)
class Reception:
    """How an instance came to us.

    ``expected_*`` are the UIDs that the C-STORE request announced, None where nothing announced any.
    """

    calling_ae_title: str
    peer_address: str
    received_at: datetime
    association_id: int | None = None
    expected_sop_class_uid: str | None = None
    expected_sop_instance_uid: str | None = None


@dataclass(frozen=True)
class Ingested:
    """What became of a received instance.

    ``outcome``: ``stored`` (new), ``duplicate`` (the same bytes were there: nothing changed), ``replaced`` (other
    bytes under a known SOP Instance UID: the index now points to the new ones, the object store keeps both),
    ``kept-first`` (other bytes under a known UID, and the site keeps the first) or ``own-result`` (one of the objects
    we authored came back: stored nowhere, changes nothing).
    """

    outcome: Outcome
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    digest: str | None
    """None for ``own-result`` and ``kept-first``: these bytes are not kept."""
    revision_number: int | None
    """The study revision that the instance now belongs to; None for ``own-result``."""
    faults: list[str]


@dataclass(frozen=True)
class Arrival:
    """An instance whose bytes are durable and whose row is to be written."""

    header: IndexAttributes
    stored: StoredObject
    reception: Reception


def ingested(
    outcome: Outcome, header: IndexAttributes, stored: StoredObject | None, revision_number: int | None
) -> Ingested:
    """The outcome of one arrival."""
    return Ingested(
        outcome=outcome,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        digest=stored.digest if stored else None,
        revision_number=revision_number,
        faults=header.faults,
    )


def index_arrivals(connection: Connection, arrivals: Sequence[Arrival], policy: DuplicatePolicy) -> list[Ingested]:
    """Write the rows of ``arrivals`` in the caller's transaction; their outcomes in the same order."""
    outcomes: dict[int, Ingested] = {}
    by_study: dict[str, list[int]] = defaultdict(list)
    for number, arrival in enumerate(arrivals):
        by_study[arrival.header.study_instance_uid].append(number)
    for study_instance_uid in sorted(by_study):
        for wave in _waves(by_study[study_instance_uid], arrivals):
            results = _StudyIndexer(connection, policy, study_instance_uid).index([arrivals[n] for n in wave])
            outcomes.update(zip(wave, results, strict=True))
    return [outcomes[number] for number in range(len(arrivals))]


def _waves(numbers: Iterable[int], arrivals: Sequence[Arrival]) -> list[list[int]]:
    """Split so that no wave has one SOP Instance UID twice: the second is judged when the first is in the index."""
    waves: list[list[int]] = []
    seen: dict[str, int] = defaultdict(int)
    for number in numbers:
        uid = arrivals[number].header.sop_instance_uid
        if seen[uid] == len(waves):
            waves.append([])
        waves[seen[uid]].append(number)
        seen[uid] += 1
    return waves


def _touch_statement(model: type[Study] | type[Series]) -> Prepared:
    at = bindparam("at", type_=model.last_received_at.type)
    latest = case((model.last_received_at < at, at), else_=model.last_received_at)
    return Prepared(update(model).where(model.id == bindparam("row_id")).values(last_received_at=latest))


_find_instance = Prepared(
    select(Instance.object_digest, Instance.revision_number).where(Instance.sop_instance_uid == bindparam("uid"))
)
_find_study = Prepared(
    select(Study.id, *(getattr(Patient, name) for name in _PATIENT_IDENTITY))
    .join(Patient)
    .where(Study.study_instance_uid == bindparam("uid"))
)
_find_series = Prepared(
    select(Series.id).where(Series.study_id == bindparam("study_id"), Series.series_instance_uid == bindparam("uid"))
)
_find_receiving = Prepared(
    select(StudyRevision.number)
    .where(StudyRevision.study_id == bindparam("study_id"), StudyRevision.state == RevisionState.RECEIVING)
    .with_for_update()
)
_touch_study, _touch_series = _touch_statement(Study), _touch_statement(Series)
_insert_instance = {
    name: Prepared(
        dialect.insert(Instance)
        .values({key: bindparam(key) for key in Instance.__table__.columns.keys() if key != "id"})  # noqa: SIM118
        .on_conflict_do_nothing(index_elements=["sop_instance_uid"])
        .returning(Instance.id)
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}


class _StudyIndexer:
    """Writes arrivals of one study, each under its own UID.

    What happens per instance is a prepared statement; what happens per study, series or surprise goes through a
    session over the same connection.
    """

    def __init__(self, connection: Connection, policy: DuplicatePolicy, study_instance_uid: str) -> None:
        self._connection = connection
        self._policy = policy
        self._study_instance_uid = study_instance_uid

    def index(self, arrivals: Sequence[Arrival]) -> list[Ingested]:
        outcomes = self._settled_by_what_is_known(arrivals)
        fresh = [a for a in arrivals if a.header.sop_instance_uid not in outcomes]
        if fresh:
            study_id = self._study(fresh)
            series_ids = self._series(study_id, fresh)
            if self._connection.dialect.name == "postgresql":
                # Asked again: another receiver may have committed it while we waited for the study's row.
                outcomes |= self._settled_by_what_is_known(fresh)
                fresh = [a for a in fresh if a.header.sop_instance_uid not in outcomes]
            if fresh:
                outcomes |= self._write(study_id, series_ids, fresh)
        return [outcomes[a.header.sop_instance_uid] for a in arrivals]

    def _settled_by_what_is_known(self, arrivals: Sequence[Arrival]) -> dict[str, Ingested]:
        """Those that change nothing: the same bytes are there, or the site keeps the first version."""
        outcomes: dict[str, Ingested] = {}
        if self._policy is DuplicatePolicy.REPLACE_ALWAYS:
            return outcomes
        for arrival in arrivals:
            uid = arrival.header.sop_instance_uid
            for digest, revision in _find_instance(self._connection, uid=uid):
                if digest == arrival.stored.digest:
                    outcomes[uid] = ingested("duplicate", arrival.header, arrival.stored, revision)
                elif self._policy is DuplicatePolicy.KEEP_FIRST:
                    outcomes[uid] = ingested("kept-first", arrival.header, None, revision)
                    self._note_kept_first(arrival, digest)
        return outcomes

    def _note_kept_first(self, arrival: Arrival, digest: str) -> None:
        uid = arrival.header.sop_instance_uid
        message = f"instance {uid} arrived again with other bytes; the first version is kept"
        detail = {"sop_instance_uid": uid, "kept_digest": digest, "refused_digest": arrival.stored.digest}
        with self._session() as session:
            record(session, "instance-kept", message, self._study_instance_uid, **detail)

    def _study(self, arrivals: Sequence[Arrival]) -> int:
        """The id of the study's row, made where missing, locked until the end of the transaction."""
        known = _find_study(self._connection, uid=self._study_instance_uid)
        study_id, *identity = known[0] if known else self._new_study(arrivals[0])
        for arrival in arrivals:
            if tuple(identity) != _identity(arrival.header):
                self._note_other_patient(arrival.header)
        _touch_study(self._connection, row_id=study_id, at=_latest(arrivals))
        return int(study_id)

    def _new_study(self, arrival: Arrival) -> tuple[Any, ...]:
        header, at = arrival.header, arrival.reception.received_at
        identity = dict(zip(_PATIENT_IDENTITY, _identity(header), strict=True))
        key = {"study_instance_uid": self._study_instance_uid}
        with self._session() as session:
            patient_id = get_or_create(session, Patient, identity, {"patient_sex": header.patient["patient_sex"]})
            values = {"patient_id": patient_id, "first_received_at": at, "last_received_at": at, **header.study}
            get_or_create(session, Study, key, values)
        # Asked, not assumed: on PostgreSQL another receiver may have made it, with another patient.
        return _find_study(self._connection, uid=self._study_instance_uid)[0]

    def _series(self, study_id: int, arrivals: Sequence[Arrival]) -> dict[str, int]:
        """Series Instance UID -> row id; made where missing, locked on PostgreSQL."""
        ids: dict[str, int] = {}
        for uid in sorted({a.header.series_instance_uid for a in arrivals}):
            members = [a for a in arrivals if a.header.series_instance_uid == uid]
            known = _find_series(self._connection, study_id=study_id, uid=uid)
            ids[uid] = known[0][0] if known else self._new_series(study_id, members[0])
            _touch_series(self._connection, row_id=ids[uid], at=_latest(members))
        return ids

    def _new_series(self, study_id: int, arrival: Arrival) -> int:
        header = arrival.header
        received = {"series_number": header.series_number, "last_received_at": arrival.reception.received_at}
        key = {"study_id": study_id, "series_instance_uid": header.series_instance_uid}
        with self._session() as session:
            return get_or_create(session, Series, key, {**received, **header.series})

    def _write(self, study_id: int, series_ids: Mapping[str, int], arrivals: Sequence[Arrival]) -> dict[str, Ingested]:
        revision = self._receiving_revision(study_id, arrivals[0])
        insert_instance = _insert_instance[self._connection.dialect.name]
        outcomes: dict[str, Ingested] = {}
        for arrival in arrivals:
            values = _instance_values(series_ids[arrival.header.series_instance_uid], revision, arrival)
            outcome: Outcome = "stored"
            if not insert_instance(self._connection, **values):
                outcome = "replaced"
                with self._session() as session:
                    _replace(session, arrival, values)
            outcomes[arrival.header.sop_instance_uid] = ingested(outcome, arrival.header, arrival.stored, revision)
        return outcomes

    def _receiving_revision(self, study_id: int, first: Arrival) -> int:
        receiving = _find_receiving(self._connection, study_id=study_id)
        if receiving:
            return int(receiving[0][0])
        why = f"instance {first.header.sop_instance_uid} arrived"
        with self._session() as session:
            return receiving_revision(session, study_id, self._study_instance_uid, why, first.reception)

    def _note_other_patient(self, header: IndexAttributes) -> None:
        """The study keeps its first patient; the contradiction is a fault of the instance and, once, in the journal."""
        message = "an instance names another patient than the study's first one; the study stays with the first"
        header.faults.append(message)
        query = select(JournalEntry.id).where(
            JournalEntry.study_instance_uid == self._study_instance_uid, JournalEntry.event == _OTHER_PATIENT
        )
        with self._session() as session:
            if session.scalar(query.limit(1)) is None:
                detail = {"sop_instance_uid": header.sop_instance_uid}
                record(session, _OTHER_PATIENT, message, self._study_instance_uid, **detail)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A session over the connection, flushed at the end; the transaction stays the caller's."""
        with Session(self._connection) as session:
            yield session
            session.commit()  # flushes, and joins the transaction: that commits or rolls back as a whole


def _latest(arrivals: Sequence[Arrival]) -> datetime:
    return max(arrival.reception.received_at for arrival in arrivals)


def receiving_revision(session: Session, study_id: int, study_uid: str, why: str, reception: Reception) -> int:
    """The number of the revision that is being received, opened where the last one is closed. The study is locked."""
    mine = select(StudyRevision.number).where(StudyRevision.study_id == study_id)
    receiving = session.scalar(mine.where(StudyRevision.state == RevisionState.RECEIVING).with_for_update())
    if receiving is not None:
        return receiving
    last = session.execute(
        select(StudyRevision.number, StudyRevision.state)
        .where(StudyRevision.study_id == study_id)
        .order_by(StudyRevision.number.desc())
        .limit(1)
    ).one_or_none()
    number = last.number + 1 if last else 1
    session.add(StudyRevision(study_id=study_id, number=number, opened_at=reception.received_at))
    message = f"{why} after revision {last.number} was {last.state}" if last else "first instance of the study"
    record(session, "revision-opened", message, study_uid, revision=number, sender=reception.calling_ae_title)
    return number


def _identity(header: IndexAttributes) -> tuple[str, ...]:
    return tuple(header.patient[name] for name in _PATIENT_IDENTITY)


def _instance_values(series_id: int, revision_number: int, arrival: Arrival) -> dict[str, Any]:
    header, stored, reception = arrival.header, arrival.stored, arrival.reception
    return {
        "series_id": series_id,
        "association_id": reception.association_id,
        "sop_instance_uid": header.sop_instance_uid,
        "sop_class_uid": header.sop_class_uid,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "revision_number": revision_number,
        "instance_number": header.instance_number,
        "number_of_frames": header.number_of_frames,
        "object_digest": stored.digest,
        "size_bytes": stored.size_bytes,
        "received_at": reception.received_at,
        "source_ae_title": reception.calling_ae_title,
        "header": header.json if isinstance(header, InstanceHeader) else None,
        "header_faults": header.faults,
    }


def _replace(session: Session, arrival: Arrival, values: dict[str, Any]) -> None:
    """Point the instance's row at its new bytes and say so in the journal of the study, or both studies."""
    header, uid = arrival.header, arrival.header.sop_instance_uid
    old = session.execute(
        select(Instance.id, Instance.object_digest, Series.study_id, Study.study_instance_uid)
        .join(Series, Instance.series_id == Series.id)
        .join(Study, Series.study_id == Study.id)
        .where(Instance.sop_instance_uid == uid)
        .with_for_update(of=Instance)
    ).one()
    replacing = update(Instance).where(Instance.id == old.id).values(values)
    session.execute(replacing, execution_options={"synchronize_session": False})
    detail = {"sop_instance_uid": uid, "old_digest": old.object_digest, "new_digest": values["object_digest"]}
    message = f"instance {uid} arrived again with other bytes; both versions are kept, the index points to the new one"
    record(session, "instance-replaced", message, header.study_instance_uid, **detail)
    if old.study_instance_uid != header.study_instance_uid:
        moved = f"instance {uid} arrived again as part of study {header.study_instance_uid}"
        record(session, "instance-moved", moved, old.study_instance_uid, **detail)
        receiving_revision(session, old.study_id, old.study_instance_uid, moved, arrival.reception)
