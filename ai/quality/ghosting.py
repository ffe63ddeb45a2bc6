"""Discrete ghosts along the phase-encoding axis of one slice.

A modulation of every p-th k-space line puts copies of the object at multiples of FOV/p (p = 2: the Nyquist ghost of
echo-planar imaging). Without air they show as a sharp peak of the autocorrelation along phase; where there is air
beside the body, the ghosting ratio of the ACR phantom manual is reported too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.quality.motion import autocorrelation
from ai.quality.noise import MINIMUM_PIXELS, foreground

SHORTEST_LAG_MM = 8.0
LONGEST_LAG_FRACTION = 2.0 / 3.0
"""Lags looked at: beyond the anatomy's own texture, up to where too few pairs are left."""

PEAK_PIXELS = 1
NEIGHBOUR_PIXELS = (3, 7)
"""A ghost is a peak of three lags; the correlation three to seven lags beside it is the anatomy's and is subtracted."""

NYQUIST_PIXELS = 2
"""Lags beside half the field of view that still count as it: ghosts of a moving or distorted object are displaced."""

AIR_BORDER_FRACTION = 0.06
"""Outer part of the field of view that holds zero-filled borders."""


@dataclass(frozen=True)
class Repetition:
    """Excess of the absolute autocorrelation over its neighbourhood, per lag in pixels along one axis.

    ``first`` and ``last`` bound the lags that are looked at.
    """

    excess: NDArray[np.float64]
    first: int
    last: int

    @property
    def sharpest(self) -> float:
        """Highest excess at any lag looked at."""
        return float(np.max(self.excess[self.first : self.last]))

    def around(self, lag: int) -> float:
        """Highest excess within NYQUIST_PIXELS of a lag."""
        return float(np.max(self.excess[lag - NYQUIST_PIXELS : lag + NYQUIST_PIXELS + 1]))


def repetition(detail: NDArray[np.float64], step_mm: float, axis: int) -> Repetition | None:
    """How ``detail`` (``ai.quality.motion.local_detail`` of a whole slice) repeats itself along ``axis``.

    None where the image is too small.
    """
    count = detail.shape[axis]
    nearest, farthest = NEIGHBOUR_PIXELS
    first = int(np.ceil(SHORTEST_LAG_MM / step_mm))
    last = min(int(count * LONGEST_LAG_FRACTION), count - farthest - 1)
    if last - first < farthest:
        return None
    correlation = np.abs(autocorrelation(detail, axis))
    peak = ndimage.maximum_filter1d(correlation, 2 * PEAK_PIXELS + 1)
    beside = ndimage.maximum_filter1d(correlation, farthest - nearest + 1)
    centre = (nearest + farthest) // 2
    neighbour = np.maximum(np.roll(beside, centre), np.roll(beside, -centre))
    return Repetition(peak - neighbour, first, last)


def ghost_prominence(phase: Repetition, frequency: Repetition) -> float:
    """Sharpest peak of the autocorrelation of local detail along phase, less that along frequency, of a whole slice.

    Anatomy that happens to repeat itself does so along both axes; a ghost only along phase. About 0.01 without ghosts,
    up to 1 for a full copy, never negative. The lag is free, because phase oversampling moves the ghost of FOV/p by a
    factor that no header tells.
    """
    return max(0.0, phase.sharpest - max(0.0, frequency.sharpest))


def nyquist_ghost(phase: Repetition, frequency: Repetition) -> float | None:
    """Peak of the autocorrelation at half the field of view along phase, less that along frequency; never negative.

    Alternating lines of echo-planar imaging that differ put a ghost there (Bruder et al., Magn Reson Med 1992;23:311).
    None where half the field of view is no lag looked at.
    """
    peaks = []
    for axis in (phase, frequency):
        lag = axis.excess.size // 2
        if not axis.first <= lag - NYQUIST_PIXELS <= lag + NYQUIST_PIXELS < axis.last:
            return None
        peaks.append(axis.around(lag))
    return max(0.0, peaks[0] - max(0.0, peaks[1]))


def air_ghost_ratio(image: NDArray[np.float64], phase_axis: int) -> tuple[float | None, str]:
    """Signal in the air beside the body along phase less that along frequency, over the tissue's; and why not.

    ACR phantom manual, ghosting ratio: ``|mean(phase air) - mean(frequency air)| / (2 mean(tissue))``. Air is the outer
    band of the field of view on both sides of each axis, where it holds no tissue and is not zero-filled.
    """
    tissue = foreground(image)
    if tissue.sum() < MINIMUM_PIXELS:
        return None, "too little tissue"
    means = []
    for axis in (phase_axis, 1 - phase_axis):
        band = _outer_band(image.shape, axis)
        usable = band & ~tissue & (image != 0)
        if usable.sum() < max(MINIMUM_PIXELS, 0.5 * band.sum()):
            return None, "no air beside the body along " + ("phase" if axis == phase_axis else "frequency")
        means.append(float(image[usable].mean()))
    return abs(means[0] - means[1]) / (2.0 * float(image[tissue].mean())), ""


def _outer_band(shape: tuple[int, ...], axis: int) -> NDArray[np.bool_]:
    """Both strips at the ends of ``axis`` over the middle of the other axis."""
    band = np.zeros(shape, dtype=bool)
    size, other = shape[axis], shape[1 - axis]
    width, start, stop = max(2, int(size * AIR_BORDER_FRACTION)), other // 4, other - other // 4
    for strip in (slice(0, width), slice(size - width, size)):
        index = [slice(start, stop), slice(start, stop)]
        index[axis] = strip
        band[tuple(index)] = True
    return band
