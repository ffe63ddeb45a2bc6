"""The whole baseline: phantoms with a known answer, real studies with human masks, and studies that lack something."""

from dataclasses import replace

import numpy as np
import pytest

from ai.detection.baseline import ALGORITHM, OPERATING_POINT, CannotDetect, detect, find_lesions, why_not_registered
from ai.detection.suspicion import SuspicionNotComputable
from ai.detection.types import DetectionState, Diffusion
from ai.volumes.types import Assembly, PixelsUnavailable, Volume

LESION = (11.0, 8.0, -4.0)


def test_planted_lesion_is_found_and_measured(phantom, grids):
    patient = phantom(lesion_centre_lps_mm=LESION)
    result = find_lesions(*patient.sample(*grids))
    first = result.candidates[0]
    true_ml = 4 / 3 * np.pi * 6.0**3 / 1000
    assert result.state is DetectionState.SUCCEEDED
    assert first.above_operating_point
    assert first.probability > 0.9
    assert np.linalg.norm(np.subtract(first.centroid_lps_mm, LESION)) < 1.5
    assert 0.5 * true_ml < first.volume_ml < 2.0 * true_ml
    assert 9.0 < first.long_axis_mm < 16.0
    assert first.adc_mean_um2_per_s == pytest.approx(900, abs=200)
    assert sum(c.above_operating_point for c in result.candidates) == 1


@pytest.mark.parametrize("seed", range(5))
def test_gland_without_lesion_has_no_candidate_above_the_operating_point(phantom, grids, seed):
    result = find_lesions(*phantom().sample(*grids, seed=seed))
    assert not any(candidate.above_operating_point for candidate in result.candidates)


@pytest.mark.parametrize(
    "flips", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]
)
def test_index_directions_do_not_matter(phantom, geometry_of, grids, flips):
    patient = phantom(lesion_centre_lps_mm=LESION)
    reference = find_lesions(*patient.sample(*grids))
    turned = [geometry_of(grid.shape, grid.spacing_mm, flips=flips) for grid in grids]
    result = find_lesions(*patient.sample(*turned))
    axes = [axis for axis, flip in enumerate(flips) if flip]
    assert np.mean(np.flip(result.gland, axes) != reference.gland) < 1e-4
    assert len(result.candidates) == len(reference.candidates)
    np.testing.assert_allclose(result.candidates[0].centroid_lps_mm, reference.candidates[0].centroid_lps_mm, atol=0.1)
    assert result.candidates[0].volume_ml == pytest.approx(reference.candidates[0].volume_ml, rel=0.02)
    assert result.candidates[0].probability == pytest.approx(reference.candidates[0].probability, abs=0.01)


@pytest.mark.parametrize("tilt_deg", [-20.0, 15.0])
def test_oblique_slices_give_the_same_place(phantom, geometry_of, grids, tilt_deg):
    patient = phantom(lesion_centre_lps_mm=LESION)
    turned = [geometry_of(grid.shape, grid.spacing_mm, tilt_deg=tilt_deg) for grid in grids]
    first = find_lesions(*patient.sample(*turned)).candidates[0]
    assert first.above_operating_point
    assert np.linalg.norm(np.subtract(first.centroid_lps_mm, LESION)) < 2.0


def test_lesion_stays_in_the_region_and_on_the_t2_grid(phantom, grids):
    # A lesion that reaches beyond the capsule: what lies outside the region is not labelled.
    result = find_lesions(*phantom(lesion_centre_lps_mm=(20.0, 8.0, 0.0)).sample(*grids))
    assert result.labels.shape == result.gland.shape == grids[0].shape
    assert result.labels.dtype == np.uint8
    assert not result.labels[~result.gland].any()
    assert set(np.unique(result.labels)) == {0} | {candidate.label for candidate in result.candidates}


def test_the_same_study_gives_the_same_answer(phantom, grids):
    volumes = phantom(lesion_centre_lps_mm=LESION).sample(*grids)
    one, other = find_lesions(*volumes), find_lesions(*volumes)
    assert one.candidates == other.candidates
    np.testing.assert_array_equal(one.labels, other.labels)


def test_without_a_prostate_nothing_is_claimed(phantom, grids):
    t2, diffusion = phantom().sample(*grids)
    rng = np.random.default_rng(0)
    flat = Volume(t2.stack, rng.normal(100, 10, t2.pixels.shape).astype(np.float32))
    adc = rng.normal(1200, 100, diffusion.adc_um2_per_s.shape).astype(np.float32)
    high_b = rng.normal(10, 1, adc.shape).astype(np.float32)
    with pytest.raises(CannotDetect, match="no structure stands out"):
        find_lesions(flat, Diffusion(diffusion.geometry, adc, high_b, 1400.0))


def test_other_frame_of_reference_or_place_is_not_laid_over(geometry_of, stack_of, grids):
    t2 = stack_of(grids[0])
    assert why_not_registered(t2, grids[1], "1.2.4") is None
    assert "frame of reference" in why_not_registered(t2, grids[1], "1.2.5")
    elsewhere = geometry_of(grids[1].shape, grids[1].spacing_mm, centre_lps_mm=(90.0, 0.0, 0.0))
    assert "field of view" in why_not_registered(t2, elsewhere, "1.2.4")


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        ((1, 1, 1), (1.0, 1.0, 1.0)),
        ((5, 20, 20), (1e-12, 1.0, 1.0)),
        ((20, 30, 30), (1e5, 1e5, 1e5)),
        ((3, 99, 2), (3, 1, 1)),
    ],
)
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 3e38, -5.0])
def test_hostile_volumes_are_refused(geometry_of, stack_of, shape, spacing_mm, value):
    grid = geometry_of(shape, spacing_mm)
    pixels = np.full(shape, value, np.float32)
    with pytest.raises((CannotDetect, SuspicionNotComputable)):
        find_lesions(Volume(stack_of(grid), pixels), Diffusion(grid, pixels, pixels, 1400.0))


@pytest.mark.parametrize("b_s_per_mm2", [0.0, -50.0, 1e7, np.nan])
def test_implausible_b_value_is_refused(phantom, grids, b_s_per_mm2):
    t2, diffusion = phantom().sample(*grids)
    with pytest.raises(CannotDetect, match="b-value"):
        find_lesions(t2, replace(diffusion, b_s_per_mm2=b_s_per_mm2))


def test_vast_volume_is_refused_before_it_is_copied(geometry_of, stack_of):
    grid = geometry_of((4096, 512, 512), (0.2, 0.2, 0.2))
    pixels = np.broadcast_to(np.float32(1), grid.shape)
    with pytest.raises(CannotDetect, match="too large"):
        find_lesions(Volume(stack_of(grid), pixels), Diffusion(grid, pixels, pixels, 1400.0))


def test_study_without_images_is_not_attempted():
    result = detect(Assembly("1.2", (), ()), source=None)
    assert result.state is DetectionState.NOT_ATTEMPTED
    assert "T2" in result.reason


@pytest.mark.real_data
def test_prostatex_0000_hits_the_cancer_and_stays_in_the_gland(case):
    study = case("ProstateX-0000")
    result = detect(study.assembly, study.source)
    grid = result.t2w.geometry
    gland = study.mask("whole_gland__AI__Bosma22b", grid)
    cancer = study.mask("human_expert__resampled", grid)
    assert result.state is DetectionState.SUCCEEDED
    assert result.algorithm == ALGORITHM
    assert result.operating_point == OPERATING_POINT
    for candidate in result.candidates:
        mask = result.labels == candidate.label
        assert gland[mask].mean() >= 0.9
        assert gland[tuple(np.rint(grid.to_index(np.array([candidate.centroid_lps_mm]))[0]).astype(int))]
    # The hit criterion of PI-CAI: overlap (IoU) of at least 0.10 with the human mask.
    first = result.labels == 1
    assert (first & cancer).sum() / (first | cancer).sum() >= 0.10
    finding_lps_mm = (25.7, 31.9, -38.5)
    assert np.linalg.norm(np.subtract(result.candidates[0].centroid_lps_mm, finding_lps_mm)) < 10.0


@pytest.mark.real_data
def test_prostatex_0001_marks_the_radiologists_benign_finding(case):
    # No significant cancer: a false positive of this baseline, at the place the radiologists had biopsied as well.
    study = case("ProstateX-0001")
    result = detect(study.assembly, study.source)
    finding_lps_mm = (-40.5, 29.3, -16.7)
    assert result.state is DetectionState.SUCCEEDED
    assert np.linalg.norm(np.subtract(result.candidates[0].centroid_lps_mm, finding_lps_mm)) < 6.0
    gland = study.mask("whole_gland__AI__Bosma22b", result.t2w.geometry)
    assert gland[result.labels > 0].mean() >= 0.7


@pytest.mark.real_data
def test_study_of_t2_only_is_not_attempted(case):
    study = case("Prostate3T-03-0001")
    result = detect(study.assembly, study.source)
    assert result.state is DetectionState.NOT_ATTEMPTED
    assert result.candidates == ()
    assert result.labels is None
    assert "ADC" in result.reason


@pytest.mark.real_data
def test_undecodable_pixels_are_a_failure_with_a_reason(case):
    class Broken:
        def frame(self, reference):
            raise PixelsUnavailable("transfer syntax cannot be decoded")

    result = detect(case("ProstateX-0000").assembly, Broken())
    assert result.state is DetectionState.FAILED
    assert "cannot be decoded" in result.reason
