"""Candidate extraction and measurements against closed forms and as properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, gaussian_filter, label

from ai.detection.candidates import (
    MAXIMUM_CANDIDATES,
    MINIMUM_PROBABILITY,
    MINIMUM_VOLUME_ML,
    NEIGHBOURS_26,
    extract_candidates,
    long_axis_mm,
    measure,
)
from ai.detection.suspicion import deviation_of

SHAPE = (12, 40, 40)
SPACING_MM = (3.0, 1.0, 1.0)


def cone(centre, height, slope=1.0):
    """A deviation map that falls linearly with the distance in mm."""
    offsets = (np.indices(SHAPE).T - np.asarray(centre)) * np.asarray(SPACING_MM)
    return (height - slope * np.linalg.norm(offsets, axis=-1).T).astype(np.float32)


def test_strong_peak_ends_at_half_its_height(geometry_of):
    geometry = geometry_of(SHAPE, SPACING_MM)
    labels, peaks = extract_candidates(cone((6, 20, 20), 10.0), geometry)
    distance = np.linalg.norm((np.argwhere(labels == 1) - (6, 20, 20)) * np.asarray(SPACING_MM), axis=1)
    assert len(peaks) == 1
    assert distance.max() < 5.0
    assert (labels > 0).sum() == (cone((6, 20, 20), 10.0) > 5.0).sum()


def test_weak_peak_ends_at_forty_per_cent_of_its_probability(geometry_of):
    geometry = geometry_of(SHAPE, SPACING_MM)
    height = deviation_of(0.5)
    deviation = cone((6, 20, 20), height, slope=0.1)
    labels, peaks = extract_candidates(deviation, geometry)
    assert peaks[0] == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_array_equal(labels > 0, deviation > deviation_of(0.4 * peaks[0]))


def test_two_lesions_are_ranked_and_apart(geometry_of):
    deviation = np.maximum(cone((6, 10, 10), 5.0, 0.5), cone((6, 30, 30), 4.0, 0.5))
    labels, peaks = extract_candidates(deviation, geometry_of(SHAPE, SPACING_MM))
    assert labels[6, 10, 10] == 1
    assert labels[6, 30, 30] == 2
    assert peaks[0] > peaks[1]


def test_too_small_too_weak_and_nothing(geometry_of):
    geometry = geometry_of(SHAPE, SPACING_MM)
    speck = np.full(SHAPE, -np.inf, np.float32)
    speck[6, 20, 20:30] = 5.0
    assert extract_candidates(speck, geometry)[1] == ()
    assert extract_candidates(np.full(SHAPE, deviation_of(0.09), np.float32), geometry)[1] == ()
    assert extract_candidates(np.full(SHAPE, -np.inf, np.float32), geometry)[1] == ()


def test_most_of_the_volume_is_no_lesion(geometry_of):
    geometry = geometry_of(SHAPE, (6.0, 2.0, 2.0))
    assert extract_candidates(np.full(SHAPE, 5.0, np.float32), geometry)[1] == ()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(1.0, 8.0))
def test_properties_of_any_extraction(geometry_of, seed, gain):
    geometry = geometry_of(SHAPE, SPACING_MM)
    texture = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), (1.0, 3.0, 3.0))
    deviation = (gain * texture / texture.std()).astype(np.float32)
    labels, peaks = extract_candidates(deviation, geometry)
    assert len(peaks) <= MAXIMUM_CANDIDATES
    assert list(peaks) == sorted(peaks, reverse=True)
    assert set(np.unique(labels)) - {0} == set(range(1, len(peaks) + 1))
    for number, peak in enumerate(peaks, start=1):
        mask = labels == number
        assert peak >= MINIMUM_PROBABILITY
        assert label(mask, NEIGHBOURS_26)[1] == 1
        assert mask.sum() * geometry.voxel_volume_ml >= MINIMUM_VOLUME_ML
        assert not labels[binary_dilation(mask, NEIGHBOURS_26) & ~mask].any()
    for candidate in measure(labels, peaks, geometry, None, 0.5):
        assert candidate.volume_ml == pytest.approx((labels == candidate.label).sum() * 0.003)
        assert candidate.above_operating_point == (candidate.probability >= 0.5)


def test_measurements_of_a_box(geometry_of):
    geometry = geometry_of(SHAPE, (3.0, 0.5, 0.5), centre_lps_mm=(5.0, 6.0, 7.0), flips=(True, False, True))
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:7, 10:14, 20:31] = 1
    adc = np.full(SHAPE, 800.0, np.float32)
    adc[4, 10, 20], adc[4, 10, 21] = np.nan, 0.0
    (candidate,) = measure(labels, (0.7,), geometry, adc, 0.5)
    expected = geometry.to_lps_mm(np.array([[5.0, 11.5, 25.0]]))[0]
    assert candidate.volume_ml == pytest.approx(3 * 4 * 11 * 0.75 / 1000)
    np.testing.assert_allclose(candidate.centroid_lps_mm, expected)
    assert candidate.adc_mean_um2_per_s == pytest.approx(800.0)
    # Opposite corners, each cut at the middle of its outer edges: 11 x 0.5 mm by (4 - 1) x 0.5 mm.
    assert candidate.long_axis_mm == pytest.approx(np.hypot(11, 3) * 0.5)


def test_long_axis_of_a_row_a_disc_and_nothing(geometry_of):
    geometry = geometry_of(SHAPE, (3.0, 0.8, 0.8), tilt_deg=25.0)
    row = np.zeros(SHAPE, bool)
    row[3, 7, 4:14] = True
    assert long_axis_mm(row, geometry) == pytest.approx(10 * 0.8)
    rows, columns = np.indices(SHAPE[1:])
    disc = np.zeros(SHAPE, bool)
    disc[5] = np.hypot(rows - 20, columns - 20) <= 12.0
    assert long_axis_mm(disc, geometry) == pytest.approx(2 * 12.5 * 0.8, rel=0.03)
    assert long_axis_mm(np.zeros(SHAPE, bool), geometry) == 0.0


def test_unknown_adc_is_not_invented(geometry_of):
    labels = np.ones(SHAPE, np.uint8)
    unknown = np.full(SHAPE, np.nan, np.float32)
    (candidate,) = measure(labels, (0.2,), geometry_of(SHAPE, SPACING_MM), unknown, 0.5)
    assert candidate.adc_mean_um2_per_s is None
