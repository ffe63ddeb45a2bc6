"""Noise masks, spectrum, local contrast, perceptual blur, fold-over and zippers against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai.quality import lines, naturalness, noise, sharpness, spectrum

SIZE = 256
seeds = st.integers(0, 2**32 - 1)


def white(seed: int, shape: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.0, shape)


def power_law(exponent: float, seed: int) -> np.ndarray:
    """A random image whose power falls off with the given exponent of frequency."""
    radius = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    radius[0, 0] = 1.0
    return np.fft.irfft2(np.fft.rfft2(white(seed)) * radius ** (exponent / 2.0), (SIZE, SIZE))


@given(sigma=st.floats(0.1, 1e4), seed=seeds)
@settings(max_examples=10, deadline=None)
def test_laplacian_noise_is_the_noise_that_was_added_to_a_ramp(sigma: float, seed: int) -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    image = sigma * (3.0 * rows - 2.0 * columns + white(seed))
    assert noise.laplacian_noise_sigma(image) == pytest.approx(sigma, rel=0.03)


def test_laplacian_noise_is_immerkaers_convolution() -> None:
    image = white(1, (20, 30))
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    total = sum(
        abs(float(np.sum(mask * image[row : row + 3, column : column + 3])))
        for row in range(18)
        for column in range(28)
    )
    assert noise.laplacian_noise_sigma(image) == pytest.approx(np.sqrt(np.pi / 2) * total / (6 * 18 * 28))


def test_haar_kurtosis_is_three_for_noise_and_more_with_edges() -> None:
    flat = white(2)
    edges = flat + 20.0 * (ndimage.gaussian_filter(white(3), 4) > 0)
    assert noise.haar_kurtosis(flat) == pytest.approx(3.0, abs=0.15)
    assert noise.haar_kurtosis(edges) > 10.0
    assert noise.haar_kurtosis(np.ones((8, 8))) is None


@pytest.mark.parametrize("exponent", [0.0, -1.0, -2.0, -3.0])
def test_spectral_slope_is_the_exponent_of_the_image(exponent: float) -> None:
    slopes = [spectrum.spectral_slope(spectrum.power_spectrum(power_law(exponent, seed))) for seed in range(6)]
    assert np.mean(slopes) == pytest.approx(exponent, abs=0.06)


@pytest.mark.parametrize("shape", [(256, 256), (255, 180)])
def test_high_frequency_share_of_white_noise_is_its_share_of_the_plane(shape: tuple[int, int]) -> None:
    power = spectrum.power_spectrum(white(5, shape))
    # Frequencies fill a square of side 2 (in Nyquist frequencies): less the discs of radius 0.5 and 0.05.
    expected = (4.0 - np.pi * 0.25) / (4.0 - np.pi * 0.0025)
    assert spectrum.high_frequency_share(power) == pytest.approx(expected, abs=0.01)
    assert spectrum.high_frequency_share(spectrum.power_spectrum(np.ones(shape))) is None
    assert spectrum.spectral_slope(spectrum.power_spectrum(np.ones(shape))) is None


@pytest.mark.parametrize("axis", [0, 1])
def test_spectral_anisotropy_is_the_log_ratio_of_the_axes(axis: int) -> None:
    frequency = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    along = np.abs(frequency[axis]) > np.abs(frequency[1 - axis])
    image = np.fft.irfft2(np.fft.rfft2(white(6)) * np.where(along, 3.0, 1.0), (SIZE, SIZE))
    power = spectrum.power_spectrum(image)
    assert spectrum.spectral_anisotropy(power, axis) == pytest.approx(np.log(9.0), abs=0.1)
    assert spectrum.spectral_anisotropy(power, 1 - axis) == pytest.approx(-np.log(9.0), abs=0.1)


def test_spike_ratio_tells_a_stripe_from_noise_and_grows_with_it() -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    stripes = np.cos(2.0 * np.pi * (40 * rows + 70 * columns) / SIZE)
    ratios = [spectrum.spike_ratio(spectrum.power_spectrum(white(7) + size * stripes)) for size in (0.0, 0.2, 0.4)]
    assert ratios[0] == pytest.approx(3.5, abs=0.5)
    assert ratios[1] > 10.0
    assert ratios[2] == pytest.approx(2.0 * ratios[1], rel=0.15)
    assert spectrum.spike_ratio(spectrum.power_spectrum(np.ones((64, 64)))) is None


@pytest.mark.parametrize(("shape", "draw"), [(2.0, "normal"), (1.0, "laplace")])
def test_generalised_gaussian_shape_of_known_distributions(shape: float, draw: str) -> None:
    values = getattr(np.random.default_rng(8), draw)(0.0, 1.0, 200_000)
    ratio = float(np.mean(values**2) / np.mean(np.abs(values)) ** 2)
    assert naturalness.generalised_gaussian_shape(ratio) == pytest.approx(shape, rel=0.03)


def test_local_contrast_of_noise_and_of_what_blur_makes_of_it() -> None:
    image = 100.0 + white(9)
    blurred = ndimage.gaussian_filter(image, 1.5)
    sharp, smooth = (naturalness.local_contrast(picture * 255.0 / picture.max()) for picture in (image, blurred))
    assert sharp is not None
    assert smooth is not None
    assert sharp.product_asymmetry < 0.1 < 0.5 < smooth.product_asymmetry
    assert sharp.variance > 2.0 * smooth.variance
    assert naturalness.local_contrast(np.ones((32, 32))) is None
    assert naturalness.local_contrast(np.minimum(white(9), 0.0)) is None


def test_perceptual_blur_is_the_published_sum_and_follows_the_axis() -> None:
    image = ndimage.gaussian_filter1d(white(10, (60, 70)), 2.0, axis=0)
    padded = np.pad(image, ((4, 4), (0, 0)), mode="symmetric")
    average = np.stack([padded[row : row + 9].mean(axis=0) for row in range(60)])
    sharp, blurred = np.abs(np.diff(image, axis=0)), np.abs(np.diff(average, axis=0))
    lost = np.maximum(sharp - blurred, 0.0)
    assert sharpness.perceptual_blur(image, 0) == pytest.approx((sharp.sum() - lost.sum()) / sharp.sum())
    assert sharpness.perceptual_blur(image, 0) > 1.5 * sharpness.perceptual_blur(image, 1)
    assert sharpness.perceptual_blur(np.ones((20, 20)), 0) is None


@pytest.mark.parametrize("axis", [0, 1])
def test_fold_over_runs_on_across_the_phase_borders_only(made, axis: int) -> None:
    image = made.pelvis(slices=1, size=SIZE)[0]
    # Rolled by half the field of view, the object runs on across the borders as a folded one does.
    folded = np.roll(image, SIZE // 2, axis=axis)
    assert lines.wrap_continuity(folded, axis) > 0.4
    assert lines.wrap_continuity(image, axis) < 0.05
    assert lines.wrap_continuity(folded, 1 - axis) == 0.0
    assert lines.wrap_continuity(np.zeros((64, 64)), axis) == 0.0


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("width", [1, 2])
def test_zipper_is_a_line_that_is_rough_all_along(made, axis: int, width: int) -> None:
    image = made.pelvis(slices=1, size=SIZE)[0]
    struck = np.moveaxis(image.copy(), axis, 0)
    struck[100 : 100 + width] += np.random.default_rng(11).normal(0, 300.0, (width, SIZE))
    assert lines.zipper_ratio(image) < 2.5
    assert lines.zipper_ratio(np.moveaxis(struck, 0, axis)) > 4.0
    assert lines.zipper_ratio(np.zeros((64, 64))) is None
