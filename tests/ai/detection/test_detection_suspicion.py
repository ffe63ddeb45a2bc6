"""The suspicion map: what it means in closed form, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.detection.suspicion import (
    CHANCE_Z,
    LESION_SCALE_MM,
    SuspicionNotComputable,
    deviation_of,
    probability_like,
    robust_z,
    smooth_inside,
    suspicion,
)

SHAPE = (8, 24, 24)
SPACING_MM = (3.0, 1.0, 1.0)


def maps(seed=0):
    rng = np.random.default_rng(seed)
    adc, high_b, t2 = (rng.normal(mean, mean / 8, SHAPE).astype(np.float32) for mean in (1500.0, 20.0, 200.0))
    return adc, high_b, t2


def gland():
    mask = np.zeros(SHAPE, bool)
    mask[1:7, 3:21, 3:21] = True
    return mask


def test_constants_follow_from_the_lesion_statistics():
    # 0.223 ml is a ball of 3.76 mm radius; one in 197 pieces of a 43.9 ml gland lies above 2.57 standard deviations.
    assert pytest.approx(3.762 / np.sqrt(3), abs=1e-3) == LESION_SCALE_MM
    assert pytest.approx(2.57, abs=0.01) == CHANCE_Z


def test_probability_of_typical_tissue_and_of_chance():
    assert probability_like(0.0) == pytest.approx(0.01)
    assert probability_like(CHANCE_Z) == pytest.approx(0.5)


@given(st.floats(0.001, 0.999))
def test_deviation_inverts_probability(probability):
    assert probability_like(deviation_of(probability)) == pytest.approx(probability, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.floats(0.01, 100.0), st.floats(0.01, 100.0), st.floats(0.5, 2.0))
def test_scale_of_the_scanner_does_not_matter(seed, high_b_gain, t2_gain, adc_gain):
    adc, high_b, t2 = maps(seed)
    one = suspicion(gland(), adc, high_b, t2, SPACING_MM)
    other = suspicion(gland(), adc * adc_gain, high_b * high_b_gain, t2 * t2_gain, SPACING_MM)
    np.testing.assert_allclose(other, one, atol=1e-2)


@pytest.mark.parametrize(("which", "factor"), [(0, 0.6), (1, 1.8), (2, 0.6)])
def test_each_map_points_towards_cancer(which, factor):
    changed = list(maps())
    before = suspicion(gland(), *changed, SPACING_MM)
    changed[which] = changed[which].copy()
    changed[which][3:5, 9:15, 9:15] *= factor
    after = suspicion(gland(), *changed, SPACING_MM)
    assert after[4, 12, 12] > before[4, 12, 12] + 0.5


def test_nothing_is_suspected_outside_the_gland_or_where_diffusion_is_unknown():
    adc, high_b, t2 = maps()
    adc[3, 10, 10] = np.nan
    adc[3, 10, 11] = 0.0
    high_b[4, 12, 12] = np.nan
    t2[2, 8, 8] = np.nan
    deviation = suspicion(gland(), adc, high_b, t2, SPACING_MM)
    assert np.isneginf(deviation[~gland()]).all()
    assert np.isneginf([deviation[3, 10, 10], deviation[3, 10, 11], deviation[4, 12, 12]]).all()
    assert np.isfinite(deviation[2, 8, 8])


def test_surroundings_of_the_gland_have_no_say():
    adc, high_b, t2 = maps()
    one = suspicion(gland(), adc, high_b, t2, SPACING_MM)
    adc[~gland()], high_b[~gland()], t2[~gland()] = 300.0, 500.0, 5.0
    np.testing.assert_array_equal(suspicion(gland(), adc, high_b, t2, SPACING_MM), one)


def test_a_uniform_gland_is_not_suspicious():
    adc, high_b, t2 = (np.full(SHAPE, value, np.float32) for value in (1500.0, 20.0, 200.0))
    adc[4, 12, 12] *= 0.98
    assert suspicion(gland(), adc, high_b, t2, SPACING_MM)[gland()].max() < 1.0


def test_too_little_diffusion_is_refused():
    adc, high_b, t2 = maps()
    adc[:4] = np.nan
    adc[4, :12] = np.nan
    with pytest.raises(SuspicionNotComputable, match="less than half"):
        suspicion(gland(), adc, high_b, t2, SPACING_MM)
    with pytest.raises(SuspicionNotComputable):
        suspicion(np.zeros(SHAPE, bool), *maps(), SPACING_MM)


def test_smoothing_inside_keeps_a_constant_and_robust_z_ignores_an_outlier():
    inside = gland()
    values = np.where(inside, np.float32(7), np.float32(1e6))
    np.testing.assert_allclose(smooth_inside(values, inside, np.array([1.0, 2.0, 2.0]))[inside], 7.0, rtol=1e-4)
    normal = np.random.default_rng(1).normal(50, 5, SHAPE).astype(np.float32)
    normal[4, 12, 12] = 1e6
    z = robust_z(normal, inside)
    assert np.median(z[inside]) == pytest.approx(0, abs=1e-6)
    assert 0.9 < np.std(np.delete(z[inside], np.argmax(z[inside]))) < 1.1
