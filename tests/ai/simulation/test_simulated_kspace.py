"""k-space against closed forms: Parseval, shift theorem, ghost spacing, noise, folding, echo-planar shift."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.simulation.artifacts import (
    ARTIFACTS,
    GHOST_MODULATION,
    GHOST_PERIOD_LINES,
    NOISE_FACTOR,
    SPIKE_OF_PEAK,
    echo_train_of_line,
    encode_echo_planar,
    shift_lines,
)
from ai.simulation.kspace import KSpace, raw_filter, reconstruct, resize_centre, to_image, to_kspace

SIZE = 96


def kspace_of(image: NDArray[np.float32], phase_axis: int = 2, **changes: object) -> KSpace:
    kspace = KSpace(
        data=to_kspace(image),
        extent_mm=(float(image.shape[1]), float(image.shape[2])),
        shown_mm=float(image.shape[1]),
        phase_axis=phase_axis,
        echo_train_length=12,
        echo_spacing_ms=0.5,
        slice_thickness_mm=3.0,
        noise_sd=0.0,
    )
    return replace(kspace, **changes)


def disc(centre: tuple[float, float] = (0.0, 0.0), radius: float = 5.0, slices: int = 1) -> NDArray[np.float32]:
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = np.exp(-(((row - centre[0]) ** 2 + (column - centre[1]) ** 2) / radius**2))
    return np.repeat(image[None].astype(np.float32), slices, axis=0)


sizes = st.integers(8, 33)


@given(rows=sizes, columns=sizes, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_parseval_and_round_trip(rows: int, columns: int, seed: int) -> None:
    image = np.random.default_rng(seed).standard_normal((1, rows, columns)).astype(np.float32)
    data = to_kspace(image)
    np.testing.assert_allclose((np.abs(data) ** 2).sum(), (image**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(to_image(data), image, atol=1e-5)


@given(size=sizes, other=sizes)
@settings(max_examples=40, deadline=None)
def test_zero_filling_keeps_the_zero_frequency_and_undoes_itself(size: int, other: int) -> None:
    data = np.random.default_rng(0).standard_normal((1, size, size)).astype(np.complex64)
    resized = resize_centre(data, other, other)
    assert resized[0, other // 2, other // 2] == data[0, size // 2, size // 2]
    if other >= size:
        np.testing.assert_array_equal(resize_centre(resized, size, size), data)


@given(row_mm=st.integers(-20, 20), column_mm=st.integers(-20, 20))
@settings(max_examples=25, deadline=None)
def test_a_linear_phase_is_a_shift(row_mm: int, column_mm: int) -> None:
    kspace = kspace_of(disc())
    lines = np.ones(kspace.phase_lines)
    moved = to_image(shift_lines(kspace, kspace.data, row_mm * lines, column_mm * lines))
    np.testing.assert_allclose(moved.real, disc((row_mm, column_mm)), atol=1e-4)


@pytest.mark.parametrize("phase_axis", [1, 2])
def test_ghosts_lie_one_field_of_view_over_the_period_apart(phase_axis: int) -> None:
    kspace = kspace_of(disc(radius=3.0), phase_axis)
    ghosted = ARTIFACTS["ghosting"](kspace, 3, seed=1)
    profile = np.abs(to_image(ghosted.data))[0].max(axis=2 - phase_axis)
    shift = SIZE // GHOST_PERIOD_LINES
    for side in (-1, 1):
        ghost = profile[SIZE // 2 + side * shift]
        assert ghost == pytest.approx(GHOST_MODULATION[2] / 2, rel=0.02)
    assert profile[SIZE // 2 + shift // 2] < 0.05


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_noise_has_the_stated_standard_deviation(severity: int) -> None:
    flat = np.full((6, 64, 64), 50.0, np.float32)
    noisy = ARTIFACTS["noise"](kspace_of(flat, noise_sd=0.05), severity, seed=0)
    image = reconstruct(noisy, 64, np.random.default_rng(0))
    passed = float(np.sqrt((raw_filter(64) ** 2).mean()))  # the raw filter removes this share along each axis
    expected = 0.05 * NOISE_FACTOR[severity - 1] * passed**2
    assert image.std() == pytest.approx(expected, rel=0.03)


def test_noise_in_air_is_rayleigh() -> None:
    air = kspace_of(np.zeros((8, 64, 64), np.float32), noise_sd=1.0)
    magnitude = reconstruct(air, 64, np.random.default_rng(0))
    assert magnitude.mean() / magnitude.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)


def test_a_spike_is_a_plane_wave_of_its_amplitude() -> None:
    kspace = kspace_of(disc())
    added = to_image(ARTIFACTS["spike"](kspace, 4, seed=2).data - kspace.data)
    np.testing.assert_allclose(np.abs(added), SPIKE_OF_PEAK[3] * np.abs(kspace.data).max(), rtol=1e-3)


def test_wrap_folds_an_outer_structure_in_from_the_other_side() -> None:
    inner = 64.0
    kspace = kspace_of(disc((0, 40.0), radius=2.0), shown_mm=inner)
    folded = np.abs(to_image(ARTIFACTS["wrap"](kspace, 2, seed=0).data))[0]
    period = round(0.95 * inner)
    assert folded[SIZE // 2, SIZE // 2 + 40 - period] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("field_hz", [-60.0, 0.0, 40.0])
@pytest.mark.parametrize("phase_axis", [1, 2])
def test_a_constant_field_shifts_an_echo_planar_image(field_hz: float, phase_axis: int) -> None:
    kspace = kspace_of(disc(), phase_axis)
    encoded = encode_echo_planar(kspace, np.full(kspace.data.shape, field_hz, np.float32))
    pixels = field_hz * 0.5e-3 * SIZE
    profile = np.abs(to_image(encoded))[0].sum(axis=2 - phase_axis)
    centroid = (profile * (np.arange(SIZE) - SIZE // 2)).sum() / profile.sum()
    assert centroid == pytest.approx(pixels, abs=0.6)
    assert profile.argmax() - SIZE // 2 == pytest.approx(pixels, abs=0.6)


def test_echo_trains_interleave() -> None:
    train = echo_train_of_line(kspace_of(disc()))
    assert train.max() + 1 == SIZE / 12
    np.testing.assert_array_equal(train[:9], [0, 1, 2, 3, 4, 5, 6, 7, 0])


@pytest.mark.parametrize("name", sorted(set(ARTIFACTS) - {"distortion"}))
def test_damage_grows_with_severity_and_repeats_with_its_seed(name: str) -> None:
    image = disc((4, -9), 18, slices=3) + disc((-10, 20), 4, slices=3)
    kspace = kspace_of(image, noise_sd=0.01, shown_mm=64.0)
    clean = reconstruct(kspace, 64, np.random.default_rng(1))
    damage = []
    for severity in range(6):
        ruined = ARTIFACTS[name](kspace, severity, seed=7)
        again = ARTIFACTS[name](kspace, severity, seed=7)
        np.testing.assert_array_equal(ruined.data, again.data)
        damage.append(float(np.abs(reconstruct(ruined, 64, np.random.default_rng(1)) - clean).mean()))
    assert damage[0] == 0
    assert all(later > earlier for earlier, later in pairwise(damage)), damage


def test_refusals() -> None:
    kspace = kspace_of(disc())
    with pytest.raises(ValueError, match="severity of motion"):
        ARTIFACTS["motion"](kspace, 6, seed=0)
    with pytest.raises(ValueError, match="off-resonance"):
        ARTIFACTS["distortion"](kspace, 1, seed=0)
