"""Roles by physics: what the header says about the experiment, not what someone typed into the description."""

from collections.abc import Callable
from typing import Any

import pytest

from ai.volumes.roles import assign_roles
from ai.volumes.stacks import build_stacks

T2W = {"ScanningSequence": "SE", "EchoTime": 101, "RepetitionTime": 5000}


def _roles(headers: list[Any]) -> list[str]:
    return [one.role for one in assign_roles(build_stacks(headers)[0])]


@pytest.mark.parametrize(
    ("attributes", "role"),
    [
        (T2W, "t2w-axial"),
        ({**T2W, "SeriesDescription": "ADC b1400 localizer t1"}, "t2w-axial"),
        ({**T2W, "EchoTime": 59}, "other"),
        ({**T2W, "RepetitionTime": 1999}, "other"),
        ({**T2W, "ScanningSequence": ["SE", "IR"]}, "other"),
        ({"ScanningSequence": "SE", "EchoTime": 12, "RepetitionTime": 650}, "t1w"),
        ({"ScanningSequence": "GR", "EchoTime": 1.5, "RepetitionTime": 4, "FlipAngle": 12}, "t1w"),
        ({"ScanningSequence": "GR", "EchoTime": 1.5, "RepetitionTime": 4, "FlipAngle": 2}, "other"),
        ({"ScanningSequence": "GR", "EchoTime": 20, "RepetitionTime": 500, "FlipAngle": 70}, "other"),
        ({"ScanningSequence": ["GR", "EP"], "EchoTime": 30, "RepetitionTime": 2000, "FlipAngle": 90}, "other"),
        ({"ScanningSequence": "EP", "DiffusionBValue": 800.0}, "dwi"),
        ({"ScanningSequence": "SE", "EchoTime": 80, "RepetitionTime": 4000, "DiffusionBValue": 800.0}, "dwi"),
        ({"ScanningSequence": "EP", "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "adc"),
        ({"ScanningSequence": "EP", "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]}, "other"),
        (
            {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "CALC_BVALUE"], "DiffusionBValue": 1400.0},
            "dwi-calculated",
        ),
        ({**T2W, "ImageType": ["ORIGINAL", "PRIMARY", "P", "NORM"]}, "other"),
        ({**T2W, "ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE"]}, "other"),
        ({**T2W, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({**T2W, "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "other"),
        ({**T2W, "SamplesPerPixel": 3}, "other"),
        ({"SeriesDescription": "t2_tse_tra"}, "other"),
        ({"Modality": "CT"}, "ct"),
        ({"Modality": "PT"}, "pt"),
        ({"Modality": "../../etc"}, "ot"),
    ],
)
def test_role(attributes: dict[str, Any], role: str, synthetic: Any) -> None:
    assert _roles(synthetic.series(**attributes)) == [role]


def test_the_plane_of_a_t2_comes_from_its_orientation(synthetic: Any) -> None:
    for orientation, role in (
        (synthetic.axial, "t2w-axial"),
        (synthetic.sagittal, "t2w-sagittal"),
        (synthetic.coronal, "t2w-coronal"),
        ((1, 0, 0, 0, 0.92, -0.39), "t2w-axial"),
    ):
        assert _roles(synthetic.series(orientation=orientation, **T2W)) == [role]


def test_a_survey_of_few_slices_in_three_planes(synthetic: Any) -> None:
    headers = [
        header
        for number, orientation in enumerate((synthetic.axial, synthetic.sagittal, synthetic.coronal))
        for header in synthetic.series(
            5, orientation, SeriesInstanceUID="1.2.5", uid=f"1.2.5.{number}", **T2W | {"SliceThickness": 7}
        )
    ]
    assert _roles(headers) == ["localizer"] * 3


def test_few_thick_slices_are_a_survey_and_few_thin_ones_are_not(synthetic: Any) -> None:
    assert _roles(synthetic.series(3, **T2W | {"SliceThickness": 8})) == ["localizer"]
    assert _roles(synthetic.series(3, **T2W | {"SliceThickness": 3})) == ["t2w-axial"]


def _phases(synthetic: Any, count: int, separate_series: bool) -> list[Any]:
    headers = []
    for phase in range(count):
        uid = f"1.2.{phase}" if separate_series else "1.2.7"
        time = {"AcquisitionTime": f"1010{phase:02d}"} if separate_series else {"TemporalPositionIdentifier": phase + 1}
        for header in synthetic.series(uid=uid, **synthetic.gre | time):
            header.SOPInstanceUID += f".{phase}"
            headers.append(header)
    return headers


@pytest.mark.parametrize("separate_series", [False, True])
def test_a_dynamic_series_is_told_by_its_repetition_in_time(separate_series: bool, synthetic: Any) -> None:
    assert _roles(_phases(synthetic, 5, separate_series)) == ["dce"] * 5
    assert _roles(_phases(synthetic, 4, separate_series)) == ["t1w"] * 4


def test_flip_angle_references_are_no_dynamic_series(synthetic: Any) -> None:
    headers = [
        header
        for angle in (2, 5, 8, 12, 15)
        for header in synthetic.series(uid=f"1.2.{angle}", **synthetic.gre | {"FlipAngle": angle})
    ]
    assert "dce" not in _roles(headers)


def test_many_echoes_are_relaxometry(synthetic: Any) -> None:
    headers = []
    for echo in (60, 90, 120):
        for header in synthetic.series(**T2W | {"EchoTime": echo}):
            header.SOPInstanceUID += f".{echo}"
            headers.append(header)
    assert _roles(headers) == ["other"] * 3


@pytest.mark.real_data
def test_phantom_and_vendor_series(read_folder: Callable) -> None:
    for folder, expected in {
        "phantom_iqa/diffusion_snr": {"dwi", "adc", "t1w"},
        "mr_philips/Vanderbilt_2018": {"dwi"},
        "mr_philips/Philips": {"t1w"},
        "mr_siemens_xa_enhanced": {"dwi", "other"},
        "mr_ge_dwi": {"dwi"},
        "mr_canon_dwi": {"dwi"},
        "ct_ge_head": {"ct"},
    }.items():
        assert set(_roles(read_folder(folder).headers)) == expected
