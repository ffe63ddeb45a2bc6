"""The power spectrum of one slice: fall-off, share of high frequencies, direction, and single outlying samples.

Natural images fall off as a power of the spatial frequency (Field, J Opt Soc Am A 1987;4:2379; van der Schaaf and
van Hateren, Vision Res 1996;36:2759): noise flattens the fall-off, blur steepens it, blur or ghosts of one axis make it
depend on direction. A spike in k-space is one sample far above its neighbours (Foo et al., Med Phys 1994;21:1159).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

SLOPE_BAND = (0.1, 0.8)
"""Part of the Nyquist frequency over which the fall-off is fitted: below is the window's own leakage and the anatomy's
outline, above are the corners and the scanner's filter."""

RINGS = 12
"""Rings of equal width in the logarithm of the frequency that the fall-off is fitted to."""

HIGH_FREQUENCY = 0.5
"""Part of the Nyquist frequency above which a frequency counts as high."""

LOWEST_FREQUENCY = 0.05
"""Part of the Nyquist frequency below which nothing is counted: the mean and what the window makes of it."""

WEDGE_COSINE = float(np.cos(np.pi / 6.0))
"""A frequency belongs to an axis when it lies within 30 degrees of it."""

SPIKE_NEIGHBOURHOOD = 11
SPIKE_CORE = 5
"""A spike is compared with the samples of an 11 x 11 neighbourhood without its middle 5 x 5, into which the window
smears it. A local reference follows the spectrum's direction, which one radial median does not."""

SPIKE_MINIMUM_FREQUENCY = 0.1
"""Part of the Nyquist frequency within which no spike is looked for: the anatomy's own peaks are there."""


@dataclass(frozen=True)
class Spectrum:
    """Power of the windowed slice over half of the Fourier plane, ``[row frequency, column frequency >= 0]``.

    ``shape`` is the image's. The image's mean was taken away before the window.
    """

    power: NDArray[np.float64]
    shape: tuple[int, int]


@dataclass(frozen=True)
class _Plane:
    """Frequencies of a half plane: radius (1 at the Nyquist frequency of the finer axis at most), weights, wedges."""

    radius: NDArray[np.float64]
    weight: NDArray[np.float64]
    ring: NDArray[np.intp]
    along: tuple[NDArray[np.bool_], NDArray[np.bool_]]


def power_spectrum(image: NDArray[np.float64]) -> Spectrum:
    """Spectrum of ``[row, column]`` under a Hann window, which keeps the image's borders out of it."""
    window = _window(image.shape[0])[:, None] * _window(image.shape[1])[None, :]
    lines = fft.rfft2((image - image.mean()) * window)
    return Spectrum(lines.real**2 + lines.imag**2, (image.shape[0], image.shape[1]))


def high_frequency_share(spectrum: Spectrum) -> float | None:
    """Share of the power above HIGH_FREQUENCY, 0 to 1; white noise gives about 0.75. None for a flat image."""
    plane = _plane(spectrum.shape)
    weighted = spectrum.power * plane.weight
    counted = float(weighted[plane.radius >= LOWEST_FREQUENCY].sum())
    return float(weighted[plane.radius > HIGH_FREQUENCY].sum()) / counted if counted > 0 else None


def spectral_slope(spectrum: Spectrum) -> float | None:
    """Exponent of the fall-off of radial mean power with frequency: 0 for white noise, about -2 to -4 for tissue.

    None where a ring holds no power.
    """
    plane = _plane(spectrum.shape)
    inside = plane.ring >= 0
    weight = plane.weight[inside]
    rings = plane.ring[inside]
    count = np.bincount(rings, weight, RINGS)
    power = np.bincount(rings, weight * spectrum.power[inside], RINGS)
    position = np.bincount(rings, weight * np.log(plane.radius[inside]), RINGS)
    if np.any(power <= 0) or np.any(count <= 0):
        return None
    # The outer rings hold most samples: each counts by its number.
    return float(np.polyfit(position / count, np.log(power / count), 1, w=np.sqrt(count))[0])


def spectral_anisotropy(spectrum: Spectrum, phase_axis: int) -> float | None:
    """Log of mean high-frequency power along the phase axis over that along the frequency axis; 0 where equal.

    Blur by T2 decay or few phase lines makes it negative, ghosts and motion between echo trains positive. The
    frequencies are relative to each axis' own Nyquist frequency. None where an axis holds no power.
    """
    plane = _plane(spectrum.shape)
    means = []
    for axis in (phase_axis, 1 - phase_axis):
        wedge = plane.along[axis]
        means.append(float(np.sum(spectrum.power[wedge] * plane.weight[wedge]) / np.sum(plane.weight[wedge])))
    return float(np.log(means[0] / means[1])) if min(means) > 0 else None


def spike_ratio(spectrum: Spectrum) -> float | None:
    """Largest amplitude off the centre of k-space over the root mean square of its surroundings.

    White noise gives about 3 to 4 (largest of many Rayleigh variables). None for a flat image or one too small.
    """
    plane = _plane(spectrum.shape)
    if min(spectrum.power.shape) < SPIKE_NEIGHBOURHOOD:
        return None
    # Rows wrap around; beyond the zero column lies the mirrored half, beyond the last column the plane repeats.
    wide = ndimage.uniform_filter(spectrum.power, SPIKE_NEIGHBOURHOOD, mode=("wrap", "nearest"))
    core = ndimage.uniform_filter(spectrum.power, SPIKE_CORE, mode=("wrap", "nearest"))
    areas = SPIKE_NEIGHBOURHOOD**2, SPIKE_CORE**2
    around = (wide * areas[0] - core * areas[1]) / (areas[0] - areas[1])
    floor = np.finfo(float).eps * float(spectrum.power.max())
    looked_at = (plane.radius > SPIKE_MINIMUM_FREQUENCY) & (around > floor)
    if not looked_at.any():
        return None
    return float(np.sqrt(np.max(spectrum.power[looked_at] / around[looked_at])))


@lru_cache(maxsize=32)
def _window(count: int) -> NDArray[np.float64]:
    return np.hanning(count + 2)[1:-1]


@lru_cache(maxsize=32)
def _plane(shape: tuple[int, int]) -> _Plane:
    rows, columns = shape
    down = 2.0 * np.fft.fftfreq(rows)[:, None]
    across = 2.0 * np.fft.rfftfreq(columns)[None, :]
    radius = np.hypot(down, across)
    # Every column but the first (and the last of an even count) stands for its mirror image too.
    weight = np.full(radius.shape, 2.0)
    weight[:, 0] = 1.0
    if columns % 2 == 0:
        weight[:, -1] = 1.0
    edges = np.geomspace(*SLOPE_BAND, RINGS + 1)
    ring = np.where((radius >= edges[0]) & (radius < edges[-1]), np.searchsorted(edges, radius, side="right") - 1, -1)
    high = (radius > HIGH_FREQUENCY) & (radius <= 1.0)
    wedges = np.abs(down) >= WEDGE_COSINE * radius, across >= WEDGE_COSINE * radius
    return _Plane(radius, weight, ring, (high & wedges[0], high & wedges[1]))
