"""Signs of motion in one slice: gradients spread out, and structure repeated along the phase-encoding axis.

Motion between echo trains spreads every edge along the phase axis. Gradient entropy is the autofocusing criterion of
McGee et al., J Magn Reson Imaging 2000;11:174, gradient concentration the same idea by moments. The phase correlation
ratio compares the long-range autocorrelation of local detail along phase with that along frequency: anatomy repeats
itself equally in both, ghosts only along phase.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

GRADIENT_SMOOTHING_MM = 0.6
"""SD of the Gaussian before the gradient: below the resolution asked for, enough to keep noise from dominating."""

DETAIL_PIXELS = 4.0
ENVELOPE_PIXELS = 8.0
ENVELOPE_FLOOR = 0.02
"""Local detail is the image less its Gaussian average (SD 4 pixels), divided by its own local level (SD 8 pixels) plus
2 % of the median, so that bright fat and a coil's hot spot do not rule the correlation."""

TRUNCATE_SDS = 3.0
"""Reach of these Gaussians: they only divide slow from fast, and their tails cost more than they change."""

SHORTEST_LAG_MM = 8.0
"""Lags below are the anatomy's own texture."""

LONGEST_LAG_FRACTION = 2.0 / 3.0
"""Lags beyond this part of the box have too few pairs."""


def gradient_magnitude(box: NDArray[np.float64], spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Gradient magnitude per mm of ``[row, column]`` after a smoothing of GRADIENT_SMOOTHING_MM."""
    smooth = ndimage.gaussian_filter(box, [GRADIENT_SMOOTHING_MM / step for step in spacing_mm])
    down, across = np.gradient(smooth, *spacing_mm)
    return np.sqrt(down**2 + across**2)


def gradient_concentration(magnitude: NDArray[np.float64]) -> float | None:
    """Root mean square over mean of the gradient magnitude: 1 flat, higher for few clear edges.

    Pure noise gives 1.13 (Rayleigh). None for a flat image.
    """
    mean = float(magnitude.mean())
    return float(np.sqrt(np.mean(magnitude**2))) / mean if mean > 0 else None


def gradient_entropy(magnitude: NDArray[np.float64]) -> float | None:
    """Entropy of the gradient magnitude as a share of the image, over its largest value log(pixels): 0 to 1.

    1 where every pixel has the same gradient; motion spreads edges and raises it. None for a flat image.
    """
    total = float(magnitude.sum())
    if total <= 0:
        return None
    share = magnitude[magnitude > 0] / total
    return float(-np.sum(share * np.log(share)) / np.log(magnitude.size))


def local_detail(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """High-pass of ``[row, column]`` divided by its local level: zero mean, similar power everywhere."""
    detail = box - ndimage.gaussian_filter(box, DETAIL_PIXELS, truncate=TRUNCATE_SDS)
    level = ndimage.gaussian_filter(np.abs(detail), ENVELOPE_PIXELS, truncate=TRUNCATE_SDS)
    level += ENVELOPE_FLOOR * np.median(np.abs(box))
    return np.divide(detail, level, out=np.zeros_like(detail), where=level > 0)


def autocorrelation(detail: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Unbiased autocorrelation along ``axis``, summed over the other axis, 1 at lag 0; zeros for an empty image."""
    count = detail.shape[axis]
    padded = fft.next_fast_len(2 * count, real=True)
    lines = fft.rfft(detail, padded, axis=axis)
    power = (lines.real**2 + lines.imag**2).sum(axis=1 - axis)
    raw = fft.irfft(power, padded)[:count]
    if raw[0] <= 0:
        return np.zeros(count)
    return raw / raw[0] * count / (count - np.arange(count))


def phase_correlation_ratio(
    detail: NDArray[np.float64], spacing_mm: tuple[float, float], phase_axis: int
) -> float | None:
    """Root mean square of the autocorrelation beyond SHORTEST_LAG_MM along phase over that along frequency.

    About 1 without ghosts. ``detail`` is the local detail of the central box. None where it is too small or flat.
    """
    tails = []
    for axis in (phase_axis, 1 - phase_axis):
        first = int(np.ceil(SHORTEST_LAG_MM / spacing_mm[axis]))
        last = int(detail.shape[axis] * LONGEST_LAG_FRACTION)
        if last - first < 8:
            return None
        tails.append(autocorrelation(detail, axis)[first:last])
    phase, frequency = (float(np.sqrt(np.mean(tail**2))) for tail in tails)
    return phase / frequency if frequency > 0 else None
