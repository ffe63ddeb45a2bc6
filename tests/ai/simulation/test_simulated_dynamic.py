"""Dynamic series: frames that move and frames that take too long."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ai.simulation.artifacts.dynamic import DYNAMIC_ARTIFACTS, FRAME_STRETCH, DynamicSeries
from ai.simulation.dynamic_contrast import (
    HAEMATOCRIT,
    KINETICS,
    arterial_blood_mm,
    signal_by_label,
    tissue_mm,
)
from ai.simulation.export import series_datasets
from ai.simulation.protocol import DCE, SeriesKind
from ai.simulation.study import SimulatedStudy, simulate_study
from ai.simulation.tissues import Tissue
from ai.volumes.assemble import assemble
from ai.volumes.types import Role
from tests.ai.simulation.conftest import COARSE_MM, small_protocols
from tests.ai.simulation.phantoms import disc

FRAMES = 24


def enhancing(phase_axis: int = 2) -> DynamicSeries:
    """A spot that lights up after a quarter of the scan, on tissue that does not."""
    uptake = 1 - np.exp(-np.maximum(np.arange(FRAMES) - FRAMES / 4, 0) / 4)
    still, spot = 1.0 * disc((0, 0), 25, 3), disc((5, -12), 5, 3)
    frames = still + uptake[:, None, None, None] * spot
    return DynamicSeries(frames.astype(np.float32), 7.0, (3.0, 1.5, 1.5), phase_axis)


def test_the_first_frame_stays_and_the_others_move() -> None:
    series = enhancing()
    moved = DYNAMIC_ARTIFACTS["frame-motion"](series, 3, seed=1)
    np.testing.assert_allclose(moved.frames[0], series.frames[0], atol=1e-6)
    assert np.abs(moved.frames - series.frames).max(axis=(1, 2, 3))[1:].min() > 1e-3


def test_frames_that_move_are_as_noisy_as_the_first() -> None:
    noise = np.random.default_rng(0).normal(10, 1, (FRAMES, 3, 64, 64)).astype(np.float32)
    moved = DYNAMIC_ARTIFACTS["frame-motion"](replace(enhancing(), frames=noise), 3, seed=1).frames
    in_plane = np.diff(moved, axis=-1).std(axis=(1, 2, 3))
    assert in_plane[1:].mean() > 0.8 * in_plane[0]


def test_frames_that_move_keep_their_shape() -> None:
    series = replace(enhancing(), frames=np.repeat(disc((0, 0), 9, 3)[None], FRAMES, axis=0))
    moved = DYNAMIC_ARTIFACTS["frame-motion"](series, 4, seed=2).frames
    row, column = np.mgrid[:96, :96]
    for frame in moved[::6, 1]:
        centre = (frame * row).sum() / frame.sum(), (frame * column).sum() / frame.sum()
        width = np.sqrt((frame * ((row - centre[0]) ** 2 + (column - centre[1]) ** 2)).sum() / frame.sum())
        assert width == pytest.approx(9.0, rel=0.03)


@pytest.mark.parametrize("phase_axis", [1, 2])
def test_a_slow_frame_has_the_lines_of_each_moment(phase_axis: int) -> None:
    rising = disc((5, -12), 5, 3) * np.arange(1, FRAMES + 1, dtype=np.float32)[:, None, None, None]
    series = replace(enhancing(phase_axis), frames=rising)
    slow = DYNAMIC_ARTIFACTS["low-temporal-resolution"](series, 3, seed=0).frames
    stretch = FRAME_STRETCH[2]
    changes = [index for index in range(1, FRAMES) if not np.array_equal(slow[index], slow[index - 1])]
    assert changes == [int(np.ceil(frame * stretch)) - 1 for frame in range(2, int(FRAMES / stretch) + 1)]
    for frame, first in enumerate(changes, start=1):
        # the mean of an image is its central line, acquired half a frame after its start
        assert slow[first].mean() == pytest.approx(rising[int((frame + 0.5) * stretch)].mean(), rel=0.03)


@pytest.mark.parametrize("name", sorted(DYNAMIC_ARTIFACTS))
def test_damage_grows_with_severity_and_repeats_with_its_seed(name: str) -> None:
    series, artifact = enhancing(), DYNAMIC_ARTIFACTS[name]
    damage = []
    for severity in (0, 0.5, 1, 2, 3, 4, 5):
        frames = artifact(series, severity, seed=3).frames
        assert frames.shape == series.frames.shape
        np.testing.assert_array_equal(frames, artifact(series, severity, seed=3).frames)
        damage.append(float(np.sqrt(((frames - series.frames) ** 2).mean())))
    assert damage[0] == 0
    assert all(later > earlier for earlier, later in pairwise(damage)), damage


def test_refusals() -> None:
    with pytest.raises(ValueError, match="severity of frame-motion"):
        DYNAMIC_ARTIFACTS["frame-motion"](enhancing(), 5.5, seed=0)


def test_arterial_input_is_that_of_parker() -> None:
    seconds = np.arange(-20.0, 300.0, 0.25)
    blood = arterial_blood_mm(seconds)
    assert blood.max() == pytest.approx(6.0, abs=0.2)
    assert seconds[blood.argmax()] == pytest.approx(10.2, abs=0.5)
    assert not blood[seconds <= 0].any()
    assert blood[-1] == pytest.approx(1.05 * np.exp(-0.1685 * seconds[-1] / 60), rel=0.01)


def test_tofts_model_has_its_limits() -> None:
    seconds = np.arange(0.0, 120.0, 0.5)
    plasma = arterial_blood_mm(seconds) / (1 - HAEMATOCRIT)
    slow = tissue_mm(seconds, 1e-4, 1.0)  # nothing washes out: the integral of the plasma
    np.testing.assert_allclose(slow[-1], 1e-4 * plasma.sum() * 0.5 / 60, rtol=0.01)
    late = np.array([1200.0])
    fast = tissue_mm(late, 5.0, 0.3)[0]  # in equilibrium: follows the plasma
    assert fast == pytest.approx(0.3 * arterial_blood_mm(late)[0] / (1 - HAEMATOCRIT), rel=0.03)


def test_cancer_enhances_earlier_and_more_than_its_surroundings_and_washes_out() -> None:
    signal = signal_by_label(DCE)
    relative = signal / np.maximum(signal[:1], 1e-9)
    early = 4
    assert relative[early, Tissue.LESION] > 1.4 * relative[early, Tissue.PERIPHERAL_ZONE]
    assert relative[:, Tissue.LESION].argmax() < len(signal) // 2
    assert relative[-1, Tissue.LESION] < 0.95 * relative[:, Tissue.LESION].max()
    assert relative[:, Tissue.PERIPHERAL_ZONE].argmax() == len(signal) - 1
    assert set(KINETICS) < set(Tissue)
    np.testing.assert_allclose(relative[:, Tissue.URINE], 1)


SMALL_DCE = replace(
    DCE,
    slices=10,
    slice_thickness_mm=6.0,
    matrix=64,
    frequency_samples=64,
    phase_lines=56,
    averages=(1,) * 8,
    frame_s=12.0,
)


@pytest.fixture(scope="module")
def dynamic_study() -> SimulatedStudy:
    return simulate_study(3, protocols=(small_protocols()[1], SMALL_DCE), spacing_mm=COARSE_MM)


def test_a_dynamic_series_is_recognised(dynamic_study: SimulatedStudy) -> None:
    series = dynamic_study.of(SeriesKind.DCE)
    assert series.pixels.shape == (8, 10, 64, 64)
    stacks = assemble(series_datasets(dynamic_study, series)).stacks
    assert [one.role for one in stacks] == [Role.DCE] * 8
    assert sorted(one.stack.acquisition.temporal_position for one in stacks) == list(range(1, 9))


def test_a_study_can_have_an_artefact_in_its_dynamic_series_alone(dynamic_study: SimulatedStudy) -> None:
    protocols = (small_protocols()[1], SMALL_DCE)
    moved = simulate_study(3, "frame-motion", 4, protocols=protocols, spacing_mm=COARSE_MM)
    clean, ruined = dynamic_study.of(SeriesKind.DCE).pixels, moved.of(SeriesKind.DCE).pixels
    np.testing.assert_array_equal(dynamic_study.of(SeriesKind.T2_AXIAL).pixels, moved.of(SeriesKind.T2_AXIAL).pixels)
    assert (clean[1:] != ruined[1:]).mean() > 0.3
    with pytest.raises(ValueError, match="needs a dynamic series"):
        simulate_study(3, "frame-motion", 4, protocols=protocols[:1], spacing_mm=COARSE_MM)
