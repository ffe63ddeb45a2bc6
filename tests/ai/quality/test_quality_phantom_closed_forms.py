"""Acceptance measurements on phantoms that are drawn: known noise, shading, ghost, size and slice thickness."""

import numpy as np
import pytest

from ai.quality import phantom

SIZE = 256


def disc(radius_pixels: float, row: float = 127.5, column: float = 127.5) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.clip(radius_pixels + 0.5 - np.hypot(y - row, x - column), 0.0, 1.0)


def test_both_snrs_are_signal_over_noise() -> None:
    rng = np.random.default_rng(1)
    first, second = (1000.0 * disc(100.0) + rng.normal(0, 10.0, (SIZE, SIZE)) for _ in range(2))
    assert phantom.snr_by_subtraction(first, second) == pytest.approx(100.0, rel=0.05)
    # The moving average takes 1/81 of the noise power with it.
    assert phantom.snr_by_smoothing(first) == pytest.approx(100.0 / np.sqrt(1.0 - 1.0 / 81.0), rel=0.05)


def test_snr_is_normalised_to_a_millilitre_a_second_and_thirty_kilohertz() -> None:
    unit = phantom.SnrConditions((10.0, 10.0, 10.0), 1, 60, 1000.0, 1.0, 1.0)
    assert unit.factor == pytest.approx(1.0)
    assert phantom.SnrConditions((5.0, 10.0, 10.0), 1, 60, 1000.0, 4.0, 1.0).factor == pytest.approx(1.0)
    assert phantom.SnrConditions((10.0, 10.0, 10.0), 1, 60, 4000.0, 1.0, 1.0).factor == pytest.approx(2.0)


def test_integral_uniformity_of_a_ramp() -> None:
    flat = 1000.0 * disc(100.0)
    assert phantom.integral_uniformity_percent(flat, 1.0) == pytest.approx(100.0)
    slope = flat * (1.0 + 0.002 * (np.arange(SIZE) - 127.5))
    # Small discs of 6 pixels fit up to 74 pixels from the centre: means of 0.852 to 1.148.
    assert phantom.integral_uniformity_percent(slope, 1.0) == pytest.approx(100.0 * (1.0 - 0.148), abs=0.5)


def test_fractional_uniformity_counts_what_is_within_a_tenth() -> None:
    shaded = 1000.0 * disc(110.0)
    assert phantom.fractional_uniformity(shaded) == (1.0, 1.0)
    shaded[:, 168:] *= 0.8
    across, down = phantom.fractional_uniformity(shaded)
    assert across == pytest.approx(120.0 / 160.0, abs=0.02)
    assert down == 1.0


@pytest.mark.parametrize("phase_axis", [0, 1])
@pytest.mark.parametrize("place", [(60, 60), (190, 190)])
def test_ghosting_is_the_share_of_the_bottle(phase_axis: int, place: tuple[int, int]) -> None:
    image = 1000.0 * disc(15.0, *place) + 2.0
    band = np.zeros((SIZE, SIZE))
    band[place[0] - 20 : place[0] + 20] = 10.0
    ghosted = image + (band if phase_axis == 1 else np.roll(band, place[1] - place[0], axis=0).T)
    assert phantom.ghosting_percent(ghosted, 1.0, phase_axis) == pytest.approx(1.0, rel=0.02)
    assert phantom.ghosting_percent(image, 1.0, phase_axis) == pytest.approx(0.0, abs=1e-9)


def test_diameters_are_told_between_pixels() -> None:
    assert phantom.diameters_mm(500.0 * disc(95.3), (1.0, 0.5)) == pytest.approx((95.3, 190.6), abs=0.3)


@pytest.mark.parametrize("thickness_mm", [3.0, 5.0, 7.0])
def test_slice_thickness_is_a_tenth_of_the_ramps(thickness_mm: float) -> None:
    image = 1000.0 * disc(95.0)
    image[122:134, 40:216] = 0.0
    length = 10.0 * thickness_mm
    x = np.arange(SIZE) - 127.5
    for rows, stretch in ((slice(123, 128), 1.2), (slice(128, 133), 1.0 / (2.0 - 1.0 / 1.2))):
        image[rows] = np.where(
            np.abs(x) < 88, 150.0 * np.clip((length * stretch / 2.0 - np.abs(x)) / 4.0 + 0.5, 0, 1), image[rows]
        )
    # A tilted insert makes one ramp longer and the other shorter; the harmonic mean of both stays.
    assert phantom.slice_thickness_mm(image, (1.0, 1.0)) == pytest.approx(thickness_mm, abs=0.1)


def test_a_slice_without_ramps_is_refused() -> None:
    with pytest.raises(ValueError, match="no insert"):
        phantom.slice_thickness_mm(1000.0 * disc(95.0), (1.0, 1.0))
