"""Step report: author the DICOM result objects and hand them to delivery."""

from dataclasses import dataclass

from pydicom import Dataset

from ai.detection.types import DetectionResult, DetectionState
from ai.quality.types import StudyAssessment
from node.results.lesion_report import lesion_report
from node.results.quality_report import quality_report
from node.results.segmentation import lesion_segmentation
from node.results.source import SourceStudy, is_image
from node.results.write import to_bytes
from node.routing.route import journal_decision, route_results
from node.settings import ObjectKind
from node.workflow.context import LoadedStudy, NodeContext
from node.workflow.detect import stored_detection
from node.workflow.gate import stored_assessment
from storage.deliveries import NewResult, Recipient, save_results
from storage.journal import record
from storage.models import utc_now
from storage.revisions import find_revision, finish

AUTHORED_KINDS = (ObjectKind.QUALITY_REPORT, ObjectKind.SEGMENTATION, ObjectKind.LESION_REPORT)
"""The kinds this version makes."""


@dataclass(frozen=True)
class AuthoredObject:
    """A DICOM object we made, and which kind it is."""

    kind: ObjectKind
    dataset: Dataset


def author_objects(study: LoadedStudy, assessment: StudyAssessment, detection: DetectionResult) -> list[AuthoredObject]:
    """The result objects of a study: always a quality report; a lesion report only where the detector succeeded.

    With the gate shut there is no lesion report at all, so that its absence cannot read as "clear".
    """
    if not any(is_image(header) for header in study.headers.values()):
        return []
    source = SourceStudy(study.headers)
    objects = [AuthoredObject(ObjectKind.QUALITY_REPORT, quality_report(source, assessment, detection, study.identity))]
    if detection.state is DetectionState.SUCCEEDED:
        segmentation = lesion_segmentation(source, detection, study.identity)
        if segmentation is not None:
            objects.append(AuthoredObject(ObjectKind.SEGMENTATION, segmentation))
        report = lesion_report(source, detection, segmentation, study.identity)
        objects.append(AuthoredObject(ObjectKind.LESION_REPORT, report))
    return objects


def report_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Write the result objects, their rows and pending deliveries, and finish the revision."""
    study = context.study(study_instance_uid, number)
    with context.database.read() as session:
        revision = find_revision(session, study_instance_uid, number)
        assessment = stored_assessment(revision)
        detection = stored_detection(context, study, revision)
    authored = author_objects(study, assessment, detection)
    settings = context.settings
    with context.database.read() as session:
        revision = find_revision(session, study_instance_uid, number)
        recipients, decision = route_results(session, settings, revision, [item.kind for item in authored])
    results = [_store(context, item, recipients[item.kind]) for item in authored]
    with context.database.session() as session:
        revision = find_revision(session, study_instance_uid, number)
        save_results(session, revision, results, utc_now())
        finish(revision, utc_now())
        record(
            session,
            "reported",
            ", ".join(item.kind for item in authored) or "no images, no results",
            study_instance_uid,
            revision=number,
            objects={result.kind: result.sop_instance_uid for result in results},
        )
        journal_decision(session, settings, study_instance_uid, number, decision)


def _store(context: NodeContext, item: AuthoredObject, recipients: tuple[Recipient, ...]) -> NewResult:
    stored = context.objects.put(to_bytes(item.dataset))
    return NewResult(
        kind=item.kind,
        sop_instance_uid=item.dataset.SOPInstanceUID,
        sop_class_uid=item.dataset.SOPClassUID,
        series_instance_uid=item.dataset.SeriesInstanceUID,
        object_digest=stored.digest,
        size_bytes=stored.size_bytes,
        recipients=recipients,
    )
