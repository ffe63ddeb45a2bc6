"""Where the prostate is: a training-free region estimate from diffusion (or T2 alone), an ellipsoid, then its outline.

Three steps, all deterministic:

1. *Feature.* With diffusion the feature is the signal the scanner would have shown without diffusion weighting,
   ``S0 = S_b exp(b ADC)`` (Stejskal and Tanner 1965): fat-suppressed and T2-weighted, so the gland shines, muscle and
   fat are dark; free fluid (bladder, gel) is told apart by its ADC. Without diffusion it is the
   closeness of the T2 signal to the level between muscle and fat; weaker, and used for no detection.
2. *Search.* Ellipsoids of anatomical proportions in nine sizes are slid over the pelvis; the best one has the largest
   standardised contrast (Cohen's d) between its inside and a surrounding shell, plus weak log priors on size and
   place. The lateral prior sits on the symmetry axis of the T2 image, the others on the middle of the field of view.
3. *Outline.* A few rounds of two-class classification (robust Gaussians inside and around the current region) with
   the distance to the ellipsoid as prior, so that the outline follows the image near the ellipsoid and nothing else.

The result is a region of interest for candidates, not a segmentation to measure a gland volume with.
"""

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from ai.detection.gland_outline import MAXIMUM_LOG_ODDS, grid_around, outline
from ai.detection.gland_search import find_ellipsoid, symmetry_midline_mm
from ai.detection.patient_grid import patient_grid
from ai.detection.types import Diffusion
from ai.volumes.geometry import crop, index_box, resample, resample_coarser
from ai.volumes.types import Geometry, Volume

MINIMUM_CONTRAST = 0.8
"""Cohen's "large" effect size: with less there is no structure that deserves the name (diffusion)."""

MINIMUM_CONTRAST_T2 = 0.2
"""Cohen's "small" effect size: T2 contrast between gland and surroundings is weak and of mixed sign."""

FREE_FLUID_ADC_UM2_PER_S = 2300.0
"""Above this a voxel is fluid, not gland: normal peripheral zone stays near 1600-2000, water at 37 C is about 3000."""

SEARCH_SPACING_MM = 2.5

SEARCH_HALF_EXTENT_MM = (75.0, 60.0, 60.0)
"""Reach of the search to either side of the field of view's centre along S, P and L."""


def locate_gland(t2: Volume, diffusion: Diffusion | None = None) -> NDArray[np.bool_]:
    """Estimate the prostate region on the T2 grid.

    Args:
        t2: axial T2-weighted volume.
        diffusion: ADC and high-b maps in the same patient space; without them the T2 image alone must do.

    Returns:
        bool ``[slice, row, column]`` on the grid of ``t2``; all False where no gland-like structure stands out.
    """
    region = np.zeros(t2.geometry.shape, bool)
    grid = patient_grid(t2.geometry, SEARCH_SPACING_MM, SEARCH_HALF_EXTENT_MM)
    t2_signal = resample_coarser(t2.pixels, t2.geometry, grid)
    ellipsoid = find_ellipsoid(_feature(t2, diffusion, grid), grid, symmetry_midline_mm(t2_signal, grid))
    least = MINIMUM_CONTRAST_T2 if diffusion is None else MINIMUM_CONTRAST
    if ellipsoid is None or ellipsoid.contrast < least:
        return region
    fine_grid = grid_around(ellipsoid)
    log_odds = outline(_feature(t2, diffusion, fine_grid), fine_grid, ellipsoid)
    box = index_box(t2.geometry, fine_grid)
    target = crop(t2.geometry, box)
    if min(target.shape) > 0:
        region[box] = resample(log_odds, fine_grid, target, 1, -MAXIMUM_LOG_ODDS) > 0
    return region


def _feature(t2: Volume, diffusion: Diffusion | None, grid: Geometry) -> NDArray[np.float32]:
    """What makes the gland bright, in natural logarithms relative to ordinary tissue; NaN outside the images."""
    if diffusion is None:
        return _t2_likeness(resample_coarser(t2.pixels, t2.geometry, grid))
    adc = resample_coarser(diffusion.adc_um2_per_s, diffusion.geometry, grid)
    # Where the signal drowned in noise there is no high b either: that is dark, not unseen, unless a slice is missing.
    imaged = np.isfinite(diffusion.high_b).any(axis=(1, 2), keepdims=True)
    high_b = resample_coarser(np.where(imaged, np.nan_to_num(diffusion.high_b), np.nan), diffusion.geometry, grid)
    return _undiffused_signal(adc, high_b, diffusion.b_s_per_mm2)


def _undiffused_signal(
    adc: NDArray[np.float32], high_b: NDArray[np.float32], b_s_per_mm2: float
) -> NDArray[np.float32]:
    """Log-compressed ``S_b exp(b ADC)`` over its median in tissue; free fluid counts as no signal.

    The ADC is in um2/s, hence the factor 1e-6 to mm2/s.
    """
    # Where no ADC could be fitted the signal drowned in noise: it is taken as it is.
    coefficient = np.clip(np.nan_to_num(adc, nan=0.0), 0.0, FREE_FLUID_ADC_UM2_PER_S)
    signal = np.maximum(high_b * np.exp(b_s_per_mm2 * coefficient * 1e-6), 0.0)
    signal = np.where(coefficient < FREE_FLUID_ADC_UM2_PER_S, signal, np.where(np.isfinite(high_b), 0.0, np.nan))
    return np.log1p(signal / _median_positive(signal)).astype(np.float32)


def _t2_likeness(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """How close T2 signal is to the level between dark muscle and bright fat or urine (Otsu's): gland lies there."""
    logarithm = np.log(np.maximum(signal, 1.0))
    imaged = logarithm[np.isfinite(logarithm)]
    if imaged.size == 0 or imaged.min() == imaged.max():
        return np.where(np.isfinite(signal), 0.0, np.nan).astype(np.float32)
    return (-np.abs(logarithm - threshold_otsu(imaged))).astype(np.float32)


def _median_positive(signal: NDArray[np.floating]) -> float:
    positive = signal[np.isfinite(signal) & (signal > 0)]
    return float(np.median(positive)) if positive.size else 1.0
