"""Low signal-to-noise ratio: thermal noise, too few averages, and the noise floor of summed magnitudes.

Nothing is drawn here: the noise itself enters at reconstruction (``ai.simulation.kspace.reconstruct``).
"""

from dataclasses import replace

import numpy as np

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace

NOISE_FACTOR = (2.0, 4.0, 8.0, 14.0, 24.0)
NOISE_FACTOR_ECHO_PLANAR = (1.25, 1.6, 2.4, 4.0, 8.0)
"""Diffusion-weighted images start much nearer to their noise than T2-weighted ones, most of all at a high b-value."""
SHARE_OF_AVERAGES = (0.5, 0.25, 0.1, 0.04, 0.015)
SHARE_OF_AVERAGES_ECHO_PLANAR = (0.7, 0.45, 0.22, 0.1, 0.04)
"""Share of the averages (or of the signal that they stand for) that was acquired."""
COILS = (4, 8)
"""Receive channels summed by root sum of squares: fewest and most."""
FLOOR_NOISE_FACTOR = (1.1, 1.2, 1.3, 1.5, 1.9)
FLOOR_SHARE_OF_CHANNELS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Share of coils x averages that enter as magnitudes; the others are combined in phase and leave no floor."""


def noise_with(kspace: KSpace, factor: float) -> float:
    """Noise of the reconstruction with which a clean scan's typical noise is ``factor`` times as much."""
    return float(np.sqrt(kspace.noise_sd**2 + (factor**2 - 1) * kspace.typical_noise_sd**2))


def noise(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Low signal-to-noise ratio: thermal noise times ``NOISE_FACTOR``, or its echo-planar twin; Rician."""
    factors = NOISE_FACTOR_ECHO_PLANAR if kspace.echo_planar else NOISE_FACTOR
    return replace(kspace, noise_sd=noise_with(kspace, strength(factors, severity, clean=1.0)))


def low_averages(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Too few averages with a coil array combined by root sum of squares: non-central chi noise.

    Noise grows with the root of the averages left out; with ``n`` channels air is at ``sqrt(2 n)`` times its standard
    deviation.
    """
    shares = SHARE_OF_AVERAGES_ECHO_PLANAR if kspace.echo_planar else SHARE_OF_AVERAGES
    factor = 1 / np.sqrt(strength(shares, severity, clean=1.0))
    channels = int(rng.integers(COILS[0], COILS[1] + 1))
    return replace(kspace, noise_sd=noise_with(kspace, factor), channels=channels)


def noise_floor(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Magnitudes averaged instead of complex signals: the noise falls with more averages, its floor does not.

    The mean power of ``N`` acquisitions of ``n`` channels is that of ``N n`` channels with the averaged noise. A weak
    signal (high b-value) drowns in the floor, and the ADC computed from it is too low.
    """
    others = int(rng.integers(COILS[0], COILS[1] + 1)) * max(1, kspace.averages) - 1
    factor = strength(FLOOR_NOISE_FACTOR, severity, clean=1.0)
    channels = 1 + others * strength(FLOOR_SHARE_OF_CHANNELS, severity)
    return replace(kspace, noise_sd=noise_with(kspace, factor), channels=channels)
