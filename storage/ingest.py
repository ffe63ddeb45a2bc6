"""Taking a received instance in: checked, its bytes durable in the object store, its rows committed in the index.

When `ingest` returns, the instance survives a power cut; the receiver may answer success (PS3.4 B.2.3). Concurrent
receivers of one study do not collide: shared rows are made with ON CONFLICT and locked in one order (study, series,
instance, revision), so that PostgreSQL lets them wait instead of fail.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Row, Update, case, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import IndexUnavailable, MismatchedInstance, ObjectStoreUnavailable
from storage.header import InstanceHeader, read_header
from storage.journal import record
from storage.models import (
    Association,
    Instance,
    JournalEntry,
    Patient,
    ResultObject,
    RevisionState,
    Series,
    Study,
    StudyRevision,
)
from storage.object_store import ObjectStorage
from storage.objects import StoredObject
from storage.upsert import get_or_create, insert_if_absent

Outcome = Literal["stored", "duplicate", "replaced", "own-result"]

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
    bytes under a known SOP Instance UID: the index now points to the new ones, the object store keeps both) or
    ``own-result`` (one of the objects we authored came back: stored nowhere, changes nothing).
    """

    outcome: Outcome
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    digest: str | None
    """None for ``own-result``."""
    revision_number: int | None
    """The study revision that the instance now belongs to; None for ``own-result``."""
    faults: list[str]


def ingest(database: Database, objects: ObjectStorage, path: Path, reception: Reception) -> Ingested:
    """Store and index the Part 10 file at ``path``, which is consumed: it is gone afterwards.

    Nothing is stored and ``path`` is untouched where this raises one of the first two; after the others the instance
    is not acknowledged either, and sending it again is safe at any time.

    Raises
    ------
    UnreadableInstance
        The bytes are no instance that can be indexed.
    MismatchedInstance
        It is not the instance that the request announced.
    ObjectStoreUnavailable, IndexUnavailable
        The volume or the database refused.
    """
    try:
        header = read_header(path)
        _check_announced(header, reception)
        if _is_own_result(database, header.sop_instance_uid):
            path.unlink()
            return _ingested("own-result", header, None, None)
        stored = objects.adopt(path)
        with database.session() as session:
            return _index(session, header, stored, reception)
    except SQLAlchemyError as error:
        raise IndexUnavailable(f"the index cannot be written ({type(error).__name__}); see the log") from error
    except OSError as error:
        raise ObjectStoreUnavailable(f"the received file cannot be read: {error.strerror or error}") from error


def _check_announced(header: InstanceHeader, reception: Reception) -> None:
    for name, announced, found in (
        ("SOP Class UID", reception.expected_sop_class_uid, header.sop_class_uid),
        ("SOP Instance UID", reception.expected_sop_instance_uid, header.sop_instance_uid),
    ):
        if announced is not None and announced != found:
            raise MismatchedInstance(f"the request announced {name} {announced}, the data set has {found}")


def _is_own_result(database: Database, sop_instance_uid: str) -> bool:
    with database.read() as session:
        query = select(ResultObject.id).where(ResultObject.sop_instance_uid == sop_instance_uid)
        return session.scalar(query) is not None


def _ingested(
    outcome: Outcome, header: InstanceHeader, stored: StoredObject | None, revision_number: int | None
) -> Ingested:
    return Ingested(
        outcome=outcome,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        digest=stored.digest if stored else None,
        revision_number=revision_number,
        faults=header.faults,
    )


def _index(session: Session, header: InstanceHeader, stored: StoredObject, reception: Reception) -> Ingested:
    if reception.association_id is not None:
        _count_for_association(session, reception.association_id)
    known = _known_instance(session, header.sop_instance_uid)
    if known is not None and known.object_digest == stored.digest:
        return _ingested("duplicate", header, stored, known.revision_number)
    study_id = _study(session, header, reception)
    series_id = _series(session, study_id, header, reception)
    # Asked again: on PostgreSQL another receiver may have committed it while we waited for the study's row.
    known = _known_instance(session, header.sop_instance_uid)
    if known is not None and known.object_digest == stored.digest:
        return _ingested("duplicate", header, stored, known.revision_number)
    why = f"instance {header.sop_instance_uid} arrived"
    revision = _receiving_revision(session, study_id, header.study_instance_uid, why, reception)
    values = _instance_values(series_id, revision, header, stored, reception)
    if insert_if_absent(session, Instance, {"sop_instance_uid": header.sop_instance_uid}, values):
        return _ingested("stored", header, stored, revision)
    _replace(session, header, values, reception)
    return _ingested("replaced", header, stored, revision)


def _count_for_association(session: Session, association_id: int) -> None:
    more = {"instances_received": Association.instances_received + 1}
    _update(session, update(Association).where(Association.id == association_id).values(more))


def _known_instance(session: Session, sop_instance_uid: str) -> Row[int, str, int] | None:
    query = select(Instance.id, Instance.object_digest, Instance.revision_number)
    return session.execute(query.where(Instance.sop_instance_uid == sop_instance_uid)).one_or_none()


def _study(session: Session, header: InstanceHeader, reception: Reception) -> int:
    """The id of the study's row, made where missing, locked until the end of the transaction."""
    query = select(Study.id, *(getattr(Patient, name) for name in _PATIENT_IDENTITY)).join(Patient)
    known = session.execute(query.where(Study.study_instance_uid == header.study_instance_uid)).one_or_none()
    if known is not None:
        study_id = known.id
        if tuple(known)[1:] != tuple(header.patient[name] for name in _PATIENT_IDENTITY):
            _note_other_patient(session, header)
    else:
        study_id = _new_study(session, header, reception)
    _touch(session, Study, study_id, reception.received_at)
    return study_id


def _new_study(session: Session, header: InstanceHeader, reception: Reception) -> int:
    identity = {name: header.patient[name] for name in _PATIENT_IDENTITY}
    patient_id = get_or_create(session, Patient, identity, {"patient_sex": header.patient["patient_sex"]})
    at = reception.received_at
    values = {"patient_id": patient_id, "first_received_at": at, "last_received_at": at, **header.study}
    return get_or_create(session, Study, {"study_instance_uid": header.study_instance_uid}, values)


def _series(session: Session, study_id: int, header: InstanceHeader, reception: Reception) -> int:
    key = {"study_id": study_id, "series_instance_uid": header.series_instance_uid}
    values = {"series_number": header.series_number, "last_received_at": reception.received_at, **header.series}
    series_id = get_or_create(session, Series, key, values)
    _touch(session, Series, series_id, reception.received_at)
    return series_id


def _touch(session: Session, model: type[Study] | type[Series], row_id: int, at: datetime) -> None:
    """Move ``last_received_at`` forward, never back, and lock the row on PostgreSQL."""
    latest = case((model.last_received_at < at, at), else_=model.last_received_at)
    _update(session, update(model).where(model.id == row_id).values(last_received_at=latest))


def _receiving_revision(session: Session, study_id: int, study_uid: str, why: str, reception: Reception) -> int:
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


def _instance_values(
    series_id: int, revision_number: int, header: InstanceHeader, stored: StoredObject, reception: Reception
) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "association_id": reception.association_id,
        "sop_class_uid": header.sop_class_uid,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "revision_number": revision_number,
        "instance_number": header.instance_number,
        "number_of_frames": header.number_of_frames,
        "object_digest": stored.digest,
        "size_bytes": stored.size_bytes,
        "received_at": reception.received_at,
        "source_ae_title": reception.calling_ae_title,
        "header": header.json,
        "header_faults": header.faults,
    }


def _replace(session: Session, header: InstanceHeader, values: dict[str, Any], reception: Reception) -> None:
    """Point the instance's row at its new bytes and say so in the journal of the study, or both studies."""
    uid = header.sop_instance_uid
    old = session.execute(
        select(Instance.id, Instance.object_digest, Series.study_id, Study.study_instance_uid)
        .join(Series, Instance.series_id == Series.id)
        .join(Study, Series.study_id == Study.id)
        .where(Instance.sop_instance_uid == uid)
        .with_for_update(of=Instance)
    ).one()
    _update(session, update(Instance).where(Instance.id == old.id).values(values))
    detail = {"sop_instance_uid": uid, "old_digest": old.object_digest, "new_digest": values["object_digest"]}
    message = f"instance {uid} arrived again with other bytes; both versions are kept, the index points to the new one"
    record(session, "instance-replaced", message, header.study_instance_uid, **detail)
    if old.study_instance_uid != header.study_instance_uid:
        moved = f"instance {uid} arrived again as part of study {header.study_instance_uid}"
        record(session, "instance-moved", moved, old.study_instance_uid, **detail)
        _receiving_revision(session, old.study_id, old.study_instance_uid, moved, reception)


def _note_other_patient(session: Session, header: InstanceHeader) -> None:
    """The study keeps its first patient; the contradiction is a fault of the instance and, once, in the journal."""
    message = "an instance names another patient than the study's first one; the study stays with the first"
    header.faults.append(message)
    query = select(JournalEntry.id).where(
        JournalEntry.study_instance_uid == header.study_instance_uid, JournalEntry.event == _OTHER_PATIENT
    )
    if session.scalar(query.limit(1)) is None:
        uid = header.sop_instance_uid
        record(session, _OTHER_PATIENT, message, header.study_instance_uid, sop_instance_uid=uid)


def _update(session: Session, statement: Update) -> None:
    session.execute(statement, execution_options={"synchronize_session": False})
