"""Taking a received instance in: checked, its bytes durable in the object store, its rows committed in the index.

When an instance is ingested it survives a power cut; the receiver may answer success (PS3.4 B.2.3).
"""

from collections.abc import Sequence
from pathlib import Path

from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage, MRImageStorage
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from storage.database import Database
from storage.errors import IndexUnavailable, MismatchedInstance, ObjectStoreUnavailable
from storage.group_commit import GroupCommit
from storage.header import IndexAttributes, read_index_attributes
from storage.indexing import Arrival, Ingested, Reception, index_arrivals, ingested
from storage.models import Instance, ResultObject
from storage.object_store import ObjectStorage
from storage.objects import StoredObject, digest_of
from storage.policies import DuplicatePolicy

__all__ = ["Ingested", "Intake", "Reception", "ingest"]


class Intake:
    """Ingests for all threads of one process; instances that come at the same time share a commit."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStorage,
        duplicates: DuplicatePolicy = DuplicatePolicy.REPLACE_IF_CHANGED,
    ) -> None:
        self._database = database
        self._objects = objects
        self._duplicates = duplicates
        self._commit: GroupCommit[Arrival, Ingested] = GroupCommit(self._index)

    def ingest(self, path: Path, stored: StoredObject, reception: Reception) -> Ingested:
        """Store and index the Part 10 file at ``path``, of which ``stored`` gives digest and size.

        ``path`` is left: delete it afterwards, whatever became of it. Nothing is stored where this raises one of the
        first two; after the others the instance is not acknowledged either, and sending it again is safe at any time.

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
            header = read_index_attributes(path)
            _check_announced(header, reception)
            if self._is_own_result(header):
                return ingested("own-result", header, None, None)
            if not self._is_to_be_kept_out(header, stored):
                self._objects.keep(path, stored.digest)
            return self._commit(Arrival(header, stored, reception))
        except SQLAlchemyError as error:
            raise IndexUnavailable(f"the index cannot be written ({type(error).__name__}); see the log") from error
        except OSError as error:
            raise ObjectStoreUnavailable(f"the received file cannot be read: {error.strerror or error}") from error

    def holds(self, digest: str) -> bool:
        """Whether the object store has the object of this digest. Raises `ObjectStoreUnavailable`."""
        return self._objects.contains(digest)

    def _is_to_be_kept_out(self, header: IndexAttributes, stored: StoredObject) -> bool:
        """Whether the site keeps the first version, and this is another: its bytes are not stored at all."""
        if self._duplicates is not DuplicatePolicy.KEEP_FIRST:
            return False
        with self._database.read() as session:
            query = select(Instance.object_digest).where(Instance.sop_instance_uid == header.sop_instance_uid)
            return session.scalar(query) not in (None, stored.digest)

    def _index(self, arrivals: Sequence[Arrival]) -> list[Ingested]:
        with self._database.transaction() as connection:
            return index_arrivals(connection, arrivals, self._duplicates)

    def _is_own_result(self, header: IndexAttributes) -> bool:
        """Whether it is one of the objects we authored. What scanners send by the thousand cannot be."""
        if header.sop_class_uid in _ACQUIRED:
            return False
        with self._database.read() as session:
            query = select(ResultObject.id).where(ResultObject.sop_instance_uid == header.sop_instance_uid)
            return session.scalar(query) is not None


_ACQUIRED = frozenset((MRImageStorage, EnhancedMRImageStorage, CTImageStorage, EnhancedCTImageStorage))
"""SOP classes that no result of ours has."""


def ingest(database: Database, objects: ObjectStorage, path: Path, reception: Reception) -> Ingested:
    """Ingest one file by itself, see `Intake.ingest`; ``path`` is consumed unless this raises."""
    try:
        stored = digest_of(path)
    except OSError as error:
        raise ObjectStoreUnavailable(f"the received file cannot be read: {error.strerror or error}") from error
    outcome = Intake(database, objects).ingest(path, stored, reception)
    path.unlink()
    return outcome


def _check_announced(header: IndexAttributes, reception: Reception) -> None:
    for name, announced, found in (
        ("SOP Class UID", reception.expected_sop_class_uid, header.sop_class_uid),
        ("SOP Instance UID", reception.expected_sop_instance_uid, header.sop_instance_uid),
    ):
        if announced is not None and announced != found:
            raise MismatchedInstance(f"the request announced {name} {announced}, the data set has {found}")
