"""Splitting series: nothing merged that differs, nothing hidden that is irregular, nothing dependent on order."""

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.volumes import frames, stacks
from ai.volumes.assemble import assemble_studies
from ai.volumes.stacks import build_stacks
from ai.volumes.types import Stack, StackAnomaly


def _summary(stack: Stack) -> tuple[Any, ...]:
    affine = None if stack.geometry is None else np.round(stack.geometry.affine_lps_mm, 4).tolist()
    return (
        stack.volume_id,
        stack.slices,
        stack.slice_indices,
        stack.duplicates,
        stack.anomalies,
        stack.b_value,
        stack.acquisition,
        affine,
    )


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("EchoTime", (10, 100)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("DiffusionBValue", (50.0, 800.0)),
        ("ImageType", (["DERIVED", "PRIMARY", "M"], ["DERIVED", "PRIMARY", "ADC"])),
        ("PixelSpacing", ([1, 1], [2, 2])),
        ("Rows", (64, 128)),
        ("FrameOfReferenceUID", ("1.5", "1.6")),
        ("AcquisitionNumber", (1, 2)),
        ("TriggerTime", (0, 100)),
    ],
)
def test_a_series_is_split_by(attribute: str, values: tuple[Any, Any], synthetic: Any) -> None:
    headers = []
    for number, value in enumerate(values):
        for header in synthetic.series(**{attribute: value}):
            header.SOPInstanceUID = f"{header.SOPInstanceUID}.{number}"
            headers.append(header)
    found, unreadable = build_stacks(headers)
    assert not unreadable
    assert [len(stack.slices) for stack in found] == [12, 12]
    assert len({stack.volume_id for stack in found}) == 2
    assert not any(stack.duplicates for stack in found)


def test_repeated_positions_with_nothing_to_tell_them_apart_are_duplicates(synthetic: Any) -> None:
    headers = synthetic.series()
    again = deepcopy(headers[4])
    again.SOPInstanceUID, again.InstanceNumber = "1.2.1.999", 99
    stack = synthetic.stack([again, *headers])
    assert stack.anomalies == (StackAnomaly.DUPLICATE_POSITION,)
    assert [one.sop_instance_uid for one in stack.duplicates] == ["1.2.1.999"]
    assert stack.slices[4].sop_instance_uid == headers[4].SOPInstanceUID
    assert stack.geometry is not None
    assert stack.geometry.shape[0] == 12


def test_a_three_plane_survey_gives_three_mixed_stacks(synthetic: Any) -> None:
    headers = [
        header
        for number, orientation in enumerate((synthetic.axial, synthetic.sagittal, synthetic.coronal))
        for header in synthetic.series(3, orientation, SeriesInstanceUID="1.2.5", uid=f"1.2.5.{number}")
    ]
    found, _ = build_stacks(headers)
    assert {stack.plane for stack in found} == {"axial", "sagittal", "coronal"}
    assert all(StackAnomaly.MIXED_ORIENTATION in stack.anomalies for stack in found)


def test_every_radiograph_is_a_stack_of_its_own(synthetic: Any) -> None:
    headers = synthetic.series(Modality="DX", ExposureIndex=176, TargetExposureIndex=876, DeviationIndex=-7.0)
    found, _ = build_stacks(headers)
    assert [len(stack.slices) for stack in found] == [1] * len(headers)
    acquisition = found[0].acquisition
    assert (acquisition.exposure_index, acquisition.target_exposure_index) == (176.0, 876.0)
    assert acquisition.deviation_index == -7.0


def test_slices_without_a_position_form_a_stack_without_geometry(synthetic: Any) -> None:
    headers = synthetic.series(3)
    for header in headers:
        del header.ImagePositionPatient
    stack = synthetic.stack(headers)
    assert (stack.geometry, stack.anomalies) == (None, (StackAnomaly.NO_GEOMETRY,))
    assert len(stack.slices) == 3


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [1.0, 0, 0, 1.0, 0, 0]),
        ("ImageOrientationPatient", [0.0] * 6),
        ("PixelSpacing", [0.0, 1.0]),
        ("PixelSpacing", [-1.0, 1.0]),
    ],
)
def test_impossible_geometry_is_named(keyword: str, value: list[float], synthetic: Any) -> None:
    stack = synthetic.stack(synthetic.series(4, **{keyword: value}))
    assert StackAnomaly.NO_GEOMETRY in stack.anomalies
    assert stack.geometry is None


def test_a_lone_slice_has_the_thickness_of_its_header(synthetic: Any) -> None:
    stack = synthetic.stack(synthetic.series(1))
    assert stack.anomalies == (StackAnomaly.SINGLE_SLICE,)
    assert stack.geometry is not None
    assert stack.geometry.spacing_mm == (3.0, 2.0, 2.0)


def test_other_objects_are_named_and_left_out(synthetic: Any) -> None:
    report = synthetic.header("9.1", (0, 0, 0), Modality="SR")
    segmentation = synthetic.header("9.2", (0, 0, 0), Modality="SEG")
    document = synthetic.header("9.3", (0, 0, 0))
    del document.Rows, document.Columns
    empty = Dataset()
    found, unreadable = build_stacks([report, segmentation, document, empty])
    assert found == []
    assert set(unreadable) == {"9.1", "9.2", "9.3", "(header 4, no SOP Instance UID)"}
    assert "segmentation" in unreadable["9.2"]


def test_the_number_of_frames_is_bounded_before_they_are_expanded(synthetic: Any) -> None:
    found, unreadable = build_stacks([synthetic.header("9.1", (0, 0, 0), NumberOfFrames=2_000_000_000)])
    assert found == []
    assert str(frames.MAX_FRAMES_PER_INSTANCE) in unreadable["9.1"]


def test_the_number_of_stacks_is_bounded(synthetic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "MAX_STACKS", 5)
    wild = [
        synthetic.header(f"9.{number}", (0, 0, number), SeriesInstanceUID="9", TemporalPositionIdentifier=number)
        for number in range(6)
    ]
    found, unreadable = build_stacks([*wild, *synthetic.series()])
    assert [stack.series_instance_uid for stack in found] == ["1.2.1"]
    assert len(unreadable) == 6


def test_many_orientations_end_without_geometry_not_without_end(synthetic: Any) -> None:
    headers = []
    for number in range(stacks.MAX_ORIENTATIONS + 20):
        angle = 2 * np.pi * number / 400
        orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
        headers.append(synthetic.header(f"9.{number}", (0, 0, 0), orientation, InstanceNumber=number))
    found, _ = build_stacks(headers)
    assert sum(len(stack.slices) for stack in found) == len(headers)
    without = [stack for stack in found if StackAnomaly.NO_GEOMETRY in stack.anomalies]
    assert sum(len(stack.slices) for stack in without) == 20


REAL = [
    "prostate_prostatex_skyra/ProstateX-0000",
    "mr_siemens_xa_enhanced",
    "mr_philips/Philips/401_T1W_FFE_Sno_CS2",
    "mr_philips/Vanderbilt_2018",
    "mr_ge_dwi",
    "mr_uih_dwi",
    "ct_ge_head",
    "xray_us",
    "malformed",
]


@pytest.mark.real_data
@pytest.mark.parametrize("folder", REAL)
def test_the_order_of_arrival_makes_no_difference(folder: str, read_folder: Callable) -> None:
    headers = list({header.get("SOPInstanceUID"): header for header in read_folder(folder).headers}.values())
    expected = [_summary(stack) for stack in build_stacks(headers)[0]]
    random.Random(5).shuffle(headers)
    assert [_summary(stack) for stack in build_stacks(headers)[0]] == expected


@pytest.mark.real_data
@pytest.mark.parametrize("folder", [name for name in REAL if name not in ("malformed", "xray_us")])
def test_headers_rebuilt_from_dicom_json_give_the_same_stacks(folder: str, read_folder: Callable) -> None:
    headers = read_folder(folder).headers[:60]
    # GE writes a private element whose value its VR does not allow; DICOM JSON has no place for it.
    documents = [json.dumps(header.to_json_dict(suppress_invalid_tags=True)) for header in headers]
    rebuilt = [Dataset.from_json(json.loads(document)) for document in documents]
    expected, found = (assemble_studies(version) for version in (headers, rebuilt))
    assert [_summary(one.stack) for study in found for one in study.stacks] == [
        _summary(one.stack) for study in expected for one in study.stacks
    ]
    assert [one.role for study in found for one in study.stacks] == [
        one.role for study in expected for one in study.stacks
    ]


@pytest.mark.real_data
def test_enhanced_frames_know_their_place_and_physics(read_folder: Callable) -> None:
    found, unreadable = build_stacks(read_folder("mr_siemens_xa_enhanced").headers)
    assert list(unreadable.values()) == ["a structured report, not an image"]
    trace = [stack for stack in found if "TRACEW" in stack.acquisition.image_type]
    assert [stack.b_value.s_per_mm2 for stack in trace if stack.b_value] == [0, 2000]
    for stack in trace:
        assert [one.frame_number for one in stack.slices] == list(range(1, 11))
        assert stack.geometry is not None
        assert stack.geometry.spacing_mm == pytest.approx((2, 2, 2))
        assert stack.acquisition.echo_time_ms == 80
        assert stack.acquisition.repetition_time_ms == 3000
        assert stack.acquisition.acquisition_matrix == (100, 0, 0, 100)
        assert stack.acquisition.sequence_name in ("*ep_b0", "*ep_b2000t")


@pytest.mark.real_data
def test_enhanced_and_classic_export_of_one_scanner_agree(read_folder: Callable) -> None:
    """Philips wrote the same gradient echo once as an enhanced object and once as a classic series."""
    found, _ = build_stacks(read_folder("mr_philips/Philips").headers)
    enhanced, classic = (
        next(stack for stack in found if stack.acquisition.series_number == number) for number in (401, 501)
    )
    assert enhanced.geometry is not None
    assert classic.geometry is not None
    np.testing.assert_allclose(enhanced.geometry.affine_lps_mm, classic.geometry.affine_lps_mm, atol=1e-3)
    assert enhanced.acquisition.scanning_sequence == classic.acquisition.scanning_sequence == ("GR",)
    for name in ("echo_time_ms", "repetition_time_ms", "flip_angle_deg", "acquisition_matrix", "slice_thickness_mm"):
        assert getattr(enhanced.acquisition, name) == pytest.approx(getattr(classic.acquisition, name), rel=1e-6)


@pytest.mark.real_data
def test_a_ct_with_a_change_of_spacing_is_one_stack_that_says_so(read_folder: Callable) -> None:
    (stack,), unreadable = build_stacks(read_folder("ct_ge_head").headers)
    assert not unreadable
    assert len(stack.slices) == 28
    assert stack.geometry is None
    assert set(stack.anomalies) == {StackAnomaly.IRREGULAR_SPACING, StackAnomaly.SHEARED}
    assert [one.instance_number for one in stack.slices] == list(range(1, 29))


@pytest.mark.real_data
def test_a_tilted_gantry_and_mixed_orientations_are_named(read_folder: Callable) -> None:
    (tilted,), _ = build_stacks(read_folder("malformed/geometry_gantrytilting").headers)
    assert tilted.anomalies == (StackAnomaly.SHEARED,)
    mixed, _ = build_stacks(read_folder("malformed/geometry_sliceorientation").headers)
    assert {stack.plane for stack in mixed} == {"axial", "sagittal"}
    assert all(StackAnomaly.MIXED_ORIENTATION in stack.anomalies for stack in mixed)


@pytest.mark.real_data
def test_volumes_packed_into_one_image_have_no_geometry(read_folder: Callable) -> None:
    for folder, word in (("mr_uih_dwi", "VFRAME"), ("transfer_syntax/siemens_epi_9ts", "mosaic")):
        (study,) = assemble_studies(read_folder(folder).headers)
        assert all(one.stack.geometry is None and one.role == "other" for one in study.stacks)
        assert all(word in one.reasons[0] for one in study.stacks)
