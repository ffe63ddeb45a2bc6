"""What every step works with: settings, index, objects, and the study it is about, read once per process."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import Dataset

from ai.volumes.assemble import assemble
from ai.volumes.load import DicomFileSource
from ai.volumes.types import Assembly, PixelSource
from node.results.identity import ResultIdentity
from node.settings import Settings
from node.workflow.version import PIPELINE_VERSION
from storage.database import Database
from storage.header import dataset_from_json
from storage.objects import ObjectStore
from storage.revisions import StoredInstance, find_revision, stored_instances


@dataclass(frozen=True)
class LoadedStudy:
    """A study as the pipeline sees it: headers without pixels, the assembly, and where pixels come from."""

    study_instance_uid: str
    headers: Mapping[str, Dataset]
    """SOP Instance UID -> header without pixel data."""
    assembly: Assembly
    source: PixelSource
    identity: ResultIdentity


def load_study(
    study_instance_uid: str, headers: Mapping[str, Dataset], paths: Mapping[str, Path], revision: int, at: datetime
) -> LoadedStudy:
    """Put a study together from its headers and the files its pixels are in.

    Args:
        study_instance_uid: the study; all headers belong to it.
        headers: SOP Instance UID -> header.
        paths: SOP Instance UID -> Part 10 file.
        revision: study revision, part of the results' identity.
        at: the results' creation time (UTC); a repeat of the same revision states the same time.
    """
    return LoadedStudy(
        study_instance_uid=study_instance_uid,
        headers=headers,
        assembly=assemble(headers.values()),
        source=DicomFileSource(paths),
        identity=ResultIdentity(study_instance_uid, revision, PIPELINE_VERSION, at),
    )


def identified(
    header: Dataset, study_instance_uid: str, series_instance_uid: str, sop_class_uid: str, sop_instance_uid: str
) -> Dataset:
    """Give the header the identity under which it was indexed.

    A sender may encode a UID with a wrong value representation; the index understood it, later readers would not, and
    one such instance must not cost its study the results.
    """
    header.add_new("StudyInstanceUID", "UI", study_instance_uid)
    header.add_new("SeriesInstanceUID", "UI", series_instance_uid)
    header.add_new("SOPClassUID", "UI", sop_class_uid)
    header.add_new("SOPInstanceUID", "UI", sop_instance_uid)
    return header


class NodeContext:
    """Settings, index and object store of a running node, and the studies its steps are working on.

    Steps of one study follow each other in one process, so the last few studies are kept: after a restart they are
    simply read again.
    """

    STUDIES_KEPT = 2

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.objects = ObjectStore(settings.data_dir / "objects")
        self._studies: OrderedDict[tuple[str, int], LoadedStudy] = OrderedDict()
        self._lock = threading.Lock()

    def study(self, study_instance_uid: str, revision: int) -> LoadedStudy:
        """The study as that revision contains it. Raises UnknownStudy."""
        key = (study_instance_uid, revision)
        with self._lock:
            if key not in self._studies:
                self._studies[key] = self._read(study_instance_uid, revision)
                while len(self._studies) > self.STUDIES_KEPT:
                    self._studies.popitem(last=False)
            self._studies.move_to_end(key)
            return self._studies[key]

    def _read(self, study_instance_uid: str, number: int) -> LoadedStudy:
        with self.database.read() as session:
            revision = find_revision(session, study_instance_uid, number)
            instances = stored_instances(session, revision)
            closed_at = revision.closed_at or revision.opened_at
        return self.load(study_instance_uid, instances, number, closed_at)

    def load(
        self, study_instance_uid: str, instances: Sequence[StoredInstance], number: int, at: datetime
    ) -> LoadedStudy:
        """A study, or what there is of it so far, from these instances."""
        headers = {
            i.sop_instance_uid: identified(
                dataset_from_json(i.header),
                study_instance_uid,
                i.series_instance_uid,
                i.sop_class_uid,
                i.sop_instance_uid,
            )
            for i in instances
        }
        paths = {i.sop_instance_uid: self.objects.path(i.object_digest) for i in instances}
        return load_study(study_instance_uid, headers, paths, number, at)
