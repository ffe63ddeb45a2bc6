"""What every step works with: settings, index, objects, and the study it is about, read once per process."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from pydicom import Dataset
from sqlalchemy.exc import SQLAlchemyError

from ai.volumes.assemble import assemble
from ai.volumes.decoding import DecoderLimits, FrameDecoder
from ai.volumes.load import DicomFileSource
from ai.volumes.types import Assembly, PixelSource
from node.calibration import calibration_of
from node.live_settings import ConfigurationChange, LiveSettings
from node.objects import open_objects
from node.results.identity import ResultIdentity
from node.routing.rules import rules_version
from node.settings import Settings
from node.workflow.version import PIPELINE_VERSION
from storage.database import Database
from storage.describe import describe_study
from storage.header import dataset_from_json
from storage.journal import record
from storage.object_store import ObjectStorage
from storage.revisions import StoredInstance, find_revision, stored_instances

log = structlog.get_logger()


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
    study_instance_uid: str,
    headers: Mapping[str, Dataset],
    paths: Mapping[str, Path],
    revision: int,
    at: datetime,
    decoder: FrameDecoder | None = None,
) -> LoadedStudy:
    """Put a study together from its headers and the files its pixels are in.

    Args:
        study_instance_uid: the study; all headers belong to it.
        headers: SOP Instance UID -> header.
        paths: SOP Instance UID -> Part 10 file.
        revision: study revision, part of the results' identity.
        at: the results' creation time (UTC); a repeat of the same revision states the same time.
        decoder: decodes compressed frames; by default with the default limits.
    """
    return LoadedStudy(
        study_instance_uid=study_instance_uid,
        headers=headers,
        assembly=assemble(headers.values()),
        source=DicomFileSource(paths, decoder),
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


class ObjectPaths(Mapping[str, Path]):
    """SOP Instance UID -> local file, asked of the object store at each look: a shared store copies it here then."""

    def __init__(self, objects: ObjectStorage, digests: Mapping[str, str]) -> None:
        self._objects = objects
        self._digests = digests

    def __getitem__(self, sop_instance_uid: str) -> Path:
        return self._objects.path(self._digests[sop_instance_uid])

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)


class NodeContext:
    """Settings, index and object store of a running node, and the studies its steps are working on.

    Steps of one study follow each other in one process, so the last few studies are kept: after a restart they are
    simply read again.
    """

    STUDIES_KEPT = 2

    def __init__(self, settings: Settings | LiveSettings) -> None:
        self._live = settings if isinstance(settings, LiveSettings) else LiveSettings(settings)
        settings = self._live.current
        self.database = Database(settings.database_url)
        self.objects = open_objects(settings)
        self.calibration = calibration_of(settings)
        self.decoder = FrameDecoder(DecoderLimits(settings.decoding.memory_bytes, settings.decoding.deadline_s))
        self._studies: OrderedDict[tuple[str, int], LoadedStudy] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def settings(self) -> Settings:
        """The settings as they are now: take them once for a decision that must not change half way."""
        return self._live.current

    def journal_configuration_changes(self) -> None:
        """From now on, write into the journal when the configuration file changes, and when a change is refused."""
        self._live.on_change = self._journal_change

    def _journal_change(self, change: ConfigurationChange) -> None:
        try:
            with self.database.session() as session:
                record(
                    session,
                    "configuration-refused" if change.refused else "configuration-reloaded",
                    change.message,
                    file_sha256=change.file_sha256,
                    rules_version=rules_version(self._live.last_good),
                    needs_restart=list(change.needs_restart),
                )
        except SQLAlchemyError as error:  # whoever asked for the settings has nothing to do with it
            log.error("configuration.not-journaled", reason=type(error).__name__)

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
        describe_study(self.database, self.objects, study_instance_uid)
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
        paths = ObjectPaths(self.objects, {i.sop_instance_uid: i.object_digest for i in instances})
        return load_study(study_instance_uid, headers, paths, number, at, self.decoder)
