"""How suspicious every voxel of the gland is: low ADC, bright at high b, dark on T2, relative to the same gland.

Significant cancer restricts diffusion and lowers the T2 signal (PI-RADS v2.1). Scanners scale signals freely and ADC
by some per cent, so each map is judged against the patient's own gland:

1. each map is averaged at the scale of the smallest lesion of interest, inside the gland only;
2. robust z-scores (median, MAD) point towards cancer: ``-z(ADC)``, ``z(high b)``, ``-z(T2)``;
3. Stouffer's weighted sum, weights 2 : 2 : 1, for diffusion leads and T2 follows; it is divided by its own robust
   spread where correlation between the maps made that larger than 1;
4. a logistic curve gives a probability-like value: 0.01 for the gland's typical tissue, 0.5 where chance alone would
   reach once per gland of ordinary size.

Nothing here is fitted to images; the value is a rank with a meaning under noise, not a calibrated probability.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit
from scipy.stats import norm

SMALLEST_LESION_ML = 0.223
"""5 % quantile of the volume of 233 public csPCa lesions."""

MEDIAN_GLAND_ML = 43.9
"""Median gland volume of the same 219 cases."""

LESION_SCALE_MM = float((SMALLEST_LESION_ML * 1000 * 3 / (4 * np.pi)) ** (1 / 3) / np.sqrt(3))
"""Standard deviation of the Gaussian matched to a ball of that volume (scale space: r = sigma sqrt 3), 2.2 mm."""

WEIGHTS = {"adc": 2.0, "high_b": 2.0, "t2": 1.0}
"""PI-RADS v2.1 lets diffusion decide in the peripheral zone and T2 in the transition zone. Without zones T2 gets half
the weight of each diffusion map. Chosen, not fitted."""

CHANCE_Z = float(norm.isf(SMALLEST_LESION_ML / MEDIAN_GLAND_ML))
"""Deviate that one of the lesion-sized pieces of an ordinary gland is expected to exceed by chance, 2.57."""

TYPICAL_PROBABILITY = 0.01
LOGISTIC_SLOPE = float(np.log(1 / TYPICAL_PROBABILITY - 1) / CHANCE_Z)

MINIMUM_RELATIVE_SPREAD = 0.05
"""A gland is never taken to be more uniform than 5 % of its median: smaller differences are below what repeated
diffusion measurements of the same tissue agree to, so they must not become large z-scores. Chosen, not fitted."""

MINIMUM_TISSUE_ADC_UM2_PER_S = 200.0
"""No tissue diffuses more slowly: lower values are masked background or failed fits and carry no evidence."""

MINIMUM_GLAND_SHARE = 0.5
"""At least this share of the gland needs valid diffusion values."""


class SuspicionNotComputable(ValueError):
    """The maps do not cover the gland well enough to judge it; the message says which."""


def suspicion(
    gland: NDArray[np.bool_],
    adc: NDArray[np.float32],
    high_b: NDArray[np.float32],
    t2: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """How far every voxel deviates towards csPCa, in standard deviations of this gland's tissue.

    Args:
        gland: bool ``[slice, row, column]``.
        adc: in um2/s on the same grid; NaN where unknown.
        high_b: signal at the highest b-value on the same grid; NaN where unknown.
        t2: T2-weighted signal on the same grid; NaN where unknown.
        spacing_mm: voxel spacing along slice, row, column.

    Returns:
        float32 of the same shape, minus infinity outside the gland and where diffusion is unknown.

    Raises:
        SuspicionNotComputable: ADC and high b are known in less than half of the gland.
    """
    known = gland & np.isfinite(adc) & np.isfinite(high_b)
    known &= np.nan_to_num(adc) >= MINIMUM_TISSUE_ADC_UM2_PER_S
    if not gland.any() or known.sum() < MINIMUM_GLAND_SHARE * gland.sum():
        raise SuspicionNotComputable("ADC and high-b image are known in less than half of the prostate region")
    sigma = LESION_SCALE_MM / np.asarray(spacing_mm)
    total = WEIGHTS["high_b"] * robust_z(smooth_inside(high_b, known, sigma), known)
    total -= WEIGHTS["adc"] * robust_z(smooth_inside(adc, known, sigma), known)
    seen = known & np.isfinite(t2)
    if seen.any():
        total -= WEIGHTS["t2"] * robust_z(smooth_inside(t2, seen, sigma), seen)
    combined = total / np.sqrt(sum(weight**2 for weight in WEIGHTS.values()))
    centre, spread = _centre_and_spread(combined[known])
    return np.where(known, (combined - centre) / max(spread, 1.0), -np.inf).astype(np.float32)


def probability_like(deviation: float) -> float:
    """Suspicion between 0 and 1: 0.01 for the gland's typical tissue (0), 0.5 at the chance level ``CHANCE_Z``."""
    return float(expit(LOGISTIC_SLOPE * (deviation - CHANCE_Z)))


def deviation_of(probability: float) -> float:
    """Inverse of ``probability_like``."""
    return float(logit(probability) / LOGISTIC_SLOPE + CHANCE_Z)


def smooth_inside(
    values: NDArray[np.float32], inside: NDArray[np.bool_], sigma_voxels: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Gaussian mean over the voxels of ``inside`` only (normalised convolution); 0 elsewhere."""
    total = gaussian_filter(np.where(inside, values, np.float32(0)), sigma_voxels)
    weight = gaussian_filter(inside.astype(np.float32), sigma_voxels)
    return np.where(inside, total / np.maximum(weight, 1e-6), 0.0).astype(np.float32)


def robust_z(values: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Deviation from the median of ``inside`` in units of its robust spread; 0 outside."""
    centre, spread = _centre_and_spread(values[inside])
    spread = max(spread, MINIMUM_RELATIVE_SPREAD * abs(centre), float(np.finfo(np.float32).tiny))
    return np.where(inside, (values - centre) / spread, 0.0).astype(np.float64)


def _centre_and_spread(values: NDArray[np.floating]) -> tuple[float, float]:
    """Median, and median absolute deviation scaled to a Gaussian's standard deviation."""
    centre = float(np.median(values))
    return centre, 1.4826 * float(np.median(np.abs(values - centre)))
