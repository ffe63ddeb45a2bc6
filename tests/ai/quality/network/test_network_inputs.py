"""The network's input: native pixels, equivariant to flips, independent of the intensity scale."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai.quality.network.inputs import SIZE, slice_input, volume_input
from ai.volumes.types import Role


def texture(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(rows, columns))
    return np.asarray(500.0 + 2000.0 * ndimage.gaussian_filter(noise, 3.0) + 30.0 * noise)


@given(
    half=st.tuples(st.integers(16, 120), st.integers(16, 120)),
    spacing=st.sampled_from([(0.6, 0.6), (0.27, 0.27), (0.5, 0.9), (2.0, 2.2)]),
    axis=st.sampled_from([0, 1, (0, 1)]),
)
@settings(deadline=None, max_examples=25)
def test_a_flipped_slice_gives_the_flipped_input(half: tuple[int, int], spacing, axis) -> None:
    image = texture(2 * half[0], 2 * half[1])
    straight, flipped = (slice_input(one, spacing).pixels[0] for one in (image, np.flip(image, axis)))
    channel_axes = tuple(one + 1 for one in np.atleast_1d(axis))
    assert np.allclose(np.flip(straight, channel_axes), flipped, atol=1e-4)


def test_an_odd_number_of_pixels_shifts_by_one() -> None:
    image = texture(201, 200)
    straight, flipped = (slice_input(one, (0.6, 0.6)).pixels[0] for one in (image, np.flip(image, 0)))
    assert np.allclose(np.flip(straight, 1)[:, :-1], flipped[:, 1:], atol=1e-5)


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-500, 500))
@settings(deadline=None, max_examples=20)
def test_rescale_slope_and_intercept_do_not_matter(gain: float, offset: float) -> None:
    image = texture(150, 150)
    plain, scaled = (slice_input(one, (0.6, 0.6)).pixels for one in (image, gain * image + offset))
    assert np.allclose(plain, scaled, atol=1e-3)


def test_a_smooth_coil_sensitivity_hardly_touches_the_normalised_channel() -> None:
    image = texture(160, 160) - 200.0
    bias = np.exp(-(np.linspace(-1.0, 1.0, 160) ** 2))[:, None]
    plain, biased = (slice_input(one, (0.6, 0.6)).pixels[0] for one in (image, image * bias))
    channels = [np.corrcoef(plain[index].ravel(), biased[index].ravel())[0, 1] for index in (0, 1)]
    assert channels[1] > 0.98 > channels[0]


def test_native_pixels_are_kept_as_they_are() -> None:
    """The central pixels in channel 0 are the image up to a scale and an offset: nothing was interpolated."""
    image = texture(180, 190)
    found = slice_input(image, (0.6, 0.7))
    centre = image[26 : 26 + SIZE, 31 : 31 + SIZE]
    linear = np.abs(found.pixels[0, 0]) < 0.999
    assert np.corrcoef(found.pixels[0, 0][linear], centre[linear])[0, 1] > 1 - 1e-9
    assert found.pixel_mm == pytest.approx(np.sqrt(0.6 * 0.7))


@pytest.mark.parametrize(
    ("spacing", "pixel_mm"), [((0.273, 0.273), 0.4), ((0.5, 1.0), np.sqrt(0.5)), ((0.2, 0.4), 0.4), ((0.4, 0.4), 0.4)]
)
def test_pixels_that_are_too_fine_or_oblong_are_resampled(spacing: tuple[float, float], pixel_mm: float) -> None:
    """A disc stays a disc, of the same size in mm."""
    rows, columns = (round(100.0 / step / 2) * 2 for step in spacing)
    y, x = ((np.arange(size) - (size - 1) / 2) * step for size, step in zip((rows, columns), spacing, strict=True))
    disc = 1000.0 * (np.hypot(y[:, None], x[None, :]) < 15.0) + texture(rows, columns) / 100.0
    found = slice_input(disc, spacing)
    assert found.pixel_mm == pytest.approx(pixel_mm)
    inside = found.pixels[0, 0] > 0
    extents_mm = [inside.any(axis=axis).sum() * found.pixel_mm for axis in (0, 1)]
    assert extents_mm == pytest.approx([30.0, 30.0], abs=1.5)


def test_small_and_empty_slices_are_no_obstacle() -> None:
    small = slice_input(texture(40, 33), (2.0, 2.0)).pixels
    assert small.shape == (1, 2, SIZE, SIZE)
    assert np.isfinite(small).all()
    assert not slice_input(np.zeros((64, 64)), (1.0, 1.0)).pixels.any()
    assert np.isfinite(slice_input(np.full((64, 64), np.nan), (1.0, 1.0)).pixels).all()


def test_values_are_bounded_whatever_the_image() -> None:
    image = texture(128, 128)
    image[60, 60] = 1e9
    assert np.abs(slice_input(image, (0.6, 0.6)).pixels).max() < 10.0


def test_slices_of_a_volume_share_their_scale(made) -> None:
    images = made.pelvis(slices=8)
    images[4] *= 0.3
    volume = made.volume(images)
    found = volume_input(volume, Role.T2W_AXIAL, (3, 4, 5))
    assert found.pixels.shape == (3, 2, SIZE, SIZE)
    assert found.pixel_mm == pytest.approx(0.5)
    levels = found.pixels[:, 0].mean(axis=(1, 2))
    assert levels[1] < min(levels[0], levels[2]) - 0.3
    with pytest.raises(ValueError, match="no slice"):
        volume_input(volume, Role.T2W_AXIAL, ())


def test_the_acquired_grid_is_seen_but_a_map_is_seen_as_stored(made) -> None:
    volume = made.volume(made.pelvis(slices=8), acquisition_matrix=(0, 96, 96, 0))
    assert volume_input(volume, Role.T2W_AXIAL, (3,)).pixel_mm == pytest.approx(1.0)
    assert volume_input(volume, Role.ADC, (3,)).pixel_mm == pytest.approx(0.5)


def test_what_needs_no_network_needs_no_torch() -> None:
    """The receiver's processes prepare prompts, slices and inputs; loading torch would cost them seconds and memory."""
    modules = ("assess", "salience", "prompts", "novelty", "network.inputs", "network.physics")
    script = "import sys\n" + "".join(f"import ai.quality.{module}\n" for module in modules)
    script += "print([name for name in ('torch', 'monai') if name in sys.modules])"
    repository = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout.strip() == "[]"
