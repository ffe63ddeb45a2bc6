"""Any magnitude series degraded: the round trip is exact, slices do not depend on each other, headers decide."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.evaluation.simulated import MemorySource
from ai.simulation.artifacts import ARTIFACTS
from ai.simulation.artifacts.noise import NOISE_FACTOR
from ai.simulation.export import series_datasets
from ai.simulation.fat_estimate import fat_of_suppressed
from ai.simulation.gas_pocket import GasPocket, pocket_maps
from ai.simulation.off_resonance import GAS_MINUS_TISSUE_PPM
from ai.simulation.protocol import SeriesKind
from ai.simulation.study import SimulatedStudy
from ai.simulation.substrate import (
    TYPICAL_NOISE_OF_TISSUE,
    Substrate,
    degrade,
    degrade_many,
    degraded_adc,
    raw_data,
    substrate_of,
)
from ai.volumes.assemble import assemble
from ai.volumes.load import load_volume
from ai.volumes.types import Role, Volume
from tests.ai.simulation.phantoms import disc


def substrate(kind: SeriesKind = SeriesKind.T2_AXIAL, slices: int = 5, **changes: object) -> Substrate:
    """Bright shapes on tissue in a dark frame, 2 mm pixels, phase along rows of the image."""
    pixels = 20 + 80 * (disc((0, 0), 30, slices) > 0.3) + 60 * disc((4, -9), 9, slices) + 90 * disc((-8, 12), 3, slices)
    pixels *= np.linspace(0.8, 1.2, slices, dtype=np.float32)[:, None, None]
    made = Substrate(
        name="phantom",
        patient="nobody",
        vendor="none",
        kind=kind,
        pixels=pixels.astype(np.float32),
        spacing_mm=(3.0, 2.0, 2.0),
        acquired=(96, 80),
        phase_axis=2,
        echo_train_length=12,
        echo_spacing_ms=0.5 if kind == SeriesKind.DWI else 10.0,
        averages=4,
        b_value=800.0 if kind == SeriesKind.DWI else 0.0,
    )
    return replace(made, **changes)


def kind_for(artifact: str) -> SeriesKind:
    return SeriesKind.DWI if SeriesKind.DWI in ARTIFACTS[artifact].applies_to else SeriesKind.T2_AXIAL


def volumes(study: SimulatedStudy, kind: SeriesKind) -> list[tuple[Volume, str]]:
    """The volumes of an exported series, with their roles."""
    datasets = series_datasets(study, study.of(kind))
    frames = MemorySource({str(one.SOPInstanceUID): one.pixel_array.astype(np.float32) for one in datasets})
    return [(load_volume(one.stack, frames), one.role) for one in assemble(datasets).stacks]


def test_the_clean_reference_is_the_series_where_everything_stored_was_acquired() -> None:
    whole = substrate(acquired=(96, 96))
    np.testing.assert_allclose(degrade(whole, None, 0, seed=4), whole.pixels, atol=1e-3)


def test_the_clean_reference_is_what_the_acquired_matrix_holds() -> None:
    smooth = 100 + 50 * disc((4, -9), 9)
    np.testing.assert_allclose(degrade(substrate(pixels=smooth), None, 0, seed=4), smooth, rtol=1e-3)
    stripes = 20 * np.where(np.arange(96) % 2, 1, -1).astype(np.float32)  # finer than 80 columns resolve
    striped = substrate(pixels=smooth + stripes)
    np.testing.assert_allclose(degrade(striped, None, 0, seed=4), smooth, rtol=0.02)


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_a_slice_comes_out_the_same_whichever_others_are_asked_for(name: str) -> None:
    series = substrate(kind_for(name))
    everything = degrade(series, name, 2.5, seed=6)
    assert everything.shape == series.pixels.shape
    assert everything.dtype == np.float32
    np.testing.assert_array_equal(degrade(series, name, 2.5, seed=6, slices=[4, 1]), everything[[4, 1]])
    assert not np.array_equal(degrade(series, name, 2.5, seed=7, slices=[1]), everything[[1]])


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_damage_starts_at_nothing_and_grows(name: str) -> None:
    series = substrate(kind_for(name))
    damage = []
    for severity in (0, 0.02, 1, 2, 3, 4, 5):
        changed = [
            degrade(series, name, severity, seed, [2]) - degrade(series, None, 0, seed, [2]) for seed in range(3)
        ]
        damage.append(float(np.sqrt(np.mean(np.square(changed))) / series.tissue_signal))
    assert damage[0] == 0
    assert damage[1] < 0.05
    assert damage == sorted(damage)
    assert damage[5] > 0.02


def test_through_plane_motion_reaches_a_slice_asked_for_alone() -> None:
    pixels = substrate().pixels.copy()
    pixels[2] = 0
    emptied = substrate(pixels=pixels)
    assert degrade(emptied, "motion", 5, seed=1, slices=[2]).max() > 5


def test_noise_is_relative_to_the_tissue_in_the_centre() -> None:
    flat = substrate(pixels=np.full((2, 96, 96), 100, np.float32), acquired=(96, 96))
    assert flat.tissue_signal == 100
    noisy = degrade(flat, "noise", 2, seed=0)
    assert noisy.std() == pytest.approx(
        100 * TYPICAL_NOISE_OF_TISSUE[flat.kind] * np.sqrt(NOISE_FACTOR[1] ** 2 - 1), rel=0.03
    )


def test_tissue_beyond_the_view_is_made_only_for_what_folds_it_in() -> None:
    plain, folding = (raw_data(substrate(), 0, [1], faults) for faults in ([], [ARTIFACTS["wrap"]]))
    assert plain.extent_mm == plain.shown_mm == (192.0, 192.0)
    assert folding.extent_mm == (192.0, 240.0)
    assert (plain.data.shape, folding.data.shape) == ((1, 96, 80), (1, 96, 100))


def test_the_order_of_names_does_not_matter() -> None:
    wanted = [("noise", 2.0), ("motion", 1.5), ("bias", 3.0)]
    series = substrate()
    first, second = (degrade_many(series, order, 3, [2]) for order in (wanted, wanted[::-1]))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(degrade_many(series, [*wanted, ("blur", 0)], 3, [2]), first)
    for left_out in range(3):
        fewer = [one for index, one in enumerate(wanted) if index != left_out]
        assert not np.array_equal(degrade_many(series, fewer, 3, [2]), first)


@given(
    st.lists(st.sampled_from(sorted(ARTIFACTS)), min_size=2, max_size=4, unique=True).filter(
        lambda names: len({kind_for(name) for name in names}) == 1
    ),
    st.integers(0, 100),
)
@settings(max_examples=20, deadline=None)
def test_any_artefacts_of_a_series_go_together(names: list[str], seed: int) -> None:
    series = substrate(kind_for(names[0]), slices=3)
    image = degrade_many(series, [(name, 2.0) for name in names], seed, [0])
    assert image.shape == (1, 96, 96)
    assert np.isfinite(image).all()
    assert image.min() >= 0


def test_adc_is_fitted_to_the_degraded_images() -> None:
    adc = 1500e-6
    flat = np.full((2, 96, 96), 200, np.float32)
    series = [
        substrate(SeriesKind.DWI, pixels=flat * np.float32(np.exp(-b * adc)), acquired=(96, 96), b_value=b)
        for b in (800.0, 50.0, 400.0)
    ]
    np.testing.assert_allclose(degraded_adc(series, [], seed=0), 1500, rtol=1e-3)
    floored = degraded_adc(series, [("noise-floor", 4)], seed=0, slices=[1])
    assert floored.shape == (1, 96, 96)
    assert floored.mean() < 1300  # the floor holds the high b-value up


def test_simulated_series_are_substrates(clean_study: SimulatedStudy) -> None:
    ((t2, role),) = volumes(clean_study, SeriesKind.T2_AXIAL)
    made = substrate_of(t2, role, "SIM-3")
    assert (made.kind, made.acquired, made.phase_axis) == (SeriesKind.T2_AXIAL, (128, 96), 2)
    assert made.echo_train_length == 20
    assert made.echo_spacing_ms == pytest.approx(10.4)
    diffusion = [substrate_of(volume, role, "SIM-3") for volume, role in volumes(clean_study, SeriesKind.DWI)]
    assert sorted(one.b_value for one in diffusion) == [50, 400, 800, 1400]
    assert diffusion[0].echo_spacing_ms == pytest.approx(0.36)
    ((adc, role),) = volumes(clean_study, SeriesKind.ADC)
    with pytest.raises(ValueError, match="adc is computed"):
        substrate_of(adc, role, "SIM-3")


def test_a_frame_of_a_dynamic_series_is_a_substrate() -> None:
    frame = substrate(SeriesKind.DCE)
    for name, fault in ARTIFACTS.items():
        if SeriesKind.DCE in fault.applies_to:
            assert not np.array_equal(degrade(frame, name, 3, 1, [2]), degrade(frame, None, 0, 1, [2]))


def test_refusals_say_why(clean_study: SimulatedStudy) -> None:
    ((volume, role),) = volumes(clean_study, SeriesKind.T2_AXIAL)
    silent = replace(volume.stack.acquisition, in_plane_phase_encoding_direction=None)
    with pytest.raises(ValueError, match=r"\(0018,1312\)"):
        substrate_of(replace(volume, stack=replace(volume.stack, acquisition=silent)), role, "")
    for pixels, reason in (
        (np.where(volume.pixels > 100, np.nan, volume.pixels), "missing slices"),
        (volume.pixels - 50, "magnitudes"),
        (volume.pixels * 0, "magnitudes"),
    ):
        with pytest.raises(ValueError, match=reason):
            substrate_of(replace(volume, pixels=pixels.astype(np.float32)), role, "")
    for other in (Role.LOCALIZER, "ct"):
        with pytest.raises(ValueError, match=f"role {other}"):
            substrate_of(volume, other, "")
    with pytest.raises(ValueError, match="unknown artefact 'rust'"):
        degrade(substrate(), "rust", 1, 0)
    with pytest.raises(ValueError, match="eddy does not happen in t2-axial"):
        degrade(substrate(), "eddy", 1, 0)
    with pytest.raises(ValueError, match="twice"):
        degrade_many(substrate(), [("noise", 1), ("noise", 2)], 0)
    with pytest.raises(ValueError, match="severity of noise"):
        degrade(substrate(), "noise", 6, 0)


@pytest.mark.parametrize("along", ["z", "x"])
def test_a_round_pocket_has_the_field_of_a_sphere(along: str) -> None:
    pocket = GasPocket((0.0, 0.0, 0.0), (10.0, 10.0, 10.0))
    field_hz, gas = pocket_maps(pocket, 41, 2.0, (80, 80), (160.0, 160.0), 3.0)
    distance_mm, cosine = 30.0, 1.0 if along == "z" else 0.0
    found = field_hz[20 + 15, 40, 40] if along == "z" else field_hz[20, 40, 40 + 15]
    # Schenck, Med Phys 1996;23:815: outside a sphere chi / 3 (R / r)^3 (3 cos^2 - 1)
    expected = GAS_MINUS_TISSUE_PPM / 3 * (10 / distance_mm) ** 3 * (3 * cosine**2 - 1) * 3.0 * 42.577
    assert found == pytest.approx(expected, rel=0.12)
    assert gas[20, 40, 40] == 1
    assert gas.sum() * 2 * 2 * 2 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.05)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_pocket_lies_behind_the_gland(seed: int) -> None:
    pocket = GasPocket.random(np.random.default_rng(seed))
    _, behind, beside = pocket.centre_mm
    assert 16 <= behind - pocket.semi_axes_mm[1] <= 24
    assert abs(beside) < pocket.semi_axes_mm[2]


def test_fat_is_dark_amid_the_body_and_grows_against_tissue_with_b() -> None:
    image = np.zeros((1, 96, 96), np.float32)
    image[0, 24:72, 24:72] = 100
    image[0, 44:52, 44:52] = 15
    low, high = (fat_of_suppressed(image, 100.0, b, (2.0, 2.0)) for b in (0.0, 1000.0))
    assert low[0, 48, 48] > 100
    assert low[0, 36, 36] == 0
    assert low[0, 4, 4] == 0
    assert high[0, 48, 48] / low[0, 48, 48] == pytest.approx(np.exp(1.2))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "roles", "acquired"),
    [
        ("prostate_prostatex_skyra/ProstateX-0000", {"t2w-axial", "dwi"}, {(384, 384), (128, 84)}),
        ("prostate_philips_erc", {"t2w-axial"}, {(304, 234)}),
    ],
)
def test_real_series_are_degraded_on_their_acquired_matrix(
    shared_data: Path, folder: str, roles: set[str], acquired: set[tuple[int, int]]
) -> None:
    paths = sorted((shared_data / folder).rglob("*.dcm"))
    datasets = [one for one in map(pydicom.dcmread, paths) if one.get("Modality") == "MR"]
    datasets = [one for one in datasets if one.StudyInstanceUID == datasets[0].StudyInstanceUID]
    frames = MemorySource({str(one.SOPInstanceUID): one.pixel_array.astype(np.float32) for one in datasets})
    chosen = [one for one in assemble(datasets).stacks if one.role in roles]
    series = [substrate_of(load_volume(one.stack, frames), one.role, "patient") for one in chosen]
    assert {one.acquired for one in series} == acquired
    for one in series:
        middle = [len(one.pixels) // 2]
        clean = degrade(one, None, 0, 1, middle)
        assert np.abs(clean - one.pixels[middle]).mean() < 0.03 * one.tissue_signal
        for name, fault in ARTIFACTS.items():
            if one.kind in fault.applies_to:
                mild, strong = (degrade(one, name, severity, 1, middle) - clean for severity in (1.0, 4.5))
                assert np.square(strong).mean() > np.square(mild).mean() > 0
