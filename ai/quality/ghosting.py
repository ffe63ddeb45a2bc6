"""Discrete ghosts along the phase-encoding axis of one slice.

A modulation of every p-th k-space line puts copies of the object at multiples of FOV/p (p = 2: the Nyquist ghost of
echo-planar imaging). Where there is air beside the body the ghost ratio of the ACR phantom manual is taken; without
air, the autocorrelation peak at exactly FOV/p.
"""

import numpy as np
from numpy.typing import NDArray

from ai.quality.motion import autocorrelation, local_detail
from ai.quality.noise import MINIMUM_PIXELS, foreground

PERIODS = (2, 3, 4)
"""Line periods looked at: Nyquist, and segmented or interleaved acquisitions."""

NEIGHBOUR_PIXELS = range(3, 8)
"""Lags beside the expected one whose correlation is the anatomy's and is subtracted."""

AIR_BORDER_FRACTION = 0.06
"""Outer part of the field of view that holds zero-filled borders."""


def ghost_prominence(image: NDArray[np.float64], phase_axis: int) -> float | None:
    """Highest excess of the autocorrelation along phase at FOV/p over its neighbourhood, of the whole slice.

    0 without ghosts, up to 1 for a full copy. None where the image is too small.
    """
    count = image.shape[phase_axis]
    if min(image.shape) < 32:
        return None
    correlation = autocorrelation(local_detail(image), phase_axis)
    excess = 0.0
    for period in PERIODS:
        lag = round(count / period)
        at = np.abs(correlation[lag - 1 : lag + 2]).max()
        beside = np.abs([correlation[lag + sign * step] for step in NEIGHBOUR_PIXELS for sign in (-1, 1)]).max()
        excess = max(excess, float(at - beside))
    return excess


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
