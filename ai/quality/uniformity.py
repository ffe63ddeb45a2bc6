"""Uniformity of a slice and of a stack: coil bias, clipping, contrast, and slices that differ from their neighbours.

Bias: range of a second-order polynomial fitted to log intensity (after Styner et al., IEEE Trans Med Imaging
2000;19:153, without the class model, so slow anatomy is part of it). Entropy focus criterion: Atkinson et al., IEEE
Trans Med Imaging 1997;16:903, normalised to 0..1 as MRIQC does (PLoS ONE 2017;12:e0184661).
"""

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from ai.quality.noise import FOREGROUND_FRACTION, MINIMUM_PIXELS, foreground

BLOCKS = 32
"""The bias field is fitted on block means of about this many blocks per axis: slow fields need no more."""

HOT_SPOT_PERCENTILE = 99.5


def bias_field_range(image: NDArray[np.float64]) -> float | None:
    """95th over 5th percentile of the fitted field over the tissue of ``[row, column]``: 1 is uniform."""
    step = [max(1, size // BLOCKS) for size in image.shape]
    rows, columns = (size // s * s for size, s in zip(image.shape, step, strict=True))
    blocks = image[:rows, :columns].reshape(rows // step[0], step[0], columns // step[1], step[1]).mean(axis=(1, 3))
    tissue = blocks > FOREGROUND_FRACTION * np.percentile(image, 99.0)
    if tissue.sum() < 32:
        return None
    y, x = np.meshgrid(*(np.linspace(-1.0, 1.0, size) for size in blocks.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=-1)[tissue]
    coefficients, *_ = np.linalg.lstsq(terms, np.log(blocks[tissue]), rcond=None)
    low, high = np.percentile(terms @ coefficients, [5.0, 95.0])
    return float(np.exp(high - low))


def hot_spot_ratio(image: NDArray[np.float64], box: NDArray[np.float64]) -> float | None:
    """99.5th percentile of the whole slice over that of its central box: how much the periphery outshines the gland."""
    centre = float(np.percentile(box, HOT_SPOT_PERCENTILE))
    return float(np.percentile(image, HOT_SPOT_PERCENTILE)) / centre if centre > 0 else None


def entropy_focus(image: NDArray[np.float64]) -> float | None:
    """Entropy focus criterion of ``[row, column]``, 0 (all energy in one pixel) to 1 (spread evenly)."""
    energy = float(np.sqrt(np.sum(image**2)))
    if energy <= 0:
        return None
    share = np.abs(image[image != 0]) / energy
    worst = np.sqrt(image.size) * np.log(np.sqrt(image.size))
    return float(-np.sum(share * np.log(share)) / worst)


def contrast_to_noise(tissue: NDArray[np.float64], sigma: float) -> float | None:
    """Difference of the medians of the two Otsu classes of the tissue pixels ``[pixel]``, over the noise SD.

    None where there is no noise, or where the pixels are too few or all equal.
    """
    if sigma <= 0 or tissue.size < MINIMUM_PIXELS or tissue.min() == tissue.max():
        return None
    threshold = threshold_otsu(tissue)
    return float(np.median(tissue[tissue > threshold]) - np.median(tissue[tissue <= threshold])) / sigma


def clipped_fraction(image: NDArray[np.float64], ceiling: float) -> float:
    """Share of the tissue pixels of a slice that sit exactly at ``ceiling``, the volume's highest value.

    A single brightest pixel is no clipping and counts as none.
    """
    clipped = int((image >= ceiling).sum())
    if clipped <= 1:
        return 0.0
    tissue = int(foreground(image).sum())
    return clipped / tissue if tissue else 0.0


def neighbour_deviation(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each slice's signal ``[slice]`` drops below the weaker of its two neighbours, in natural log units.

    0 for slices between their neighbours or brighter; the ends are extrapolated by nothing and get 0. NaN stays NaN.
    """
    deviation = np.where(np.isnan(signals), np.nan, 0.0)
    if signals.size < 3:
        return deviation
    logarithm = np.log(np.maximum(signals, np.finfo(float).tiny))
    drop = np.minimum(logarithm[:-2], logarithm[2:]) - logarithm[1:-1]
    deviation[1:-1] = np.where(np.isnan(signals[1:-1]), np.nan, np.nan_to_num(np.maximum(drop, 0.0)))
    return deviation
