"""Dynamic series: frames that move and frames that take too long."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ai.simulation.artifacts.dynamic import DYNAMIC_ARTIFACTS, FRAME_STRETCH, DynamicSeries
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
