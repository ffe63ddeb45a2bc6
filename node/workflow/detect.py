"""Step detect: lesion candidates, where the gate is open."""

from dataclasses import replace
from typing import Any

from ai.detection.baseline import ALGORITHM, detect
from ai.detection.document import load, save, to_document
from ai.detection.types import DetectionResult, DetectionState
from ai.quality.gate import choose_by_quality
from ai.quality.types import StudyAssessment
from node.results.segmentation import segment_numbers, tracking_uids
from node.workflow.context import LoadedStudy, NodeContext
from node.workflow.gate import stored_assessment
from storage.journal import record
from storage.models import StudyRevision
from storage.revisions import UnknownStudy, find_revision, save_detection


def detect_if_open(study: LoadedStudy, assessment: StudyAssessment, *, ignore_gate: bool = False) -> DetectionResult:
    """Run the detector on the images the gate judged, or say why not. ``ignore_gate`` is for research."""
    gate = assessment.gate
    if not gate.open and not ignore_gate:
        return DetectionResult(state=DetectionState.NOT_ATTEMPTED, reason="; ".join(gate.reasons), algorithm=ALGORITHM)
    detection = detect(choose_by_quality(study.assembly, assessment), study.source)
    if gate.open:
        return detection
    overridden = f"The quality gate was overridden; it was shut: {'; '.join(gate.reasons)}."
    return replace(detection, reason=f"{overridden} {detection.reason}")


def detection_document(study: LoadedStudy, detection: DetectionResult) -> dict[str, Any]:
    """The ``detection`` part of the JSON contract, with the tracking UIDs that SR and SEG carry."""
    return to_document(detection, tracking_uids(detection, study.identity), segment_numbers(detection))


def detect_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Write the detector's state, its candidates, and its outcome as an object."""
    study = context.study(study_instance_uid, number)
    with context.database.read() as session:
        assessment = stored_assessment(find_revision(session, study_instance_uid, number))
    detection = detect_if_open(study, assessment)
    document = detection_document(study, detection)
    stored = context.objects.put(save(detection))
    with context.database.session() as session:
        save_detection(
            session,
            find_revision(session, study_instance_uid, number),
            state=detection.state,
            reason=detection.reason,
            digest=stored.digest,
            candidates=document["candidates"],
        )
        above = sum(candidate.above_operating_point for candidate in detection.candidates)
        record(
            session,
            "detected",
            f"{detection.state}: {len(detection.candidates)} candidates, {above} above the operating point",
            study_instance_uid,
            revision=number,
            reason=detection.reason,
        )


def stored_detection(context: NodeContext, study: LoadedStudy, revision: StudyRevision) -> DetectionResult:
    """What an earlier detect step found. Raises UnknownStudy where there is no verdict, thus no detection, yet."""
    if revision.verdict is None:
        raise UnknownStudy(f"revision {revision.number} has no verdict yet")
    return load(context.objects.read(revision.verdict.detection_digest), study.assembly)
