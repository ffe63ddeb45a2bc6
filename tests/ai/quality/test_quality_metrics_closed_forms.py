"""Metrics against closed forms: known noise, known blur, known ghosts, known gaps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai.quality import ghosting, motion, noise, sharpness, uniformity
from ai.quality.acquired import AcquiredGrid, acquired_grid, acquired_resolution, to_acquired
from ai.quality.definitions import DEFINITIONS
from ai.quality.metrics import slice_metrics, volume_metrics
from ai.volumes.types import Volume

SIZE = 256


def disc(radius: float = 0.5) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return np.asarray((y**2 + x**2 < radius**2).astype(float))


def repetitions(image: np.ndarray, phase_axis: int) -> tuple[ghosting.Repetition, ghosting.Repetition]:
    detail = motion.local_detail(image)
    phase, frequency = (ghosting.repetition(detail, 0.5, axis) for axis in (phase_axis, 1 - phase_axis))
    assert phase is not None
    assert frequency is not None
    return phase, frequency


def prominence(image: np.ndarray, phase_axis: int) -> float:
    return ghosting.ghost_prominence(*repetitions(image, phase_axis))


@given(sigma=st.floats(0.1, 1e4), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_haar_noise_is_the_noise_that_was_added(sigma: float, seed: int) -> None:
    image = 100.0 * sigma * disc() + np.random.default_rng(seed).normal(0, sigma, (SIZE, SIZE))
    assert noise.haar_noise_sigma(image) == pytest.approx(sigma, rel=0.06)


@pytest.mark.parametrize("true", [0.8, 1.5, 3.0, 8.0, 40.0])
def test_rician_correction_inverts_the_magnitude_operation(true: float) -> None:
    rng = np.random.default_rng(1)
    magnitude = np.hypot(true + rng.standard_normal(400_000), rng.standard_normal(400_000))
    assert noise.rician_snr(magnitude.mean() / magnitude.std()) == pytest.approx(true, rel=0.05)


def test_pure_noise_has_no_signal() -> None:
    rng = np.random.default_rng(2)
    magnitude = np.hypot(*rng.standard_normal((2, SIZE, SIZE)))
    assert noise.rician_snr(1.9) == 0.0
    assert noise.structure_to_noise(magnitude, noise.haar_noise_sigma(magnitude) or 0.0) == pytest.approx(0.6, abs=0.3)


def test_air_noise_is_rayleigh_corrected_and_refused_where_it_is_not_noise() -> None:
    rng = np.random.default_rng(3)
    channels = rng.normal(0, 5.0, (2, SIZE, SIZE))
    image = np.hypot(500.0 * disc() + channels[0], channels[1])
    sigma, reason = noise.air_noise_sigma(image)
    assert sigma == pytest.approx(5.0, rel=0.03)
    assert reason == ""
    masked, why = noise.air_noise_sigma(image * disc())
    assert masked is None
    assert "zero-filled" in why
    filtered, why = noise.air_noise_sigma(500.0 * disc() + 20.0 + rng.normal(0, 1.0, (SIZE, SIZE)))
    assert filtered is None
    assert "not noise alone" in why


@pytest.mark.parametrize("fwhm_mm", [1.5, 2.5, 4.0])
@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_edge_width_is_the_blur_of_a_step_edge(fwhm_mm: float, sigma: float) -> None:
    spacing = (0.5, 0.5)
    image = ndimage.gaussian_filter(disc(), fwhm_mm / sharpness.FWHM_PER_SIGMA / 0.5)
    image = image + np.random.default_rng(4).normal(0, sigma, image.shape)
    assert sharpness.edge_width_mm(image, spacing, 1.0, sigma) == pytest.approx(fwhm_mm, rel=0.15)


def test_edge_width_is_not_told_for_noise() -> None:
    image = np.random.default_rng(5).normal(0, 1.0, (SIZE, SIZE))
    assert sharpness.edge_width_mm(image, (0.5, 0.5), 1.0, 1.0) is None
    assert sharpness.edge_width_mm(np.ones((SIZE, SIZE)), (0.5, 0.5), 1.0, 0.0) is None


def test_gradient_concentration_of_noise_is_that_of_a_rayleigh_variable() -> None:
    image = np.random.default_rng(6).normal(0, 1.0, (SIZE, SIZE))
    gradient = motion.gradient_magnitude(image, (0.5, 0.5))
    flat = motion.gradient_magnitude(np.ones((SIZE, SIZE)), (0.5, 0.5))
    assert motion.gradient_concentration(gradient) == pytest.approx(2.0 / np.sqrt(np.pi), abs=0.02)
    assert motion.gradient_concentration(flat) is None


def test_gradient_entropy_has_its_limits_and_that_of_noise() -> None:
    single = np.zeros((64, 64))
    single[5, 5] = 3.0
    assert motion.gradient_entropy(single) == pytest.approx(0.0)
    assert motion.gradient_entropy(np.full((64, 64), 3.0)) == pytest.approx(1.0)
    assert motion.gradient_entropy(np.zeros((64, 64))) is None
    # Rayleigh variable of unit mean m: the entropy of the shares is ln(n) less the mean of m ln(m).
    rayleigh = np.hypot(*np.random.default_rng(6).normal(0, 1.0, (2, SIZE, SIZE)))
    unit = rayleigh / rayleigh.mean()
    expected = 1.0 - float(np.mean(unit * np.log(unit))) / np.log(unit.size)
    assert motion.gradient_entropy(rayleigh) == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_ghost_shows_along_the_phase_axis_only(made, axis: int, share: float) -> None:
    image = made.pelvis(slices=1, size=SIZE)[0]
    ghosted = image + share * np.roll(image, SIZE // 3, axis=axis)
    clean, along, across = (
        prominence(seen, phase_axis) for seen, phase_axis in ((image, axis), (ghosted, axis), (ghosted, 1 - axis))
    )
    assert along > 3.0 * max(clean, across)


@pytest.mark.parametrize("axis", [0, 1])
def test_nyquist_ghost_is_one_at_half_the_field_of_view_and_no_other(made, axis: int) -> None:
    image = made.pelvis(slices=1, size=SIZE)[0]
    half, third = (image + 0.2 * np.roll(image, SIZE // period, axis=axis) for period in (2, 3))
    clean = ghosting.nyquist_ghost(*repetitions(image, axis))
    ghost = ghosting.nyquist_ghost(*repetitions(half, axis))
    assert clean is not None
    assert ghost is not None
    assert ghost > 0.1 > 0.03 > clean
    assert ghosting.nyquist_ghost(*repetitions(half, 1 - axis)) == 0.0
    assert ghosting.nyquist_ghost(*repetitions(third, axis)) < 0.2 * ghost


def test_air_ghost_ratio_of_a_known_ghost() -> None:
    rng = np.random.default_rng(7)
    image = 1000.0 * disc() + 1.0 + np.abs(rng.normal(0, 0.1, (SIZE, SIZE)))
    image += 0.04 * 1000.0 * np.roll(disc(), SIZE // 2, axis=1)
    ratio, reason = ghosting.air_ghost_ratio(image, 1)
    assert reason == ""
    # The ghost lies over the whole phase band and nowhere in the frequency band: half of its share, by definition.
    assert ratio == pytest.approx(0.02, rel=0.15)
    refused, why = ghosting.air_ghost_ratio(np.where(disc(0.6) > 0, image, 0.0), 1)
    assert refused is None
    assert "no air" in why


def test_bias_range_is_that_of_the_applied_field() -> None:
    y, _ = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    assert uniformity.bias_field_range(np.full((SIZE, SIZE), 7.0)) == pytest.approx(1.0)
    assert uniformity.bias_field_range(100.0 * np.exp(y)) == pytest.approx(np.exp(1.8), rel=0.05)


def test_clipping_counts_pixels_at_the_ceiling_but_not_a_single_maximum() -> None:
    image = 100.0 * disc()
    image[128, 128] = 500.0
    assert uniformity.clipped_fraction(image, 500.0) == 0.0
    image[120:130, 120:130] = 500.0
    assert uniformity.clipped_fraction(image, 500.0) == pytest.approx(100 / (disc() > 0).sum(), rel=0.01)


def test_a_dark_slice_deviates_and_its_neighbours_do_not() -> None:
    signals = np.array([10.0, 11.0, 4.0, 11.0, 10.0])
    drop = uniformity.neighbour_deviation(signals)
    assert drop[2] == pytest.approx(np.log(11 / 4))
    assert np.count_nonzero(drop) == 1
    assert np.array_equal(uniformity.neighbour_deviation(np.array([1.0, 2.0])), [0.0, 0.0])


def test_entropy_focus_has_its_limits() -> None:
    point = np.zeros((64, 64))
    point[3, 3] = 5.0
    assert uniformity.entropy_focus(point) == pytest.approx(0.0)
    assert uniformity.entropy_focus(np.ones((64, 64))) == pytest.approx(1.0)
    assert uniformity.entropy_focus(np.zeros((64, 64))) is None


def test_interpolation_is_undone(made) -> None:
    image = made.pelvis(slices=1, size=128)[0]
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    padded = np.pad(spectrum, 64)
    interpolated = np.real(np.fft.ifft2(np.fft.ifftshift(padded))) * 4.0
    grid = AcquiredGrid((128, 128), (1.0, 1.0), 1, known=True)
    assert np.abs(to_acquired(interpolated, grid) - image).mean() < 0.01 * image.mean()


def test_acquired_grid_follows_the_phase_direction(made) -> None:
    lines = {"acquisition_matrix": (0, 320, 208, 0), "percent_phase_field_of_view": 100.0, "percent_sampling": 65.0}
    across = made.stack((4, 512, 512), in_plane_phase_encoding_direction="ROW", **lines)
    down = made.stack((4, 512, 512), in_plane_phase_encoding_direction="COL", **lines)
    assert acquired_grid(across).shape == (320, 208)
    assert acquired_grid(down).shape == (208, 320)
    assert acquired_resolution(down).phase_mm == pytest.approx(256 / 208)
    nominal = made.stack((4, 512, 512), **(lines | {"acquisition_matrix": (0, 320, 320, 0)}))
    assert acquired_resolution(nominal).phase_mm == pytest.approx(256 / 208)


def test_every_metric_has_a_unit_and_either_a_value_or_a_reason(made) -> None:
    cases = [
        made.volume(made.pelvis(slices=3)),
        made.volume(np.zeros((3, 64, 64))),
        made.volume(np.full((3, 64, 64), np.nan)),
        made.volume(np.full((3, 64, 64), -5.0)),
        made.volume(np.ones((1, 8, 8))),
        made.volume(made.pelvis(slices=3), in_plane_phase_encoding_direction=None, acquisition_matrix=None),
    ]
    for volume in cases:
        for role in ("t2w-axial", "adc"):
            metrics = volume_metrics(volume, role)
            assert {metric.name for metric in metrics} > set(DEFINITIONS)
            for metric in metrics:
                assert metric.unit
                assert (metric.value is None) == bool(metric.reason)
                assert metric.value is None or np.isfinite(metric.value)


def test_missing_and_covered(made) -> None:
    volume = made.volume(made.pelvis(slices=12))
    kept = (*range(5), *range(6, 12))
    stack = replace(volume.stack, slices=tuple(volume.stack.slices[i] for i in kept), slice_indices=kept)
    pixels = volume.pixels.copy()
    pixels[5] = np.nan
    gap = Volume(stack, pixels)
    metrics = {metric.name: metric.value for metric in volume_metrics(gap, "t2w-axial")}
    assert metrics["missing_slices"] == 1
    assert metrics["missing_fraction"] == pytest.approx(1 / 12)
    assert metrics["coverage"] == pytest.approx(36.0)
    assert len(slice_metrics(gap, "t2w-axial")) == 11
