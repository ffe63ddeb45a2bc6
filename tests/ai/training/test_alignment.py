"""A shift of the whole image is taken back; what is no shift stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai.quality.full_reference import haarpsi
from ai.training.alignment import aligned


def phantom() -> np.ndarray:
    image = ndimage.gaussian_filter(np.random.default_rng(3).random((96, 96)), 2.0, mode="wrap")
    image -= image.min()
    return image / image.max()


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.floats(-5, 5), st.floats(-5, 5)))
def test_a_shift_is_taken_back(shift: tuple[float, float]) -> None:
    original = phantom()
    moved = np.abs(np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(original), shift)))
    region = np.zeros(original.shape, bool)
    region[16:80, 16:80] = True
    back = aligned(original, moved, region)
    assert haarpsi(original, back, region) > 0.97


def test_identical_images_stay_bit_for_bit() -> None:
    original = phantom()
    assert aligned(original, original, np.ones(original.shape, bool)) is original


def test_damage_is_not_aligned_away() -> None:
    original = phantom()
    damaged = np.abs(original + np.random.default_rng(1).normal(0, 0.2, original.shape))
    region = np.ones(original.shape, bool)
    before, after = haarpsi(original, damaged, region), haarpsi(original, aligned(original, damaged, region), region)
    assert after == pytest.approx(before, abs=0.05)
