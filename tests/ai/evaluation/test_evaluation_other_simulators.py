"""The artefacts of the other simulators: repeatable, in the image, and graver with severity."""

import numpy as np
import pytest
from scipy import ndimage

from ai.evaluation.other_simulators import CHANGES

SPACING_MM = (3.0, 0.5, 0.5)


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    noise = np.random.default_rng(4).random((5, 64, 64), np.float32)
    smooth = ndimage.gaussian_filter(noise, (1, 2, 2))
    smooth -= smooth.min()
    return (smooth / smooth.max()).astype(np.float32)


@pytest.mark.parametrize("name", CHANGES)
def test_the_same_seed_does_the_same(name: str, volume: np.ndarray) -> None:
    first, again = (CHANGES[name](volume.copy(), SPACING_MM, 2.0, 9) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == volume.shape


@pytest.mark.parametrize("name", CHANGES)
def test_severity_hurts(name: str, volume: np.ndarray) -> None:
    def error(severity: float) -> float:
        seeds = range(6) if name in ("motion", "bias") else range(1)
        changed = [CHANGES[name](volume.copy(), SPACING_MM, severity, seed) for seed in seeds]
        return float(np.mean([np.sqrt(np.mean((one - volume) ** 2)) for one in changed]))

    assert error(1.0) > 0.001
    assert error(4.5) > error(1.0)
