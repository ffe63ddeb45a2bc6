"""The whole way of a study without a network or an index: DICOM files in, documents and result objects out."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset

from ai.detection.types import DetectionResult
from ai.quality.assess import assess
from ai.quality.calibration import Calibration
from ai.quality.document import to_document
from ai.quality.types import StudyAssessment
from node.files import files_under
from node.results.write import to_bytes
from node.settings import ObjectKind
from node.workflow.context import LoadedStudy, identified, load_study
from node.workflow.detect import detect_if_open, detection_document
from node.workflow.report import AUTHORED_KINDS, author_objects
from storage.errors import UnreadableInstance
from storage.header import dataset_from_json, read_header

Progress = Callable[[str], None]

OFFLINE_REVISION = 0
"""A running node counts from 1: what it reports never has the UIDs of an offline run."""


@dataclass
class Folder:
    """What a set of paths holds: studies, and the files that are no usable DICOM, each with its reason."""

    studies: list[LoadedStudy] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)


def read_folder(paths: Iterable[Path], progress: Progress) -> Folder:
    """Read every DICOM file under ``paths`` and sort it into studies.

    A SOP Instance UID that occurs twice counts once (the first file by path); the other file is listed as refused.
    """
    folder = Folder()
    headers: dict[str, dict[str, Dataset]] = defaultdict(dict)
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files_under(paths):
        try:
            header = read_header(path)
        except UnreadableInstance as error:
            folder.refused[path] = str(error)
            continue
        study, instance = header.study_instance_uid, header.sop_instance_uid
        if instance in files[study]:
            folder.refused[path] = f"same SOP Instance UID as {files[study][instance].name}"
            continue
        headers[study][instance] = identified(
            dataset_from_json(header.json), study, header.series_instance_uid, header.sop_class_uid, instance
        )
        files[study][instance] = path
    for study in headers:
        progress(f"assembling study {study}: {len(headers[study])} instances")
        # The newest file's time stands for "when the study was complete", so that a repeat writes identical objects.
        at = datetime.fromtimestamp(int(max(path.stat().st_mtime for path in files[study].values())), UTC)
        folder.studies.append(load_study(study, headers[study], files[study], OFFLINE_REVISION, at))
    return folder


def assess_study(study: LoadedStudy, progress: Progress, calibration: Calibration | None = None) -> StudyAssessment:
    """Quality only."""
    return assess(study.assembly, study.source, progress, calibration=calibration)


def assess_document(study: LoadedStudy, progress: Progress, calibration: Calibration | None = None) -> dict[str, Any]:
    """The JSON document of ``pacsgate assess``."""
    return to_document(assess_study(study, progress, calibration))


def process_study(
    study: LoadedStudy,
    out: Path,
    progress: Progress,
    *,
    calibration: Calibration | None = None,
    ignore_gate: bool = False,
    with_quality_report: bool = True,
) -> dict[str, Any]:
    """The whole way: assess, gate, detect, report. Writes the objects under ``out`` and returns the JSON document.

    Args:
        study: the study.
        out: existing folder; objects get a subfolder per study.
        progress: called with a sentence per stage.
        calibration: the site's; None: the shipped cut points judge.
        ignore_gate: run the detector whatever the gate says (research).
        with_quality_report: False leaves the quality report out (``pacsgate detect``).
    """
    assessment = assess_study(study, progress, calibration)
    progress("looking for lesions" if assessment.gate.open or ignore_gate else "gate shut: no detection")
    detection = detect_if_open(study, assessment, ignore_gate=ignore_gate)
    objects = list(_write_objects(study, assessment, detection, out, with_quality_report))
    document = to_document(assessment)
    document["detection"] = detection_document(study, detection)
    document["objects"] = objects
    return document


def _write_objects(
    study: LoadedStudy, assessment: StudyAssessment, detection: DetectionResult, out: Path, with_quality_report: bool
) -> Iterator[dict[str, Any]]:
    folder = out / f"study-{out_name(study.identity.uid('folder'))}"
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in AUTHORED_KINDS if with_quality_report or kind is not ObjectKind.QUALITY_REPORT]
    for kind in kinds:
        # What an earlier run left must not stand beside what this one says: a lesion report of a gate that is now shut.
        (folder / f"{kind}.dcm").unlink(missing_ok=True)
    for item in author_objects(study, assessment, detection):
        if item.kind not in kinds:
            continue
        path = folder / f"{item.kind}.dcm"
        path.write_bytes(to_bytes(item.dataset))
        yield {
            "kind": item.kind,
            "path": str(path.relative_to(out)),
            "sop_class_uid": item.dataset.SOPClassUID,
            "sop_instance_uid": item.dataset.SOPInstanceUID,
        }


def out_name(uid: str) -> str:
    """A short folder name of our own making: nothing received ever becomes part of a path."""
    return uid.removeprefix("2.25.")[:12]
