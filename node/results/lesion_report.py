"""The lesion report: a Comprehensive 3D SR (TID 1500) with one TID 1411 group per candidate of the segmentation.

Without a candidate above the operating point it says so in one TID 1501 group, (Lesion) = (Absent); groups of both
templates are never mixed. Where detection was not attempted there is no lesion report at all.
"""

from collections.abc import Sequence

import numpy as np
from highdicom import sr
from pydicom import Dataset

from ai.detection.types import Candidate, DetectionResult, DetectionState
from node.results import codes
from node.results.document import algorithm_identification, append_to_group, comment, evaluation, report
from node.results.identity import ResultIdentity
from node.results.quality_report import processing_summary
from node.results.segmentation import (
    reported_candidates,
    segment_numbers,
    segmented_labels,
    tracking_identifier,
    tracking_uids,
)
from node.results.source import SourceError, SourceStudy
from node.settings import ObjectKind

_SCORE = "Probability of cancer is the detector's score, not a calibrated probability unless its parameters say so."


def lesion_report(
    source: SourceStudy, detection: DetectionResult, segmentation: Dataset | None, identity: ResultIdentity
) -> Dataset:
    """Build the lesion report of a detection that succeeded.

    ``segmentation`` is the object ``lesion_segmentation`` gave for the same detection, None where it gave None.

    Raises:
        SourceError: detection did not succeed, segmentation and candidates disagree, or a series is not in the study.
    """
    if detection.state is not DetectionState.SUCCEEDED:
        raise SourceError(f"no lesion report for a detection that is {detection.state}: its absence says so")
    candidates = reported_candidates(detection)
    if (segmentation is None) != (not candidates):
        raise SourceError(f"{len(candidates)} candidates above the operating point, segmentation: {segmentation!r:.60}")
    images = _source_images(source, detection)
    groups = (
        [_absent_group(detection, identity, images)]
        if segmentation is None
        else [_lesion_group(detection, candidate, segmentation, identity) for candidate in candidates]
    )
    return report(
        source,
        identity,
        ObjectKind.LESION_REPORT,
        "AI lesion detection (research use)",
        groups,
        [
            evaluation(codes.SUMMARY_OF_DETECTIONS, codes.SUCCEEDED),
            evaluation(codes.PROCESSING_AND_FINDINGS_SUMMARY, processing_summary(detection)),
            *(comment(text) for text in _sentences(detection, candidates)),
        ],
        library=[series[0] for series in images],
        evidence=[*(image for series in images for image in series), *([] if segmentation is None else [segmentation])],
    )


def _source_images(source: SourceStudy, detection: DetectionResult) -> list[Sequence[Dataset]]:
    """The images of every series the detector looked at, the T2 first."""
    uids = [] if detection.t2w is None else [detection.t2w.series_instance_uid]
    series = [source.series(uid) for uid in dict.fromkeys([*uids, *detection.source_series_uids])]
    if not series or not all(series):
        raise SourceError(f"a series the detector looked at is not in study {source.study_instance_uid}")
    return series


def _lesion_group(
    detection: DetectionResult, candidate: Candidate, segmentation: Dataset, identity: ResultIdentity
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    number = segment_numbers(detection)[candidate.label]
    site = codes.sector(candidate.sector)
    stack, _ = segmented_labels(detection)
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            identifier=tracking_identifier(number), uid=tracking_uids(detection, identity)[candidate.label]
        ),
        # The series stands for its images: a list of all of them makes the report ten times as long.
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(stack.series_instance_uid),
        ),
        finding_category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        finding_type=codes.LESION,
        finding_sites=[sr.FindingSite(anatomic_location=site or codes.PROSTATE)],
        algorithm_id=_algorithm(detection),
        measurements=_measurements(detection, candidate),
    )
    if candidate.sector and site is None:
        append_to_group(group, [comment(f"Sector: {candidate.sector}")])
    return group


def _absent_group(
    detection: DetectionResult, identity: ResultIdentity, images: Sequence[Sequence[Dataset]]
) -> sr.MeasurementsAndQualitativeEvaluations:
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            identifier="No lesion candidate", uid=identity.uid("tracking", "no-lesion")
        ),
        finding_type=codes.LESION,
        finding_sites=[sr.FindingSite(anatomic_location=codes.PROSTATE)],
        algorithm_id=_algorithm(detection),
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.LESION, codes.ABSENT)],
        source_images=[
            sr.SourceImageForMeasurementGroup(series[0].SOPClassUID, series[0].SOPInstanceUID) for series in images
        ],
    )


def _algorithm(detection: DetectionResult) -> sr.AlgorithmIdentification:
    algorithm = detection.algorithm
    return algorithm_identification(
        algorithm.name, algorithm.version, algorithm.parameters, codes.ARTIFICIAL_INTELLIGENCE
    )


def _measurements(detection: DetectionResult, candidate: Candidate) -> list[sr.Measurement]:
    measurements = [
        sr.Measurement(codes.VOLUME, _volume_cm3(detection, candidate), codes.CUBIC_CENTIMETRE),
        sr.Measurement(codes.LONG_AXIS, float(candidate.long_axis_mm), codes.MILLIMETRE),
        sr.Measurement(codes.PROBABILITY_OF_CANCER, 100.0 * float(candidate.probability), codes.PERCENT),
    ]
    if candidate.adc_mean_um2_per_s is not None:
        measurements.append(
            sr.Measurement(
                codes.APPARENT_DIFFUSION_COEFFICIENT,
                float(candidate.adc_mean_um2_per_s),
                codes.SQUARE_MICROMETRE_PER_SECOND,
                derivation=codes.MEAN,
            )
        )
    return measurements


def _volume_cm3(detection: DetectionResult, candidate: Candidate) -> float:
    """Voxels of the segment times the grid's voxel volume: the report never disagrees with the segmentation."""
    stack, labels = segmented_labels(detection)
    if stack.geometry is None:
        raise SourceError(f"series {stack.series_instance_uid} has no regular geometry")
    return float(np.count_nonzero(labels == candidate.label) * stack.geometry.voxel_volume_ml)


def _sentences(detection: DetectionResult, candidates: Sequence[Candidate]) -> list[str]:
    below = len(detection.candidates) - len(candidates)
    sentences = [detection.reason] if detection.reason else []
    if detection.operating_point is not None:
        sentences.append(f"Operating point of the detector: {detection.operating_point:g}")
    if below:
        sentences.append(f"{below} candidate{'s' if below > 1 else ''} below the operating point not reported.")
    if candidates:
        sentences.append(_SCORE)
    return sentences
