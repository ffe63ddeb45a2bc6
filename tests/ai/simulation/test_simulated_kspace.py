"""k-space against closed forms: Parseval, zero-filling, and the moments of noise in magnitude images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma

from ai.simulation.kspace import raw_filter, reconstruct, resize_centre, to_image, to_kspace
from tests.ai.simulation.phantoms import disc, kspace_of

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


@pytest.mark.parametrize("channels", [1, 4, 8])
def test_noise_in_air_is_central_chi(channels: int) -> None:
    air = kspace_of(np.zeros((8, 64, 64), np.float32), noise_sd=1.0, channels=channels, filter_taper=0.0)
    magnitude = reconstruct(air, (64, 64), np.random.default_rng(0))
    assert (magnitude**2).mean() == pytest.approx(2 * channels, rel=0.02)
    assert magnitude.mean() == pytest.approx(np.sqrt(2) * gamma(channels + 0.5) / gamma(channels), rel=0.01)


@pytest.mark.parametrize("signal", [1.0, 3.0])
def test_noise_on_signal_is_non_central_chi(signal: float) -> None:
    flat = np.full((8, 64, 64), signal, np.float32)
    kspace = kspace_of(flat, noise_sd=1.0, channels=6, filter_taper=0.0)
    magnitude = reconstruct(kspace, (64, 64), np.random.default_rng(1))
    assert (magnitude**2).mean() == pytest.approx(signal**2 + 12, rel=0.02)
    expected_variance_of_power = 4 * 6 + 4 * signal**2
    assert (magnitude.astype(float) ** 2).var() == pytest.approx(expected_variance_of_power, rel=0.05)


def test_channels_beyond_those_drawn_enter_as_their_mean_power() -> None:
    air = kspace_of(np.zeros((4, 64, 64), np.float32), noise_sd=0.5, channels=40.5)
    magnitude = reconstruct(air, (64, 64), np.random.default_rng(2))
    passed = float((raw_filter(64) ** 2).mean()) ** 2
    assert (magnitude**2).mean() == pytest.approx(2 * 40.5 * 0.25 * passed, rel=0.02)


def test_the_shown_field_of_view_need_not_be_square() -> None:
    kspace = kspace_of(disc((6, -4)), shown_mm=(64.0, 48.0), filter_taper=0.0)
    image = reconstruct(kspace, (128, 48), np.random.default_rng(0))[0]
    assert image.shape == (128, 48)
    assert np.unravel_index(image.argmax(), image.shape) == (64 + 12, 24 - 4)


def test_the_margin_is_not_reconstructed() -> None:
    stack = np.concatenate([disc((row, 0)) for row in (-9, 0, 9)])
    kspace = kspace_of(stack, margin=1)
    image = reconstruct(kspace, (96, 96), np.random.default_rng(0))
    assert image.shape == (1, 96, 96)
    np.testing.assert_array_equal(image, reconstruct(kspace_of(stack[1:2]), (96, 96), np.random.default_rng(0)))
