"""Every artefact against its closed form: where its ghosts, lines and voids lie and how strong they are."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai.simulation.artifacts import ARTIFACTS, SEVERITIES
from ai.simulation.artifacts.echo_planar import (
    DEPHASING_MS,
    DISTORTION_FIELD_FACTOR,
    EDDY_REFERENCE_B,
    NYQUIST_PHASE_RAD,
    encode_echo_planar,
)
from ai.simulation.artifacts.fat import UNSUPPRESSED_SHARE, fat_shift_lines
from ai.simulation.artifacts.ghosts import GHOST_MODULATION, GHOST_PERIOD_LINES
from ai.simulation.artifacts.motion import echo_train_of_line, rotated_lines, shift_lines
from ai.simulation.artifacts.noise import COILS, NOISE_FACTOR
from ai.simulation.artifacts.receive import SPIKE_OF_PEAK, ZIPPER_LINES, ZIPPER_OF_TYPICAL
from ai.simulation.artifacts.resolution import BLUR_KEPT_SHARE, PHASE_LINES_KEPT, TRAIN_OVER_T2, t2_decay
from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace, raw_filter, reconstruct, to_image, to_kspace
from tests.ai.simulation.phantoms import SIZE, disc, kspace_of

MIDDLE = SIZE // 2


def magnitude(kspace: KSpace) -> np.ndarray:
    return np.abs(to_image(kspace.data))[0]


def along_phase(image: np.ndarray, phase_axis: int) -> np.ndarray:
    """The brightest value at each position along phase."""
    return image.max(axis=2 - phase_axis)


def width_at_half_maximum(profile: np.ndarray) -> float:
    """Full width in samples, edges interpolated."""
    peak = int(profile.argmax())
    half = profile[peak] / 2
    right = next(i for i in range(peak, len(profile)) if profile[i] < half)
    left = next(i for i in range(peak, -1, -1) if profile[i] < half)
    return (
        right
        - (half - profile[right]) / (profile[right - 1] - profile[right])
        - left
        - (half - profile[left]) / (profile[left + 1] - profile[left])
    )


def point() -> KSpace:
    """A point in the middle: its image is the point spread function."""
    image = np.zeros((1, SIZE, SIZE), np.float32)
    image[0, MIDDLE, MIDDLE] = 1
    return kspace_of(image)


def fully_equipped(slices: int = 3) -> KSpace:
    """Echo-planar raw data with everything that an artefact may ask for."""
    image = disc((4, -9), 18, slices) + (disc((-10, 18), 9, slices) > 0.5)
    image *= np.linspace(0.8, 1.2, slices, dtype=np.float32)[:, None, None]
    field = 60 * disc((10, 0), 12, slices) * np.linspace(0.5, 1.5, slices, dtype=np.float32)[:, None, None]
    return kspace_of(
        image,
        typical_noise_sd=0.01,
        shown_mm=(64.0, 64.0),
        averages=4,
        b_value=800.0,
        off_resonance_hz=field,
        fat=to_kspace(disc((0, 15), 6, slices)),
    )


@given(row_mm=st.integers(-20, 20), column_mm=st.integers(-20, 20))
@settings(max_examples=20, deadline=None)
def test_a_linear_phase_is_a_shift(row_mm: int, column_mm: int) -> None:
    kspace = kspace_of(disc())
    lines = np.ones(kspace.phase_lines)
    moved = to_image(shift_lines(kspace.data, kspace.extent_mm, 2, row_mm * lines, column_mm * lines))
    np.testing.assert_allclose(moved.real, disc((row_mm, column_mm)), atol=1e-4)


@given(degrees=st.floats(-12, 12), phase_axis=st.sampled_from([1, 2]))
@settings(max_examples=20, deadline=None)
def test_shears_turn_the_object_without_blurring_it(degrees: float, phase_axis: int) -> None:
    kspace = kspace_of(disc((0, 20)), phase_axis)
    turned = to_image(rotated_lines(kspace.data, kspace.extent_mm, phase_axis, degrees, np.arange(SIZE)))
    angle = np.deg2rad(degrees)
    expected = disc((20 * np.sin(angle), 20 * np.cos(angle)))
    np.testing.assert_allclose(turned.real, expected, atol=0.01)


def test_echo_trains_interleave() -> None:
    train = echo_train_of_line(kspace_of(disc()))
    assert train.max() + 1 == SIZE / 12
    np.testing.assert_array_equal(train[:9], [0, 1, 2, 3, 4, 5, 6, 7, 0])


def test_motion_leaves_the_image_where_its_central_line_saw_it() -> None:
    kspace = kspace_of(disc((4, -9), 18) + disc((-10, 20), 4))
    ruined = ARTIFACTS["motion"](kspace, 5, seed=3)
    np.testing.assert_array_equal(ruined.data[..., MIDDLE], kspace.data[..., MIDDLE])
    assert not np.allclose(ruined.data, kspace.data, atol=1e-4)


def test_motion_through_the_plane_takes_signal_from_the_neighbours() -> None:
    stack = np.concatenate([disc((0, 25)), np.zeros((1, SIZE, SIZE), np.float32), disc((0, -25))])
    ruined = ARTIFACTS["motion"](kspace_of(stack, margin=1), 5, seed=3)
    assert ruined.data.shape[0] == 1
    assert magnitude(ruined).max() > 0.05
    assert not ARTIFACTS["motion"](kspace_of(stack[1:2]), 5, seed=3).data.any()


@pytest.mark.parametrize("phase_axis", [1, 2])
def test_ghosts_lie_one_field_of_view_over_the_period_apart(phase_axis: int) -> None:
    ghosted = ARTIFACTS["ghosting"](kspace_of(disc(radius=3.0), phase_axis), 3, seed=1)
    profile = along_phase(magnitude(ghosted), phase_axis)
    shift = SIZE // GHOST_PERIOD_LINES
    for side in (-1, 1):
        assert profile[MIDDLE + side * shift] == pytest.approx(GHOST_MODULATION[2] / 2, rel=0.02)
    assert profile[MIDDLE + shift // 2] < 0.05


@pytest.mark.parametrize("phase_axis", [1, 2])
@pytest.mark.parametrize("severity", [2, 4])
def test_nyquist_ghost_has_the_sine_of_the_phase_error(severity: int, phase_axis: int) -> None:
    ghosted = magnitude(ARTIFACTS["nyquist-ghost"](kspace_of(disc(radius=3.0), phase_axis), severity, seed=0))
    profile = along_phase(ghosted, phase_axis)
    error = NYQUIST_PHASE_RAD[severity - 1]  # in the middle along frequency, where the linear part vanishes
    assert profile[MIDDLE] == pytest.approx(np.cos(error), rel=0.02)
    assert profile[0] == pytest.approx(np.sin(error), rel=0.02)
    assert profile[MIDDLE // 2] < 1e-3


@pytest.mark.parametrize("severity", [1, 2.5, 5])
def test_noise_has_the_stated_standard_deviation(severity: float) -> None:
    flat = kspace_of(np.full((6, 64, 64), 50.0, np.float32), noise_sd=0.05, typical_noise_sd=0.05)
    image = reconstruct(ARTIFACTS["noise"](flat, severity, seed=0), (64, 64), np.random.default_rng(0))
    passed = float((raw_filter(64) ** 2).mean())  # the raw filter leaves this share of the power, along each axis
    assert image.std() == pytest.approx(0.05 * strength(NOISE_FACTOR, severity, 1.0) * passed, rel=0.03)


def test_noise_comes_on_top_of_what_a_real_image_has() -> None:
    real = kspace_of(np.full((6, 64, 64), 50.0, np.float32), typical_noise_sd=0.05, filter_taper=0.0)
    image = reconstruct(ARTIFACTS["noise"](real, 2, seed=0), (64, 64), np.random.default_rng(0))
    assert np.hypot(image.std(), 0.05) == pytest.approx(0.05 * NOISE_FACTOR[1], rel=0.03)


def test_too_few_averages_have_the_floor_of_their_coils() -> None:
    air = kspace_of(np.zeros((4, 64, 64), np.float32), noise_sd=1.0, typical_noise_sd=1.0, filter_taper=0.0)
    noisy = ARTIFACTS["low-averages"](air, 2, seed=5)
    assert COILS[0] <= noisy.channels <= COILS[1]
    image = reconstruct(noisy, (64, 64), np.random.default_rng(0))
    assert (image**2).mean() == pytest.approx(2 * noisy.channels * 4.0, rel=0.02)  # a quarter of the averages


def test_averaging_magnitudes_lowers_the_noise_but_not_the_floor() -> None:
    flat = np.zeros((4, 64, 64), np.float32)
    floors, spreads = [], []
    for averages in (1, 9):
        air = kspace_of(flat, averages=averages, noise_sd=1 / np.sqrt(averages), filter_taper=0.0)
        floored = replace(air, channels=4 * averages)
        image = reconstruct(floored, (64, 64), np.random.default_rng(0))
        floors.append(float(image.mean()))
        spreads.append(float(image.std()))
    assert floors[1] == pytest.approx(floors[0], rel=0.05)
    assert spreads[1] < spreads[0] / 2


def test_a_noise_floor_lifts_weak_signals_only() -> None:
    lifted = []
    for signal in (0.02, 1.0):
        flat = kspace_of(np.full((2, 64, 64), signal, np.float32), noise_sd=0.01, typical_noise_sd=0.01, averages=4)
        image = reconstruct(ARTIFACTS["noise-floor"](flat, 4, seed=1), (64, 64), np.random.default_rng(0))
        lifted.append(float(image.mean()) / signal)
    assert lifted[0] > 2
    assert lifted[1] < 1.05


@pytest.mark.parametrize("severity", [2, 4])
def test_blur_is_a_gaussian_of_the_stated_width_both_ways(severity: int) -> None:
    image = magnitude(ARTIFACTS["blur"](point(), severity, seed=0))
    # exp(-(k / k0)^2) transforms to exp(-(pi k0 x)^2): full width 2 sqrt(ln 2) / (pi k0), with k0 in cycles per pixel
    expected = 2 * np.sqrt(np.log(2)) / (np.pi * BLUR_KEPT_SHARE[severity - 1] / 2)
    for profile in (image[MIDDLE], image[:, MIDDLE]):
        assert width_at_half_maximum(profile) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("severity", [4, 5])
def test_t2_decay_is_a_lorentzian_along_phase_only(severity: int) -> None:
    many_echoes = replace(point(), echo_train_length=MIDDLE)
    image = magnitude(ARTIFACTS["t2-blur"](many_echoes, severity, seed=0))
    expected = 2 / np.pi * TRAIN_OVER_T2[severity - 1]
    assert width_at_half_maximum(image[MIDDLE]) == pytest.approx(expected, rel=0.08)
    assert width_at_half_maximum(image[:, MIDDLE]) == pytest.approx(1.0, rel=0.01)


def test_t2_decay_falls_once_per_echo() -> None:
    decay = t2_decay(replace(point(), echo_train_length=16), 2.0)
    assert len(np.unique(decay)) == 16
    assert decay[MIDDLE] == 1
    assert decay.min() == pytest.approx(np.exp(-2.0 * 15 / 16))


def test_few_phase_lines_ring_at_their_own_period() -> None:
    step = np.zeros((1, SIZE, SIZE), np.float32)
    step[0, :, SIZE // 4 : 3 * SIZE // 4] = 1
    few = ARTIFACTS["gibbs"](kspace_of(step), 4, seed=0)
    lines = round(SIZE * PHASE_LINES_KEPT[3])
    assert few.phase_lines == lines
    assert few.data.shape[1] == SIZE
    row = reconstruct(few, (SIZE * 4, SIZE * 4), np.random.default_rng(0))[0, SIZE * 2]
    assert row.max() == pytest.approx(1.09, abs=0.03)  # Gibbs: 9 % overshoot whatever the number of lines
    ripple = row[SIZE + 20 : 3 * SIZE - 20] - 1
    crossings = np.flatnonzero(np.diff(np.signbit(ripple)))
    assert np.diff(crossings).mean() == pytest.approx(SIZE * 4 / lines, rel=0.1)


def test_a_spike_is_a_plane_wave_of_its_amplitude_and_frequency() -> None:
    kspace = kspace_of(disc())
    difference = ARTIFACTS["spike"](kspace, 4, seed=2).data - kspace.data
    np.testing.assert_allclose(np.abs(to_image(difference)), SPIKE_OF_PEAK[3] * np.abs(kspace.data).max(), rtol=1e-3)
    (where,) = np.argwhere(difference[0])
    row, column = where - MIDDLE
    stripes = to_image(difference)[0]
    turn = np.angle(stripes[MIDDLE, MIDDLE + 1] / stripes[MIDDLE, MIDDLE]) / (2 * np.pi)
    assert turn == pytest.approx(column / SIZE, abs=1e-4)
    assert 0.07 < np.hypot(row, column) / SIZE < 0.36


@pytest.mark.parametrize("phase_axis", [1, 2])
def test_a_zipper_is_one_line_along_phase(phase_axis: int) -> None:
    kspace = kspace_of(disc(), phase_axis, shown_mm=(64.0, 64.0))
    added = np.abs(to_image(ARTIFACTS["zipper"](kspace, 3, seed=4).data - kspace.data))[0]
    across = np.sqrt((added**2).mean(axis=phase_axis - 1))  # one value per position along frequency
    lit = np.flatnonzero(across > 0.01 * across.max())
    assert len(lit) == ZIPPER_LINES
    np.testing.assert_array_equal(np.diff(lit), 1)
    assert np.abs(lit - MIDDLE).max() <= 0.4 * 64 + 1
    typical = np.sqrt((np.abs(kspace.data) ** 2).sum())
    assert across[lit].mean() == pytest.approx(ZIPPER_OF_TYPICAL[2] * typical, rel=0.02)


def test_wrap_folds_an_outer_structure_in_from_the_other_side() -> None:
    inner = 64.0
    kspace = kspace_of(disc((0, 40.0), radius=2.0), shown_mm=(inner, inner))
    folded = magnitude(ARTIFACTS["wrap"](kspace, 2, seed=0))
    period = round(0.95 * inner)
    assert folded[MIDDLE, MIDDLE + 40 - period] == pytest.approx(1.0, rel=1e-3)


def test_bias_is_an_exponential_of_the_stated_range() -> None:
    flat = kspace_of(np.ones((1, SIZE, SIZE), np.float32))
    image = magnitude(ARTIFACTS["bias"](flat, 2, seed=1))
    across = np.log(image[0, -1] / image[0, 0]), np.log(image[-1, 0] / image[0, 0])
    assert np.hypot(*across) == pytest.approx(np.log(6.0), rel=1e-3)


@pytest.mark.parametrize("field_hz", [-60.0, 0.0, 40.0])
@pytest.mark.parametrize("phase_axis", [1, 2])
def test_a_constant_field_shifts_an_echo_planar_image(field_hz: float, phase_axis: int) -> None:
    kspace = kspace_of(disc(), phase_axis)
    encoded = to_image(encode_echo_planar(kspace, np.full(kspace.data.shape, field_hz, np.float32)))[0]
    pixels = field_hz * 0.5e-3 * SIZE
    centre = (0.0, pixels) if phase_axis == 2 else (pixels, 0.0)
    np.testing.assert_allclose(np.abs(encoded), disc(centre)[0], atol=2e-3)


def test_the_encoding_is_the_sum_over_spins() -> None:
    rng = np.random.default_rng(0)
    kspace = kspace_of(disc((0, 5), 12) * (1 + 0j), echo_spacing_ms=0.5)
    field = 30 * ndimage.gaussian_filter(rng.standard_normal((1, SIZE, SIZE)), (0, 9, 9)).astype(np.float32) * 20
    encoded = encode_echo_planar(kspace, field)
    image, k = to_image(kspace.data)[0].astype(complex), np.arange(SIZE) - MIDDLE
    position, wave = np.arange(SIZE) - MIDDLE, kspace.echo_spacing_ms / 1000
    turns = k[None, :, None] * (position / SIZE + field[0] * wave)[:, None, :]
    by_line = (image[:, None, :] * np.exp(-2j * np.pi * turns)).mean(axis=2)
    direct = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(by_line, axes=0), axis=0, norm="forward"), axes=0)
    assert np.abs(encoded[0] - direct).max() < 0.02 * np.abs(direct).max()


def test_stretching_field_dilutes_and_compressing_field_piles_up() -> None:
    ramp = np.tile(np.arange(SIZE, dtype=np.float32) - MIDDLE, (1, SIZE, 1))
    flat = kspace_of(np.ones((1, SIZE, SIZE), np.float32))
    for slope_hz in (4.0, -4.0):
        kspace = replace(flat, off_resonance_hz=slope_hz / DISTORTION_FIELD_FACTOR[2] * ramp)
        stretch = 1 + slope_hz * 0.5e-3 * SIZE
        image = magnitude(ARTIFACTS["distortion"](kspace, 3, seed=0))
        assert np.median(image[MIDDLE, MIDDLE - 8 : MIDDLE + 8]) == pytest.approx(1 / stretch, rel=0.03)


def test_a_field_gradient_leaves_the_sinc_of_its_turns() -> None:
    planes = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, SIZE, SIZE), np.float32)
    kspace = kspace_of(disc(slices=3), off_resonance_hz=20 * planes)
    image = magnitude(ARTIFACTS["dropout"](kspace, 4, seed=0))
    assert image[MIDDLE, MIDDLE] == pytest.approx(abs(np.sinc(20 * DEPHASING_MS[3] / 1000)), rel=1e-3)


def test_gas_has_no_signal() -> None:
    gas = (disc() > 0.5).astype(np.float32)
    nothing = np.zeros((1, SIZE, SIZE), np.float32)
    kspace = kspace_of(np.ones((1, SIZE, SIZE), np.float32), off_resonance_hz=nothing, gas=gas)
    for name in ("distortion", "dropout"):
        image = magnitude(ARTIFACTS[name](kspace, 1, seed=0))
        assert image[MIDDLE, MIDDLE] < 0.02
        assert image[MIDDLE, 5] == pytest.approx(1.0, abs=0.02)


def test_eddy_currents_grow_with_the_root_of_b() -> None:
    kspace = kspace_of(disc((0, 0), 4.0))
    still = magnitude(kspace)
    moved = [
        float(np.abs(magnitude(ARTIFACTS["eddy"](replace(kspace, b_value=b), 2, seed=3)) - still).max())
        for b in (0.0, EDDY_REFERENCE_B / 16, EDDY_REFERENCE_B)
    ]
    assert moved[0] < 1e-3
    assert 0 < moved[1] < 0.5 * moved[2]


@pytest.mark.parametrize("phase_axis", [1, 2])
def test_fat_is_displaced_by_its_chemical_shift(phase_axis: int) -> None:
    nothing = np.zeros((1, SIZE, SIZE), np.float32)
    kspace = kspace_of(nothing, phase_axis, fat=to_kspace(disc(radius=3.0)))
    pixels = -3.4 * 42.577 * 2.89 * 0.5e-3 * SIZE
    assert fat_shift_lines(kspace) == pytest.approx(pixels)
    image = magnitude(ARTIFACTS["fat-shift"](kspace, 3, seed=0))
    profile = along_phase(image, phase_axis)
    assert profile.argmax() - MIDDLE == round(pixels)
    assert profile.max() == pytest.approx(UNSUPPRESSED_SHARE[2], rel=0.02)


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_damage_grows_with_severity_and_repeats_with_its_seed(name: str) -> None:
    kspace = replace(fully_equipped(), echo_planar="dwi" in ARTIFACTS[name].applies_to)
    clean = reconstruct(kspace, (64, 64), np.random.default_rng(1))
    damage = []
    for severity in (0, 0.4, 1, 1.5, 2, 3, 3.5, 4, 5):
        ruined = ARTIFACTS[name](kspace, severity, seed=7)
        again = ARTIFACTS[name](kspace, severity, seed=7)
        np.testing.assert_array_equal(ruined.data, again.data)
        image = reconstruct(ruined, (64, 64), np.random.default_rng(1))
        damage.append(float(np.sqrt(((image - clean) ** 2).mean())))
    assert damage[0] == 0
    assert all(later > earlier for earlier, later in pairwise(damage)), damage


@given(severity=st.floats(0, 5), more=st.floats(0, 5))
def test_strength_is_monotone_and_meets_the_table(severity: float, more: float) -> None:
    low, high = sorted((severity, more))
    assert strength(NOISE_FACTOR, low, 1.0) <= strength(NOISE_FACTOR, high, 1.0)
    assert [strength(NOISE_FACTOR, whole, 1.0) for whole in SEVERITIES] == list(NOISE_FACTOR)


def test_refusals() -> None:
    kspace = kspace_of(disc())
    for severity in (5.1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="severity of motion"):
            ARTIFACTS["motion"](kspace, severity, seed=0)
    for name in ("distortion", "dropout"):
        with pytest.raises(ValueError, match="off-resonance"):
            ARTIFACTS[name](kspace, 1, seed=0)
    with pytest.raises(ValueError, match="fat"):
        ARTIFACTS["fat-shift"](kspace, 1, seed=0)
