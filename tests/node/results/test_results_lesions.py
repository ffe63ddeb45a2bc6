"""Segmentation and lesion report read back together: same voxels, same volumes, same tracking UIDs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, EnhancedMRImageStorage, SegmentationStorage

from ai.detection.types import DetectionResult, DetectionState
from ai.volumes.types import Geometry, SliceReference, Stack
from node.results import codes
from node.results.lesion_report import lesion_report
from node.results.segmentation import lesion_segmentation, segment_numbers, tracking_uids
from node.results.source import SourceError, SourceStudy
from node.results.write import to_bytes

LABELMAP = UID("1.2.840.10008.5.1.4.1.1.66.7")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")


def items(node: Dataset) -> Iterator[Dataset]:
    for item in node.get("ContentSequence", ()):
        yield item
        yield from items(item)


def named(node: Dataset, code: Code) -> list[Dataset]:
    return [i for i in items(node) if i.ConceptNameCodeSequence[0].CodeValue == code.value]


def groups(report: Dataset) -> list[Dataset]:
    return [i for i in items(report) if i.ConceptNameCodeSequence[0].CodeValue == "125007"]


def number(group: Dataset, code: Code) -> float:
    (item,) = named(group, code)
    return float(item.MeasuredValueSequence[0].NumericValue)


def comments(node: Dataset) -> list[str]:
    return [str(i.TextValue) for i in named(node, codes.COMMENT)]


def read_seg(segmentation: Dataset) -> hd.seg.Segmentation:
    return hd.seg.segread(BytesIO(to_bytes(segmentation)))


def voxels_by_reference(segmentation: hd.seg.Segmentation) -> dict[tuple[int, str, int | None], NDArray[np.bool_]]:
    """(segment, source instance, source frame) -> mask of that slice, from the file alone."""
    masks = {}
    labelmap = segmentation.SegmentationType == "LABELMAP"
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame, item in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        (derivation,) = item.DerivationImageSequence
        (image,) = derivation.SourceImageSequence
        where = (image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber"))
        if labelmap:
            masks |= {(int(value), *where): frame == value for value in np.unique(frame) if value}
        else:
            owner = item if "SegmentIdentificationSequence" in item else shared
            masks[(int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber), *where)] = frame.astype(bool)
    return masks


def expected_masks(detection: DetectionResult) -> dict[tuple[int, str, int | None], NDArray[np.bool_]]:
    assert detection.labels is not None
    assert detection.t2w is not None
    masks = {}
    for label, segment in segment_numbers(detection).items():
        for row, slice_ in zip(detection.t2w.slice_indices, detection.t2w.slices, strict=True):
            mask = detection.labels[row] == label
            if mask.any():
                masks[(segment, slice_.sop_instance_uid, slice_.frame_number)] = mask
    return masks


def assert_same_voxels(segmentation: hd.seg.Segmentation, detection: DetectionResult) -> None:
    found, expected = voxels_by_reference(segmentation), expected_masks(detection)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def voxel_volume_ml(segmentation: Dataset) -> float:
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return float(np.prod(np.array(measures.PixelSpacing, float)) * float(measures.SpacingBetweenSlices)) / 1000.0


def assert_report_agrees(report: Dataset, segmentation: hd.seg.Segmentation) -> None:
    """Tracking UIDs, segment references and volumes of the report are those of the segmentation's file."""
    masks = voxels_by_reference(segmentation)
    segments = {int(s.SegmentNumber): s for s in segmentation.SegmentSequence if int(s.SegmentNumber) != 0}
    assert len(groups(report)) == len(segments)
    for group in groups(report):
        (reference,) = named(group, Code("121191", "DCM", "Referenced Segment"))
        sop = reference.ReferencedSOPSequence[0]
        assert (sop.ReferencedSOPInstanceUID, sop.ReferencedSOPClassUID) == (
            segmentation.SOPInstanceUID,
            segmentation.SOPClassUID,
        )
        segment = segments.pop(int(sop.ReferencedSegmentNumber))
        assert [i.UID for i in named(group, TRACKING_UID)] == [segment.TrackingUID]
        count = sum(mask.sum() for key, mask in masks.items() if key[0] == segment.SegmentNumber)
        assert number(group, codes.VOLUME) == pytest.approx(count * voxel_volume_ml(segmentation), rel=1e-9)


@pytest.fixture
def study(make: Any) -> tuple[SourceStudy, Stack, Any]:
    """A generated series, its stack, and the identity of a result."""
    headers = make.headers()
    return SourceStudy(headers), make.stack(headers.values()), make.identity(headers)


def test_segments_are_numbered_without_gaps_and_share_tracking_uids(make: Any, study: Any) -> None:
    source, stack, identity = study
    detection = make.detection(stack, above=(True, False, True))
    segmentation = read_seg(lesion_segmentation(source, detection, identity))
    assert segment_numbers(detection) == {1: 1, 3: 2}
    assert [int(s.SegmentNumber) for s in segmentation.SegmentSequence] == [1, 2]
    uids = tracking_uids(detection, identity)
    assert [s.TrackingUID for s in segmentation.SegmentSequence] == [uids[1], uids[3]]
    assert len(set(uids.values())) == 3
    for segment in segmentation.SegmentSequence:
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.LESION.value
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "baseline"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert len(segment.RecommendedDisplayCIELabValue) == 3
    assert segmentation.BodyPartExamined == "PROSTATE"
    assert codes.RESEARCH_USE in segmentation.ContentDescription
    assert_same_voxels(segmentation, detection)
    assert_report_agrees(lesion_report(source, detection, segmentation, identity), segmentation)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(3, 20), columns=st.integers(3, 20), slices=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_any_matrix_reads_back_voxel_for_voxel(make: Any, rows: int, columns: int, slices: int, seed: int) -> None:
    headers = make.headers(rows, columns, slices)
    source, stack, identity = SourceStudy(headers), make.stack(headers.values()), make.identity(headers)
    labels = np.random.default_rng(seed).integers(0, 4, (slices, rows, columns)).astype(np.uint8)
    labels[0].flat[:3] = (1, 2, 3)
    detection = make.detection(stack, labels=labels)
    segmentation = read_seg(lesion_segmentation(source, detection, identity))
    assert segmentation.SOPClassUID == (LABELMAP if rows * columns % 8 else SegmentationStorage)
    assert_same_voxels(segmentation, detection)
    assert_report_agrees(lesion_report(source, detection, segmentation, identity), segmentation)


def test_reversed_slice_order_and_a_missing_slice_keep_every_voxel_in_place(make: Any) -> None:
    headers = make.headers(slices=7)
    kept = [header for header in headers.values() if header.InstanceNumber != 4]
    whole = make.stack(headers.values())
    stack = replace(
        whole,
        slices=tuple(slice_ for index, slice_ in enumerate(whole.slices) if index != 3),
        slice_indices=(0, 1, 2, 4, 5, 6),
    )
    source = SourceStudy({str(header.SOPInstanceUID): header for header in reversed(kept)})
    detection = make.detection(stack, above=(True, True, True))
    identity = make.identity(headers)
    segmentation = read_seg(lesion_segmentation(source, detection, identity))
    assert_same_voxels(segmentation, detection)
    assert_report_agrees(lesion_report(source, detection, segmentation, identity), segmentation)
    assert voxel_volume_ml(segmentation) == pytest.approx(0.5 * 0.75 * 3.6 / 1000)


def test_positions_of_frames_are_those_of_their_source(make: Any, study: Any) -> None:
    source, stack, identity = study
    segmentation = read_seg(lesion_segmentation(source, make.detection(stack), identity))
    for item in segmentation.PerFrameFunctionalGroupsSequence:
        image = source[item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert item.PlanePositionSequence[0].ImagePositionPatient == image.ImagePositionPatient


def test_orientations_equal_but_for_the_last_digit_are_one_orientation(make: Any) -> None:
    headers = make.headers()
    stack = make.stack(headers.values())
    for index, header in enumerate(headers.values()):
        header.ImageOrientationPatient = [1, 1e-7 * index, 0, -1e-7 * index, 1, 0]
    detection, identity = make.detection(stack), make.identity(headers)
    assert_same_voxels(read_seg(lesion_segmentation(SourceStudy(headers), detection, identity)), detection)


def enhanced(make: Any) -> tuple[dict[str, Dataset], Stack]:
    """One enhanced instance with two contrasts at the same four positions; the stack holds the odd frames."""
    header = next(iter(make.headers(rows=16, columns=10, slices=1, SOPClassUID=EnhancedMRImageStorage).values()))
    for keyword in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(header, keyword)
    header.NumberOfFrames = 8
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (0, 0, 3.6), (0, 0.5, 0), (0.75, 0, 0)
    references = tuple(
        SliceReference(header.SOPInstanceUID, EnhancedMRImageStorage, 2 * index + 1, (0.0, 0.0, 3.6 * index))
        for index in range(4)
    )
    template = make.stack(make.headers(slices=2).values())
    stack = replace(
        template,
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        rows=16,
        columns=10,
        slices=references,
        slice_indices=(0, 1, 2, 3),
        geometry=Geometry(affine, (4, 16, 10)),
    )
    return {str(header.SOPInstanceUID): header}, stack


def test_enhanced_multi_frame_sources_are_referenced_by_frame(make: Any) -> None:
    headers, stack = enhanced(make)
    source, identity = SourceStudy(headers), make.identity(headers)
    labels = np.zeros((4, 16, 10), np.uint8)
    labels[1:3, 4:9, 2:6] = 1
    detection = make.detection(stack, above=(True,), labels=labels)
    segmentation = read_seg(lesion_segmentation(source, detection, identity))
    assert_same_voxels(segmentation, detection)
    assert {key[2] for key in voxels_by_reference(segmentation)} == {3, 5}
    assert_report_agrees(lesion_report(source, detection, segmentation, identity), segmentation)


def test_a_stack_over_several_multi_frame_instances_is_refused(make: Any) -> None:
    headers, stack = enhanced(make)
    moved = replace(stack.slices[0], sop_instance_uid="1.2.3")
    stack = replace(stack, slices=(moved, *stack.slices[1:]))
    labels = np.ones((4, 16, 10), np.uint8)
    with pytest.raises(SourceError, match="2 multi-frame instances"):
        lesion_segmentation(
            SourceStudy(headers), make.detection(stack, above=(True,), labels=labels), make.identity(headers)
        )


def test_measurements_of_a_lesion(make: Any, study: Any) -> None:
    source, stack, identity = study
    detection = make.detection(stack)
    report = lesion_report(source, detection, lesion_segmentation(source, detection, identity), identity)
    report = pydicom.dcmread(BytesIO(to_bytes(report)))
    first, second = groups(report)
    assert {group.ContentTemplateSequence[0].TemplateIdentifier for group in (first, second)} == {"1411"}
    assert number(first, codes.PROBABILITY_OF_CANCER) == pytest.approx(90.0)
    assert number(first, codes.LONG_AXIS) == 6.5
    assert number(first, codes.APPARENT_DIFFUSION_COEFFICIENT) == 712.5
    units = {
        i.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
        for i in items(first)
        if i.ValueType == "NUM"
    }
    assert units == {"cm3", "mm", "%", "um2/s"}
    assert named(second, codes.APPARENT_DIFFUSION_COEFFICIENT) == []  # it was not measured
    sites = [i.ConceptCodeSequence[0].CodeValue for i in named(report, Code("363698007", "SCT", "Finding Site"))]
    assert sites == ["716922000", codes.PROSTATE.value]
    assert "Sector: somewhere" in comments(second)  # a name the standard does not have is kept as text
    root = report.ContentSequence[-1]
    assert [i.ConceptCodeSequence[0].CodeValue for i in named(root, codes.PROCESSING_AND_FINDINGS_SUMMARY)] == [
        "111242"
    ]
    assert codes.RESEARCH_USE in comments(root)
    assert "1 candidate below the operating point not reported." in comments(root)


def test_nothing_above_the_operating_point_is_said_in_one_group_without_a_segmentation(make: Any, study: Any) -> None:
    source, stack, identity = study
    detection = make.detection(stack, above=(False, False))
    assert lesion_segmentation(source, detection, identity) is None
    report = pydicom.dcmread(BytesIO(to_bytes(lesion_report(source, detection, None, identity))))
    (group,) = groups(report)
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert [i.ConceptCodeSequence[0].CodeValue for i in named(group, codes.LESION)] == [codes.ABSENT.value]
    assert [i.ConceptCodeSequence[0].CodeValue for i in named(report, codes.PROCESSING_AND_FINDINGS_SUMMARY)] == [
        "111241"
    ]


def test_no_lesion_report_without_a_successful_detection(make: Any, study: Any) -> None:
    source, stack, identity = study
    for state in (DetectionState.NOT_ATTEMPTED, DetectionState.FAILED):
        detection = replace(make.detection(stack), state=state)
        assert lesion_segmentation(source, detection, identity) is None
        with pytest.raises(SourceError, match=str(state)):
            lesion_report(source, detection, None, identity)


def test_report_and_segmentation_must_agree(make: Any, study: Any) -> None:
    source, stack, identity = study
    with pytest.raises(SourceError, match="segmentation"):
        lesion_report(source, make.detection(stack), None, identity)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: replace(d, labels=np.zeros_like(d.labels)), "no voxel"),
        (lambda d: replace(d, labels=d.labels[1:]), "do not fit"),
        (lambda d: replace(d, labels=None), "no T2 grid"),
        (lambda d: replace(d, t2w=replace(d.t2w, geometry=None)), "no T2 grid"),
    ],
)
def test_detections_that_contradict_themselves_are_refused(
    make: Any, study: Any, damage: Callable[[DetectionResult], DetectionResult], message: str
) -> None:
    source, stack, identity = study
    with pytest.raises(SourceError, match=message):
        lesion_segmentation(source, damage(make.detection(stack)), identity)


def test_same_input_same_bytes(make: Any, study: Any) -> None:
    source, stack, identity = study
    for _ in range(2):
        objects = []
        for _ in range(2):
            detection = make.detection(stack)
            segmentation = lesion_segmentation(source, detection, identity)
            objects.append((to_bytes(segmentation), to_bytes(lesion_report(source, detection, segmentation, identity))))
        assert objects[0] == objects[1]
    segmentation = pydicom.dcmread(BytesIO(objects[0][0]))
    stamps = {str(e.value) for e in segmentation.iterall() if e.VR in {"DA", "TM", "DT"} and e.value}
    assert stamps == {"20260517", "123456", "20260517123456+0000"}
    uids = {e.value for e in segmentation.iterall() if e.keyword == "DimensionOrganizationUID"}
    assert uids == {identity.uid("dimension-organization")}


def test_evidence_lists_segmentation_and_every_image_looked_at(make: Any, study: Any) -> None:
    source, stack, identity = study
    detection = make.detection(stack)
    segmentation = lesion_segmentation(source, detection, identity)
    report = lesion_report(source, detection, segmentation, identity)
    (current,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = {i.ReferencedSOPInstanceUID for s in current.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    images = {str(image.SOPInstanceUID) for image in source.series(stack.series_instance_uid)}
    assert listed == images | {segmentation.SOPInstanceUID}
    referenced = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in items(report) if i.ValueType == "IMAGE"}
    assert referenced <= listed


@pytest.mark.real_data
def test_skyra_study_with_gland_sized_labels(make: Any, skyra: dict[str, Dataset]) -> None:
    t2 = [header for header in skyra.values() if header.SeriesDescription == "t2_tse_tra"]
    source, stack, identity = SourceStudy(skyra), make.stack(t2), make.identity(skyra)
    others = [uid for uid in source.image_series_uids if uid != stack.series_instance_uid]
    detection = make.detection(stack, other_series=others[-2:])
    segmentation = read_seg(lesion_segmentation(source, detection, identity))
    assert segmentation.SegmentationType == "BINARY"
    assert_same_voxels(segmentation, detection)
    assert_report_agrees(lesion_report(source, detection, segmentation, identity), segmentation)
    assert segmentation.FrameOfReferenceUID == t2[0].FrameOfReferenceUID
    volume = segmentation.get_volume(combine_segments=True)
    where = np.argwhere(volume.array == 1).mean(axis=0)
    assert detection.labels is not None
    index = np.argwhere(detection.labels == 1).mean(axis=0)
    assert stack.geometry is not None
    expected = stack.geometry.to_lps_mm(index[None])[0]
    assert volume.map_indices_to_reference(where[None])[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.real_data
def test_philips_enhanced_series(make: Any, shared_data: Path) -> None:
    path = shared_data / "mr_philips" / "Philips" / "201_T1W_TSE_Sno_CSno_CSAIno" / "0001.dcm"
    header = pydicom.dcmread(path, stop_before_pixels=True)
    headers = {str(header.SOPInstanceUID): header}
    frames = header.PerFrameFunctionalGroupsSequence
    positions = [tuple(map(float, f.PlanePositionSequence[0].ImagePositionPatient)) for f in frames]
    order = list(dict.fromkeys(positions))
    orientation = np.array(frames[0].PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = [float(v) for v in frames[0].PixelMeasuresSequence[0].PixelSpacing]
    affine = np.eye(4)
    affine[:3, 0] = (np.array(order[-1]) - np.array(order[0])) / (len(order) - 1)
    affine[:3, 1], affine[:3, 2] = orientation[1] * spacing[0], orientation[0] * spacing[1]
    affine[:3, 3] = order[0]
    stack = replace(
        make.stack(make.headers(slices=2).values()),
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=header.SeriesInstanceUID,
        rows=header.Rows,
        columns=header.Columns,
        slices=tuple(
            SliceReference(header.SOPInstanceUID, header.SOPClassUID, positions.index(p) + 1, p) for p in order
        ),
        slice_indices=tuple(range(len(order))),
        geometry=Geometry(affine, (len(order), header.Rows, header.Columns)),
    )
    source, identity = SourceStudy(headers), make.identity(headers)
    detection = make.detection(stack, above=(True, True))
    segmentation = read_seg(lesion_segmentation(source, detection, identity))
    assert_same_voxels(segmentation, detection)
    assert_report_agrees(lesion_report(source, detection, segmentation, identity), segmentation)
    got = segmentation.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    frame = segmentation.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert [float(v) for v in got] == pytest.approx(positions[frame.ReferencedFrameNumber - 1], abs=1e-6)
