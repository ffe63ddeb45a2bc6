"""What must not change an image's metrics, what must be None, and golden values of one generated image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.quality.acquired import AcquiredGrid
from ai.quality.definitions import ARBITRARY, DEFINITIONS, IMAGE_DEFINITIONS, METRIC_NAMES, METRICS_VERSION
from ai.quality.metrics import image_metrics

GRID = AcquiredGrid((160, 160), (0.7, 0.7), 0, known=True)
T2, ADC = "t2w-axial", "adc"

GOLDEN = {
    "noise_sigma": 23.9069,
    "signal": 578.908,
    "snr": 24.1841,
    "structure_to_noise": 43.4066,
    "cnr": 21.2539,
    "laplacian_to_haar_noise": 0.957951,
    "haar_kurtosis": 6.44363,
    "edge_width": 0.901482,
    "perceptual_blur": 0.377427,
    "perceptual_blur_difference": 0.0266692,
    "high_frequency_share": 0.0323333,
    "spectral_slope": -3.54516,
    "spectral_anisotropy": -0.276595,
    "mscn_shape": 3.31131,
    "mscn_variance": 0.308201,
    "mscn_product_asymmetry": 0.0512681,
    "gradient_concentration": 1.50462,
    "gradient_entropy": 0.937906,
    "phase_correlation_ratio": 1.33852,
    "ghost_prominence": 0.0091375,
    "nyquist_ghost": 0.0,
    "wrap_continuity": 0.0,
    "spike_ratio": 3.35393,
    "zipper_ratio": 1.30781,
    "entropy_focus": 0.664767,
    "bias_field_range": 2.36997,
    "hot_spot_ratio": 0.946299,
    "void_fraction": 0.118164,
    "clipped_fraction": 0.0,
    "valid_fraction": 1.0,
}
"""Of version 2, for ``pelvis(slices=1, size=160, noise=0.02, seed=3)``."""


@pytest.fixture(scope="module")
def image(made) -> np.ndarray:
    return np.asarray(made.pelvis(slices=1, size=160, seed=3)[0])


def same(first: dict[str, float | None], second: dict[str, float | None], rel: float = 1e-6) -> None:
    assert first == {
        name: value if value is None else pytest.approx(value, rel=rel, abs=1e-9) for name, value in second.items()
    }


def test_names_are_stable_and_all_are_defined() -> None:
    assert tuple(IMAGE_DEFINITIONS) == METRIC_NAMES
    assert 25 <= len(METRIC_NAMES) <= 30
    assert set(DEFINITIONS) - set(METRIC_NAMES) == {"signal_drop"}


def test_values_are_those_of_this_version(image: np.ndarray) -> None:
    measured = image_metrics(image, GRID, T2)
    assert tuple(measured) == METRIC_NAMES
    assert METRICS_VERSION == "2"
    same(measured, GOLDEN, rel=1e-4)


@given(factor=st.floats(1e-3, 1e4))
@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("role", [T2, ADC])
def test_intensity_scale_changes_nothing_but_what_is_in_its_units(image: np.ndarray, role: str, factor: float) -> None:
    expected = image_metrics(image, GRID, role)
    for name, definition in IMAGE_DEFINITIONS.items():
        if definition.unit == ARBITRARY:
            expected[name] = (expected[name] or 0.0) * factor
    same(image_metrics(image * factor, GRID, role), expected)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("role", [T2, ADC])
@pytest.mark.parametrize("phase_axis", [0, 1])
def test_flips_change_nothing(image: np.ndarray, role: str, axes: tuple[int, ...], phase_axis: int) -> None:
    grid = AcquiredGrid(GRID.shape, GRID.spacing_mm, phase_axis, known=True)
    same(image_metrics(np.flip(image, axes), grid, role), image_metrics(image, grid, role))


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("size", [(160, 160), (160, 120)])
def test_a_quarter_turn_with_the_phase_axis_changes_nothing(
    image: np.ndarray, turns: int, size: tuple[int, int]
) -> None:
    part = image[: size[0], : size[1]]
    grid = AcquiredGrid(size, (0.7, 0.9), 0, known=True)
    turned = AcquiredGrid(size[::-1], (0.9, 0.7), 1, known=True) if turns % 2 else grid
    same(image_metrics(np.rot90(part, turns), turned, T2), image_metrics(part, grid, T2))


@pytest.mark.parametrize("turned", ["down", "across", "quarter"])
def test_turning_an_interpolated_image_changes_little(image: np.ndarray, turned: str) -> None:
    """Samples of the acquired grid then lie elsewhere between the stored pixels: nothing else may differ."""
    spectrum = np.pad(np.fft.fftshift(np.fft.fft2(image)), ((48, 48), (60, 60)))
    stored = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum))) * spectrum.size / image.size
    other = {"down": np.flip(stored, 0), "across": np.flip(stored, 1), "quarter": np.rot90(stored)}[turned]
    phase_axis = 1 if turned == "quarter" else 0
    measured = image_metrics(other, AcquiredGrid(GRID.shape, GRID.spacing_mm, phase_axis, known=True), T2)
    for name, value in image_metrics(stored, GRID, T2).items():
        assert measured[name] == pytest.approx(value, rel=0.25, abs=0.02), name


@given(value=st.sampled_from([0.0, -3.0, 7.0]), shape=st.sampled_from([(8, 8), (33, 40), (160, 160)]))
@settings(max_examples=9, deadline=None)
def test_constant_images_have_no_values_but_fractions(value: float, shape: tuple[int, int]) -> None:
    measured = image_metrics(np.full(shape, value), AcquiredGrid(shape, (1.0, 1.0), 1, known=False), T2)
    assert {name for name, found in measured.items() if found is not None} <= {"clipped_fraction", "valid_fraction"}


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(32, 70), st.integers(32, 70)),
    empty=st.floats(0.0, 1.0),
    levels=st.sampled_from([1, 3, 4095]),
    role=st.sampled_from([T2, ADC]),
    phase_axis=st.sampled_from([0, 1, None]),
)
@settings(max_examples=25, deadline=None)
def test_a_value_is_finite_or_none(seed, shape, empty, levels, role, phase_axis) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, levels + 1, shape) * (rng.uniform(size=shape) >= empty)
    pixels[:, : int(empty * shape[1])] = 0
    measured = image_metrics(pixels.astype(float), AcquiredGrid(shape, (1.0, 1.0), phase_axis, known=True), role)
    assert tuple(measured) == METRIC_NAMES
    assert all(value is None or np.isfinite(value) for value in measured.values())


def test_without_a_phase_axis_what_needs_one_is_absent(image: np.ndarray) -> None:
    measured = image_metrics(image, AcquiredGrid(GRID.shape, GRID.spacing_mm, None, known=False), T2)
    absent = {name for name, value in measured.items() if value is None}
    assert absent == {name for name, definition in IMAGE_DEFINITIONS.items() if "phase" in definition.absent}


def test_pixels_that_are_not_finite_are_refused(image: np.ndarray) -> None:
    broken = image.copy()
    broken[3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        image_metrics(broken, GRID, T2)


def test_clipping_is_counted_against_the_volume_where_it_is_told(image: np.ndarray) -> None:
    flat = np.minimum(image, np.percentile(image, 90.0))
    assert image_metrics(flat, GRID, T2)["clipped_fraction"] > 0.05
    assert image_metrics(flat, GRID, T2, ceiling=float(image.max()))["clipped_fraction"] == 0.0
