"""The segmentation of lesion candidates: DICOM SEG (PS3.3 A.51) on the grid of the T2 source, never resampled."""

import copy
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.valuerep import format_number_as_ds

from ai.detection.types import Candidate, DetectionResult, DetectionState
from ai.volumes.types import Geometry, SliceReference, Stack
from node.results import codes
from node.results.document import check_study, stamp
from node.results.identity import MANUFACTURER, MODEL_NAME, ResultIdentity
from node.results.source import SourceError, SourceStudy
from node.results.verbatim import verbatim
from node.settings import ObjectKind

_COLOURS = ("red", "gold", "deepskyblue", "magenta", "limegreen", "orange", "mediumpurple", "turquoise")
_FAR_AWAY_MM = 1e6


def reported_candidates(detection: DetectionResult) -> tuple[Candidate, ...]:
    """Candidates above the operating point by label, most suspicious first: what SEG and lesion report show."""
    if detection.state is not DetectionState.SUCCEEDED:
        return ()
    return tuple(sorted((c for c in detection.candidates if c.above_operating_point), key=lambda c: c.label))


def segment_numbers(detection: DetectionResult) -> dict[int, int]:
    """Candidate label -> segment number, counting from 1 without a gap (BINARY SEG demands it)."""
    return {candidate.label: number for number, candidate in enumerate(reported_candidates(detection), start=1)}


def tracking_uids(detection: DetectionResult, identity: ResultIdentity) -> dict[int, str]:
    """Candidate label -> Tracking UID, for every candidate; SEG, lesion report and JSON share it."""
    return {c.label: str(identity.uid("tracking", "lesion", c.label)) for c in detection.candidates}


def tracking_identifier(number: int) -> str:
    """The human-readable name of the lesion with this segment number."""
    return f"Lesion candidate {number}"


def segmented_labels(detection: DetectionResult) -> tuple[Stack, NDArray[np.uint8]]:
    """The T2 stack and the labels of its stored slices, uint8 ``[slice, row, column]`` in the order of ``slices``.

    Grid rows without an image have no place in a SEG and are left out.

    Raises:
        SourceError: a successful detection without a grid, or labels of another shape.
    """
    stack, labels = detection.t2w, detection.labels
    if stack is None or labels is None or stack.geometry is None:
        raise SourceError("detection names no T2 grid for its candidates")
    if labels.shape != stack.geometry.shape:
        raise SourceError(f"labels of shape {labels.shape} do not fit the T2 grid {stack.geometry.shape}")
    return stack, labels[list(stack.slice_indices)]


def lesion_segmentation(source: SourceStudy, detection: DetectionResult, identity: ResultIdentity) -> Dataset | None:
    """Build the SEG: one segment per candidate above the operating point; None where there is none.

    BINARY, the type every viewer reads, unless frames do not end on a byte boundary: such BINARY frames are misread by
    common viewers (shifted by pixels without a message), so they are written as LABELMAP.

    Raises:
        SourceError: the T2 is not in the source study, is spread over several multi-frame instances, or a candidate
            has no voxel in the labels.
    """
    check_study(source, identity)
    candidates = reported_candidates(detection)
    if not candidates:
        return None
    stack, labels = segmented_labels(detection)
    numbers = segment_numbers(detection)
    mask = np.zeros_like(labels)
    for label, number in numbers.items():
        voxels = labels == label
        if not voxels.any():
            raise SourceError(f"candidate {label} has no voxel on the images of series {stack.series_instance_uid}")
        mask[voxels] = number
    images, positions = _source_images(source, stack)
    binary = stack.rows * stack.columns % 8 == 0
    with verbatim():
        segmentation = Segmentation(
            source_images=images,
            pixel_array=mask,
            plane_positions=positions,
            segmentation_type=SegmentationTypeValues.BINARY if binary else SegmentationTypeValues.LABELMAP,
            segment_descriptions=_segment_descriptions(detection, identity),
            series_instance_uid=identity.series_instance_uid(ObjectKind.SEGMENTATION),
            series_number=identity.series_number(ObjectKind.SEGMENTATION),
            sop_instance_uid=identity.sop_instance_uid(ObjectKind.SEGMENTATION),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=identity.pipeline_version,
            device_serial_number=str(identity.device_uid),
            content_label="LESION_CANDIDATE",
            content_description=f"Lesion candidates. {codes.RESEARCH_USE}",
            series_description="AI lesion candidates (research use)",
        )
        segmentation.BodyPartExamined = "PROSTATE"
        _derive_dimension_organization(segmentation, identity)
        stamp(segmentation, identity)
    return segmentation


def _segment_descriptions(detection: DetectionResult, identity: ResultIdentity) -> list[SegmentDescription]:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=detection.algorithm.name,
        version=detection.algorithm.version,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        source=MANUFACTURER,
    )
    uids = tracking_uids(detection, identity)
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=tracking_identifier(number),
            segmented_property_category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
            segmented_property_type=codes.LESION,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=uids[label],
            tracking_id=tracking_identifier(number),
            anatomic_regions=[codes.PROSTATE],
            display_color=CIELabColor.from_string(_COLOURS[(number - 1) % len(_COLOURS)]),
        )
        for label, number in segment_numbers(detection).items()
    ]


def _source_images(
    source: SourceStudy, stack: Stack
) -> tuple[list[Dataset], Sequence[hd.PlanePositionSequence] | None]:
    """Headers to derive from, and the plane positions where the headers do not give one per slice."""
    if stack.geometry is None:
        raise SourceError(f"series {stack.series_instance_uid} has no regular geometry")
    if all(slice_.frame_number is None for slice_ in stack.slices):
        images = [_single_frame(source[slice_.sop_instance_uid], stack.geometry) for slice_ in stack.slices]
        for image in images:  # equal within the tolerance of a grid; highdicom wants the last digit equal too
            image.ImageOrientationPatient = images[0].ImageOrientationPatient
        return images, None
    instances = {slice_.sop_instance_uid for slice_ in stack.slices}
    if len(instances) > 1:
        raise SourceError(f"the T2 {stack.series_instance_uid} is spread over {len(instances)} multi-frame instances")
    header = _multi_frame(source[instances.pop()], stack, stack.geometry)
    return [header], [_plane_position(slice_) for slice_ in stack.slices]


def _single_frame(header: Dataset, geometry: Geometry) -> Dataset:
    """The header with the slice distance that was measured; vendors fill (0018,0088) with a gap, or not at all."""
    image = copy.deepcopy(header)
    image.SpacingBetweenSlices = format_number_as_ds(geometry.spacing_mm[0])
    if "SliceThickness" not in image:
        image.SliceThickness = image.SpacingBetweenSlices
    return image


def _multi_frame(header: Dataset, stack: Stack, geometry: Geometry) -> Dataset:
    """A multi-frame header with shared orientation and measures, where highdicom looks for them.

    Vendors repeat both per frame. Frames of other contrasts may lie at the positions of ours; they are put far away so
    that none of them is named as the source of a segment.
    """
    image = copy.deepcopy(header)
    spacing_mm = geometry.spacing_mm
    columns_axis, rows_axis = geometry.affine_lps_mm[:3, 2], geometry.affine_lps_mm[:3, 1]
    shared = Dataset()
    shared.PlaneOrientationSequence = hd.PlaneOrientationSequence(
        hd.CoordinateSystemNames.PATIENT, [*(columns_axis / spacing_mm[2]), *(rows_axis / spacing_mm[1])]
    )
    shared.PixelMeasuresSequence = hd.PixelMeasuresSequence(
        pixel_spacing=spacing_mm[1:],
        slice_thickness=stack.acquisition.slice_thickness_mm or spacing_mm[0],
        spacing_between_slices=spacing_mm[0],
    )
    by_frame = {slice_.frame_number: slice_ for slice_ in stack.slices}
    frames = []
    for number in range(1, int(header.get("NumberOfFrames") or 1) + 1):
        item = Dataset()
        slice_ = by_frame.get(number)
        item.PlanePositionSequence = _plane_position(slice_) if slice_ else _far_away()
        frames.append(item)
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = frames
    return image


def _plane_position(slice_: SliceReference) -> hd.PlanePositionSequence:
    if slice_.position_lps_mm is None:
        raise SourceError(f"frame {slice_.frame_number} of {slice_.sop_instance_uid} has no position")
    return hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, slice_.position_lps_mm)


def _far_away() -> hd.PlanePositionSequence:
    return hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, (_FAR_AWAY_MM,) * 3)


def _derive_dimension_organization(segmentation: Dataset, identity: ResultIdentity) -> None:
    """Replace highdicom's random Dimension Organization UID, in the organisation and in every index that names it."""
    uid = identity.uid("dimension-organization")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
