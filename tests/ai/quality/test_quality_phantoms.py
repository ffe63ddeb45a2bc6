"""Acceptance measurements and patient metrics on QA phantoms with published values (phantom_iqa/REFERENCE.md)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ai.quality import ghosting, motion, noise, phantom, uniformity
from ai.quality.acquired import central_box

pytestmark = pytest.mark.real_data

Reader = Callable[[str], list[Dataset]]


@pytest.fixture
def scans(shared_data: Path) -> Reader:
    """Reads the images of a folder of phantoms, by instance number and then path."""

    def read(folder: str) -> list[Dataset]:
        paths = sorted(path for path in (shared_data / "phantom_iqa" / folder).iterdir() if path.is_file())
        return sorted((pydicom.dcmread(path) for path in paths), key=lambda scan: int(scan.InstanceNumber))

    return read


def pixels(scan: Dataset) -> np.ndarray:
    return np.asarray(scan.pixel_array, dtype=float)


def spacing(scan: Dataset) -> tuple[float, float]:
    row, column = (float(value) for value in scan.PixelSpacing)
    return row, column


def conditions(scan: Dataset) -> phantom.SnrConditions:
    return phantom.SnrConditions(
        (*spacing(scan), float(scan.SliceThickness)),
        scan.Rows,
        scan.Columns,
        float(scan.PixelBandwidth),
        float(scan.NumberOfAverages),
        float(scan.RepetitionTime) / 1000.0,
    )


def test_snr_is_the_published_one(scans: Reader) -> None:
    first, second = scans("snr/Siemens")
    factor = conditions(first).factor
    assert phantom.snr_by_subtraction(pixels(first), pixels(second)) * factor == pytest.approx(2130.93, rel=0.02)
    assert 0.90 < phantom.snr_by_smoothing(pixels(first)) * factor / 1874.81 < 1.02
    assert 0.90 < phantom.snr_by_smoothing(pixels(second)) * factor / 1874.81 < 1.02


def test_snr_from_haar_noise_is_within_the_tolerance_of_the_published_one(scans: Reader) -> None:
    for scan in scans("snr/Siemens"):
        image = pixels(scan)
        row, column = phantom.object_centre(image)
        inside = image[row - 50 : row + 50, column - 50 : column + 50]
        sigma = noise.haar_noise_sigma(inside)
        assert sigma is not None
        assert 0.90 < float(inside.mean()) / sigma * conditions(scan).factor / 1874.81 < 1.02


@pytest.mark.parametrize("maker", ["GE", "Philips", "Siemens"])
def test_noise_agrees_with_the_subtraction_of_two_scans(scans: Reader, maker: str) -> None:
    first, second = (central_box(pixels(scan)) for scan in scans(f"snr/{maker}"))
    subtraction = float((first - second).std()) / np.sqrt(2.0)
    # Scanners filter the finest scale of their images or sharpen it: a third either way was measured.
    assert noise.haar_noise_sigma(first) == pytest.approx(subtraction, rel=0.4)


@pytest.mark.parametrize(("maker", "published"), [("SiemensSolaFit", 95.77), ("PhilipsAchieva", 80.66)])
def test_integral_uniformity_is_the_published_one(scans: Reader, maker: str, published: float) -> None:
    scan = scans(f"acr/{maker}")[6]
    measured = phantom.integral_uniformity_percent(pixels(scan), spacing(scan)[0])
    assert measured == pytest.approx(published, abs=0.1)


def test_bias_field_is_ordered_as_the_published_uniformity(scans: Reader) -> None:
    ranges = [
        uniformity.bias_field_range(pixels(scans(f"acr/{maker}")[6])) for maker in ("SiemensSolaFit", "PhilipsAchieva")
    ]
    siemens, philips = ranges
    assert siemens is not None
    assert philips is not None
    assert 1.0 < siemens < philips


@pytest.mark.parametrize(("name", "published"), [("axial_oil.IMA", (1.0, 0.98125)), ("sag.dcm", (0.46875, 0.5125))])
def test_fractional_uniformity_is_the_published_one(
    shared_data: Path, name: str, published: tuple[float, float]
) -> None:
    image = pixels(pydicom.dcmread(shared_data / "phantom_iqa" / "uniformity" / name))
    # Two pixels of 160: the centre is found in another way.
    assert phantom.fractional_uniformity(image) == pytest.approx(published, abs=2.01 / 160.0)


@pytest.mark.parametrize(
    ("maker", "published"), [("SiemensSolaFit", 5.39), ("PhilipsAchieva", 5.36), ("Philips3TdStream", 5.12)]
)
def test_slice_thickness_is_near_the_published_one(scans: Reader, maker: str, published: float) -> None:
    first = scans(f"acr/{maker}")[0]
    # The ramps of the Achieva are shaded; the ACR accepts 0.7 mm.
    assert phantom.slice_thickness_mm(pixels(first), spacing(first)) == pytest.approx(published, abs=0.4)


def test_diameters_are_the_published_ones(scans: Reader) -> None:
    first = scans("acr/GE_Artist_1.5T_T1")[0]
    # Published to whole pixels of 0.98 mm; the true diameter is 190 mm.
    assert phantom.diameters_mm(pixels(first), spacing(first)) == pytest.approx((190.44, 190.44), abs=0.6)


def test_ghosting_is_the_published_one_and_patient_metrics_see_none(scans: Reader, shared_data: Path) -> None:
    scan = pydicom.dcmread(shared_data / "phantom_iqa" / "ghosting" / "GHOSTING" / "IM_0001.dcm")
    assert phantom.ghosting_percent(pixels(scan), spacing(scan)[0], 1) == pytest.approx(0.11803, rel=0.01)
    for other in scans("ghosting/GHOSTING"):
        ratio, _ = ghosting.air_ghost_ratio(pixels(other), 1)
        assert ratio is not None
        assert ratio < 0.00118
        detail = motion.local_detail(pixels(other))
        phase, frequency = (ghosting.repetition(detail, spacing(other)[axis], axis) for axis in (1, 0))
        assert phase is not None
        assert frequency is not None
        assert ghosting.ghost_prominence(phase, frequency) < 0.05


def test_filtered_air_gives_no_noise_rather_than_a_wrong_one(scans: Reader) -> None:
    for scan in scans("acr/PhilipsAchieva"):
        sigma, reason = noise.air_noise_sigma(pixels(scan))
        assert sigma is None
        assert reason
