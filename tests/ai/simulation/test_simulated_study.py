"""Physics and truth of a simulated study: the lesion is where the truth says, dark on T2 and ADC, bright at high b."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.simulation.anatomy import random_anatomy
from ai.simulation.gland import GLAND_VOLUME_RANGE_ML, Zone
from ai.simulation.protocol import DWI, PROSTATE_PROTOCOLS, T2_AXIAL, T2_KINDS, Protocol, SeriesKind
from ai.simulation.sequences import fit_adc
from ai.simulation.study import SimulatedStudy, simulate_study
from ai.simulation.tissues import PROPERTIES, Tissue

COARSE_MM = (2.0, 1.0, 1.0)


def nearest(study: SimulatedStudy, kind: SeriesKind, volume: int, points_lps_mm: np.ndarray) -> np.ndarray:
    """Stored values of the pixels nearest to points in the patient."""
    series = study.of(kind)
    index = np.rint(series.geometry.to_index(points_lps_mm)).astype(int)
    inside = np.all((index >= 0) & (index < series.geometry.shape), axis=1)
    return series.pixels[volume][tuple(index[inside].T)].astype(float)


def test_protocols_meet_pirads_v21() -> None:
    for protocol in PROSTATE_PROTOCOLS:
        frequency_mm = protocol.field_of_view_mm / protocol.frequency_samples
        phase_mm = protocol.field_of_view_mm / protocol.phase_lines
        assert protocol.matrix**2 % 8 == 0
        if protocol.kind in T2_KINDS:
            assert protocol.slice_thickness_mm == 3.0
            assert 120 <= protocol.field_of_view_mm <= 200
            assert frequency_mm <= 0.4
            assert phase_mm <= 0.7
    assert DWI.slice_thickness_mm <= 4.0
    assert max(DWI.field_of_view_mm / DWI.frequency_samples, DWI.field_of_view_mm / DWI.phase_lines) <= 2.5
    assert 160 <= DWI.field_of_view_mm <= 220
    assert DWI.echo_time_ms <= 90
    assert DWI.repetition_time_ms >= 3000
    assert {50, 800, 1400} <= set(DWI.b_values)


def test_lesion_contrast(clean_study: SimulatedStudy) -> None:
    truth, geometry = clean_study.truth, clean_study.of(SeriesKind.T2_AXIAL).geometry
    lesion = geometry.to_lps_mm(np.argwhere(truth.lesion).astype(float))
    gland = geometry.to_lps_mm(np.argwhere(truth.gland & ~truth.lesion).astype(float))
    t2 = [np.median(nearest(clean_study, SeriesKind.T2_AXIAL, 0, where)) for where in (lesion, gland)]
    adc = [np.median(nearest(clean_study, SeriesKind.ADC, 0, where)) for where in (lesion, gland)]
    high_b = [np.median(nearest(clean_study, SeriesKind.DWI, 3, where)) for where in (lesion, gland)]
    assert t2[0] < 0.8 * t2[1]
    assert 650 < adc[0] < 1050
    assert 1300 < adc[1] < 1800
    assert high_b[0] > 1.4 * high_b[1]


def test_truth_lies_on_the_images(clean_study: SimulatedStudy) -> None:
    truth, geometry = clean_study.truth, clean_study.of(SeriesKind.T2_AXIAL).geometry
    assert np.all(truth.gland[truth.lesion])
    centroid = geometry.to_lps_mm(np.argwhere(truth.lesion).mean(axis=0)[None])[0]
    weights = [lesion.volume_ml for lesion in truth.lesions]
    expected = np.average([lesion.centroid_lps_mm for lesion in truth.lesions], axis=0, weights=weights)
    np.testing.assert_allclose(centroid, expected, atol=1.0)
    assert truth.gland.sum() * geometry.voxel_volume_ml == pytest.approx(truth.gland_volume_ml, rel=0.05)


def test_high_b_is_brightest_where_the_truth_says(clean_study: SimulatedStudy) -> None:
    series = clean_study.of(SeriesKind.DWI)
    centre = np.rint(series.geometry.to_index(np.array([clean_study.truth.lesions[0].centroid_lps_mm]))).astype(int)[0]
    one_slice = series.pixels[3, centre[0]].astype(float)
    row, column = np.mgrid[: one_slice.shape[0], : one_slice.shape[1]]
    near = np.hypot(row - centre[1], column - centre[2]) * series.protocol.pixel_spacing_mm < 12
    brightest = np.argwhere(near & (one_slice > 0.8 * one_slice[near].max())).mean(axis=0)
    distance_mm = np.linalg.norm(brightest - centre[1:]) * series.protocol.pixel_spacing_mm
    assert distance_mm < 4.0


@pytest.mark.parametrize("seed", range(6))
def test_anatomies_are_plausible_and_differ(seed: int) -> None:
    anatomy = random_anatomy(seed, spacing_mm=COARSE_MM)
    voxel_ml = float(np.prod(anatomy.spacing_mm)) / 1000
    gland_ml, lesion_ml = anatomy.gland.sum() * voxel_ml, anatomy.lesion.sum() * voxel_ml
    assert 0.8 * GLAND_VOLUME_RANGE_ML[0] < gland_ml < 1.25 * GLAND_VOLUME_RANGE_ML[1]
    assert 0.3 < lesion_ml < 6.5
    present = set(np.unique(anatomy.labels))
    assert present >= {int(tissue) for tissue in Tissue} - {Tissue.RECTAL_GAS}
    rotation = anatomy.frame_to_lps[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_lesions_do_not_change_the_rest_of_the_anatomy() -> None:
    with_lesion = random_anatomy(4, spacing_mm=COARSE_MM, lesion_zone=Zone.TRANSITION)
    without = random_anatomy(4, with_lesion=False, spacing_mm=COARSE_MM)
    changed = with_lesion.labels != without.labels
    assert changed.any()
    np.testing.assert_array_equal(changed, with_lesion.lesion)
    assert not np.isin(without.labels[changed], (Tissue.PERIPHERAL_ZONE, Tissue.LESION)).any()


def test_every_tissue_has_properties() -> None:
    assert set(PROPERTIES) == set(Tissue)


def test_the_adc_fit_inverts_the_decay() -> None:
    b_values = (50.0, 400.0, 800.0)
    adc = np.array([[[400.0, 800.0, 1500.0, 3000.0]]], np.float32)
    images = np.stack([0.7 * np.exp(-b * adc * 1e-6) for b in b_values]).astype(np.float32)
    np.testing.assert_allclose(fit_adc(images, b_values, 0.05), adc, rtol=1e-3)
    assert fit_adc(images, b_values, 2.0).max() == 0
    with pytest.raises(ValueError, match="two different b-values"):
        fit_adc(images[:1], (50.0,), 0.05)


def test_motion_ruins_the_t2_and_spares_the_diffusion(
    clean_study: SimulatedStudy, protocols: tuple[Protocol, ...]
) -> None:
    ruined = simulate_study(3, "motion", 5, protocols=protocols, spacing_mm=COARSE_MM)
    gland = clean_study.truth.gland
    clean, moved = (study.of(SeriesKind.T2_AXIAL).pixels[0][gland].astype(float) for study in (clean_study, ruined))
    assert np.corrcoef(clean, moved)[0, 1] < 0.75
    for kind in (SeriesKind.DWI, SeriesKind.ADC):
        np.testing.assert_array_equal(ruined.of(kind).pixels, clean_study.of(kind).pixels)


def test_gas_distorts_the_diffusion_more_with_severity(protocols: tuple[Protocol, ...]) -> None:
    only = [replace(one, slices=6, slice_thickness_mm=6.0) for one in protocols if one.plane == "axial"]
    still, mild, strong = (
        simulate_study(3, "distortion", severity, protocols=only, spacing_mm=COARSE_MM, series=hit)
        .of(SeriesKind.DWI)
        .pixels[0]
        .astype(float)
        for severity, hit in ((5, ()), (1, None), (5, None))
    )
    assert np.abs(strong - still).mean() > 2 * np.abs(mild - still).mean() > 0


def test_truth_is_written(clean_study: SimulatedStudy, tmp_path: Path) -> None:
    document = json.loads(clean_study.write_truth(tmp_path).read_text())
    assert document["artifact"] is None
    assert document["lesions"][0]["volume_ml"] == pytest.approx(clean_study.truth.lesions[0].volume_ml, abs=1e-3)


def test_refusals(protocols: tuple[Protocol, ...]) -> None:
    with pytest.raises(ValueError, match="unknown artefact 'rust'"):
        simulate_study(1, "rust", protocols=protocols)
    with pytest.raises(ValueError, match=r"0\.\.5"):
        simulate_study(1, "noise", 6, protocols=protocols)
    with pytest.raises(ValueError, match="does not happen in"):
        simulate_study(1, "distortion", 2, series=[SeriesKind.T2_AXIAL], protocols=protocols)
    with pytest.raises(ValueError, match="axial T2"):
        simulate_study(1, protocols=[DWI])
    with pytest.raises(ValueError, match="seed"):
        simulate_study(-1, protocols=[T2_AXIAL])
