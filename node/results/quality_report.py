"""The quality report: a Comprehensive 3D SR (TID 1500) with one TID 1501 group per assessed series.

The root's Qualitative Evaluations hold the study's verdict, the gate's reasons and the detector's state, so that "gate
shut" (Not Attempted) can never be read as "nothing found".
"""

import math
from collections.abc import Iterator, Sequence

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.coding import Code

from ai.detection.types import DetectionResult, DetectionState
from ai.quality.calibration import SHIPPED
from ai.quality.types import CalibrationStamp, Finding, SeriesAssessment, StudyAssessment, Verdict
from node.results import codes
from node.results.document import CONTAINS, algorithm_identification, append_to_group, comment, evaluation, report
from node.results.identity import ResultIdentity
from node.results.source import SourceError, SourceStudy, may_show_prostate
from node.settings import ObjectKind

ALGORITHM_NAME = "pacsgate image quality assessment"
MAX_WORST_SLICES = 3
"""Slices with the lowest score that a group points to: enough to see the defect, few enough to open."""
MAX_SLICES_PER_FINDING = 5

_SIGNIFICANT_DIGITS = 4
"""More would claim a precision that no image metric has, and no reader shows."""


def quality_report(
    source: SourceStudy,
    assessment: StudyAssessment,
    detection: DetectionResult | None,
    identity: ResultIdentity,
) -> Dataset:
    """Build the quality report of a study.

    Every image series that was looked at has a group, also one that could not be assessed: its group says (Summary of
    Analyses) = (Not Attempted) and why, and has no verdict. ``detection`` is None where no detector ran.

    Raises:
        SourceError: an assessed slice is not in the source study, or the assessment or identity is of another study.
    """
    if assessment.study_instance_uid != source.study_instance_uid:
        raise SourceError(f"assessment of {assessment.study_instance_uid} given for study {source.study_instance_uid}")
    groups = [
        _series_group(source, series, ordinal, identity)
        for ordinal, series in enumerate(assessment.series)
        if source.series(series.series_instance_uid)
    ]
    # Every report has a group (TID 1500 through highdicom); a study whose series none looked at says so in one.
    groups = groups or [_nothing_assessed_group(source, identity)]
    return report(
        source,
        identity,
        ObjectKind.QUALITY_REPORT,
        "AI image quality (research use)",
        groups,
        _study_evaluations(assessment, detection),
        library=[source.series(uid)[0] for uid in source.image_series_uids],
        evidence=[image for uid in source.image_series_uids for image in source.series(uid)],
    )


def _series_group(
    source: SourceStudy, series: SeriesAssessment, ordinal: int, identity: ResultIdentity
) -> sr.MeasurementsAndQualitativeEvaluations:
    assessed = series.verdict is not Verdict.NOT_ASSESSED
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            identifier=f"{ordinal + 1}: {_label(series)}",
            uid=identity.uid("tracking", "series-quality", series.series_instance_uid, ordinal),
        ),
        finding_type=codes.IMAGING_SERIES_QUALITY,
        finding_sites=_finding_sites(source.series(series.series_instance_uid)[0]),
        algorithm_id=_algorithm(identity, series.calibration),
        measurements=_measurements(series),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(name, value) for name, value in _series_evaluations(series, assessed)
        ],
        source_images=_referenced_images(source, series),
    )
    append_to_group(
        group,
        [
            sr.UIDRefContentItem(codes.SERIES_INSTANCE_UID, series.series_instance_uid, relationship_type=CONTAINS),
            *(comment(text) for text in _sentences(series)),
        ],
    )
    return group


def _nothing_assessed_group(source: SourceStudy, identity: ResultIdentity) -> sr.MeasurementsAndQualitativeEvaluations:
    first = source.series(source.image_series_uids[0])[0]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            identifier="no series assessed", uid=identity.uid("tracking", "series-quality", "none")
        ),
        finding_type=codes.IMAGING_SERIES_QUALITY,
        algorithm_id=_algorithm(identity),
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.SUMMARY_OF_ANALYSES, codes.NOT_ATTEMPTED)],
        source_images=[sr.SourceImageForMeasurementGroup(first.SOPClassUID, first.SOPInstanceUID)],
    )


def _algorithm(identity: ResultIdentity, calibration: CalibrationStamp | None = None) -> sr.AlgorithmIdentification:
    """TID 4019, with the site's calibration as a parameter of the algorithm where one gave the verdict."""
    parameters = () if calibration is None else (f"calibration: {calibration}",)
    version = identity.pipeline_version
    return algorithm_identification(ALGORITHM_NAME, version, parameters, codes.ARTIFICIAL_INTELLIGENCE)


def _finding_sites(image: Dataset) -> list[sr.FindingSite]:
    """Prostate, unless the header names another body part or the image is no MR: nobody looked for a gland there."""
    return [sr.FindingSite(anatomic_location=codes.PROSTATE)] if may_show_prostate(image) else []


def _label(series: SeriesAssessment) -> str:
    number = "" if series.series_number is None else f"series {series.series_number}, "
    b_values = series.b_values or (() if series.b_value is None else (series.b_value,))
    diffusion = f", b {'/'.join(f'{b:g}' for b in b_values)} s/mm2" if b_values else ""
    return f"{number}{series.role}{diffusion}"


def _series_evaluations(series: SeriesAssessment, assessed: bool) -> Iterator[tuple[Code, Code]]:
    yield codes.SUMMARY_OF_ANALYSES, codes.SUCCEEDED if assessed else codes.NOT_ATTEMPTED
    if assessed:
        yield codes.QUALITY_ASSESSMENT, codes.VERDICTS[series.verdict]
    if assessed and series.meets_standard is not None:
        yield codes.QUALITY_CONTROL_STANDARD, codes.PIRADS_2_1_REQUIREMENTS
        yield codes.QUALITY_ASSESSMENT, _against_standard(series.verdict, series.meets_standard)
    yield from _finding_evaluations(series.findings)


def _against_standard(verdict: Verdict, meets_standard: bool) -> Code:
    """CID 6044. What is not usable is never called usable, however well its protocol was."""
    if verdict is Verdict.NON_DIAGNOSTIC:
        return codes.UNUSABLE
    return codes.MEETS_STANDARD if meets_standard else codes.DOES_NOT_MEET_STANDARD


def _finding_evaluations(findings: Sequence[Finding]) -> Iterator[tuple[Code, Code]]:
    """Each defect once, however many findings name it; the sentences tell them apart."""
    distinct = dict.fromkeys((finding.code.value, finding.code.scheme, finding.code.meaning) for finding in findings)
    for value, scheme, meaning in distinct:
        yield codes.QUALITY_FINDING, Code(value, scheme, meaning)


def _measurements(series: SeriesAssessment) -> list[sr.Measurement]:
    """The score, the probability of not being diagnostic, the b-value and every metric with a code and a value."""
    leading = (
        (codes.IMAGE_QUALITY_RATING, series.score, "1"),
        (codes.PROBABILITY_NON_DIAGNOSTIC, series.probability_non_diagnostic, "1"),
        (codes.DIFFUSION_B_VALUE, series.b_value, "s/mm2"),
    )
    values = [(code, value, unit) for code, value, unit in leading if value is not None]
    for metric in series.metrics:
        code = codes.METRICS.get(metric.name)
        if code is not None and metric.value is not None:
            values.append((code, metric.value, metric.unit))
    return [
        sr.Measurement(name=name, value=float(f"{value:.{_SIGNIFICANT_DIGITS}g}"), unit=codes.unit(unit))
        for name, value, unit in values
        if math.isfinite(value)
    ]


def _referenced_images(source: SourceStudy, series: SeriesAssessment) -> list[sr.SourceImageForMeasurementGroup]:
    """The worst slices and the slices findings were seen on; the first image where neither names one."""
    worst = sorted(series.slices, key=lambda slice_: (slice_.score, slice_.sop_instance_uid, slice_.frame_number or 0))
    frames: dict[str, set[int]] = {}
    for slice_ in worst[:MAX_WORST_SLICES]:
        frames.setdefault(slice_.sop_instance_uid, set()).update({slice_.frame_number or 0} - {0})
    for finding in series.findings:
        for uid in finding.sop_instance_uids[:MAX_SLICES_PER_FINDING]:
            frames.setdefault(uid, set())
    if not frames:
        frames[str(source.series(series.series_instance_uid)[0].SOPInstanceUID)] = set()
    return [
        sr.SourceImageForMeasurementGroup(
            source[uid].SOPClassUID, uid, referenced_frame_numbers=sorted(numbers) if numbers else None
        )
        for uid, numbers in frames.items()
    ]


def _sentences(series: SeriesAssessment) -> Iterator[str]:
    """What people read: the reason, the role with its reasons, each finding, and metrics that have no code."""
    if series.reason:
        yield series.reason
    yield f"Role {series.role}{': ' if series.role_reasons else ''}{'; '.join(series.role_reasons)}"
    for finding in series.findings:
        yield f"{finding.code.meaning} ({finding.severity}): {finding.text}"
    if series.novelty:
        yield f"Unlike the series the score was made on: {series.novelty}"
    for requirement in series.not_checkable:
        yield f"Not checkable: {requirement}"
    for metric in series.metrics:
        if metric.value is not None and metric.name not in codes.METRICS:
            yield f"{metric.meaning or metric.name}: {metric.value:g} {metric.unit}".rstrip()


def _study_evaluations(assessment: StudyAssessment, detection: DetectionResult | None) -> list[sr.ContentItem]:
    assessed = assessment.verdict is not Verdict.NOT_ASSESSED
    items = [evaluation(codes.SUMMARY_OF_ANALYSES, codes.SUCCEEDED if assessed else codes.NOT_ATTEMPTED)]
    if assessed:
        items.append(evaluation(codes.IMAGING_STUDY_QUALITY, codes.VERDICTS[assessment.verdict]))
    items += [evaluation(name, value) for name, value in _finding_evaluations(assessment.findings)]
    state = DetectionState.NOT_ATTEMPTED if detection is None else detection.state
    items.append(evaluation(codes.SUMMARY_OF_DETECTIONS, codes.DETECTION_STATES[state]))
    items.append(evaluation(codes.PROCESSING_AND_FINDINGS_SUMMARY, processing_summary(detection)))
    items += [comment(text) for text in _study_sentences(assessment, detection)]
    return items


def processing_summary(detection: DetectionResult | None) -> Code:
    """Value of (111017, DCM, "CAD Processing and Findings Summary"): CID 6047 after success, else the state itself."""
    if detection is None:
        return codes.NOT_ATTEMPTED
    if detection.state is not DetectionState.SUCCEEDED:
        return codes.DETECTION_STATES[detection.state]
    found = any(candidate.above_operating_point for candidate in detection.candidates)
    return codes.SUCCEEDED_WITH_FINDINGS if found else codes.SUCCEEDED_WITHOUT_FINDINGS


def _study_sentences(assessment: StudyAssessment, detection: DetectionResult | None) -> Iterator[str]:
    if assessment.reason:
        yield assessment.reason
    for finding in assessment.findings:
        yield f"{finding.code.meaning} ({finding.severity}): {finding.text}"
    yield f"Verdicts on series: {assessment.calibration or SHIPPED}"
    yield f"Gate to lesion detection: {'open' if assessment.gate.open else 'shut'}"
    if assessment.gate.rule:
        yield f"Gate rule {assessment.gate.rule}: {assessment.gate.statement}"
    for reason in assessment.gate.reasons:
        yield f"Gate: {reason}"
    if detection is not None and detection.reason:
        yield f"Detection {detection.state}: {detection.reason}"
