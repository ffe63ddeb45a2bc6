"""Describing received instances: the whole header as DICOM JSON, made after the instance was acknowledged.

The conversion takes ten times as long as all that a receiver must do before it answers. A crash in between costs
nothing: what is not described yet says so in its row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import IntegrityError, ObjectMissing, UnreadableInstance
from storage.header import read_header
from storage.models import Instance, Series, Study
from storage.object_store import ObjectStorage

BATCH_SIZE = 50
"""Instances described in one transaction: some tenths of a second of work."""


@dataclass(frozen=True)
class _Pending:
    row_id: int
    digest: str
    faults: list[str]


@dataclass(frozen=True)
class _Described:
    pending: _Pending
    header: dict[str, Any]
    faults: list[str]


def describe_pending(database: Database, objects: ObjectStorage, limit: int = BATCH_SIZE) -> int:
    """Describe the instances that have waited longest, ``limit`` at most; returns how many.

    Several processes may do this at once, on several hosts: on PostgreSQL each takes what the others have not.

    Raises
    ------
    ObjectStoreUnavailable
        The volume refused: the instances keep waiting.
    """
    return _describe(database, objects, _waiting().limit(limit))


def waiting_since(database: Database) -> tuple[datetime, datetime] | None:
    """When the instances that wait longest and shortest were received; None where none waits."""
    query = select(Instance.received_at).where(Instance.header.is_(None)).limit(1)
    with database.read() as session:
        oldest = session.scalar(query.order_by(Instance.id))
        newest = session.scalar(query.order_by(Instance.id.desc()))
    return None if oldest is None or newest is None else (oldest, newest)


def describe_study(database: Database, objects: ObjectStorage, study_instance_uid: str) -> int:
    """Describe what waits of one study; returns how many. Its steps call this before they read its headers."""
    of_study = _waiting().join(Series).join(Study).where(Study.study_instance_uid == study_instance_uid)
    count = 0
    while done := _describe(database, objects, of_study.limit(BATCH_SIZE), skip_locked=False):
        count += done
    return count


def _waiting() -> Select[int, str, list[str]]:
    query = select(Instance.id, Instance.object_digest, Instance.header_faults)
    return query.where(Instance.header.is_(None)).order_by(Instance.id)


def _describe(
    database: Database, objects: ObjectStorage, query: Select[int, str, list[str]], *, skip_locked: bool = True
) -> int:
    if database.is_sqlite:  # its one writer's lock must not be held while headers are read
        with database.read() as session:
            pending = [_Pending(row[0], row[1], row[2]) for row in session.execute(query)]
        if pending:
            described = _read_all(objects, pending)
            with database.session() as session:
                _save(session, described)
        return len(pending)
    with database.session() as session:
        locked = query.with_for_update(of=Instance, skip_locked=skip_locked)
        pending = [_Pending(row[0], row[1], row[2]) for row in session.execute(locked)]
        _save(session, _read_all(objects, pending))
    return len(pending)


def _read_all(objects: ObjectStorage, pending: Iterable[_Pending]) -> list[_Described]:
    return [_read(objects, item) for item in pending]


def _read(objects: ObjectStorage, pending: _Pending) -> _Described:
    try:
        header = read_header(objects.verified_path(pending.digest))
    except (UnreadableInstance, ObjectMissing, IntegrityError) as error:
        return _Described(pending, {}, [*pending.faults, f"its header cannot be read: {error}"])
    return _Described(pending, header.json, [*pending.faults, *header.faults])


def _save(session: Session, described: Sequence[_Described]) -> None:
    """Write what was read, unless the instance has been replaced or described by somebody else meanwhile."""
    for item in described:
        session.execute(
            update(Instance)
            .where(
                Instance.id == item.pending.row_id,
                Instance.object_digest == item.pending.digest,
                Instance.header.is_(None),
            )
            .values(header=item.header, header_faults=item.faults),
            execution_options={"synchronize_session": False},
        )
