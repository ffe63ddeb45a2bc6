"""Damage of an image against its undamaged reference: HaarPSI, and GMSD as a second opinion.

HaarPSI: Reisenhofer, Bosse, Kutyniok and Wiegand, Signal Process Image Commun 2018;61:33 (arXiv 1607.06140), of the
cheap metrics the one nearest to radiologists (Kastryulin et al., arXiv 2203.07809). GMSD: Xue, Zhang, Mou and Bovik,
IEEE Trans Image Process 2014;23:684. Both were made for grey levels 0..255: the 99.5th percentile of the reference
inside the region becomes 255, for both images alike, so that a change of brightness is a change.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.quality.acquired import AcquiredGrid

C = 30.0
ALPHA = 4.2
"""Stability constant of the local similarities and steepness of the logistic function (paper, section 2)."""

WEIGHT_SCALE = 3
SIMILARITY_SCALES = (1, 2)
"""Haar scales: the coarsest says where it matters, the two finer ones how similar the images are there."""

GMSD_C = 170.0

WHITE = 255.0
WHITE_PERCENTILE = 99.5

SUPPORT = 2 * 2**WEIGHT_SCALE
"""Pixels around a region that reach into its values: the coarsest filter on the halved grid."""

DAMAGE_BOX_MM = 80.0
"""Side of the central box that holds the prostate with a margin, since the operator centres the gland."""


@dataclass(frozen=True)
class _Pair:
    """Both images on grey levels 0..255 and halved, and where they are compared, all ``[row, column]``."""

    reference: NDArray[np.float64]
    distorted: NDArray[np.float64]
    inside: NDArray[np.bool_]


def damage_region(grid: AcquiredGrid, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The central box of DAMAGE_BOX_MM on the stored grid ``shape`` (rows, columns), where there is no gland mask.

    An image smaller than the box is taken whole.
    """
    mask = np.zeros(shape, dtype=bool)
    window = []
    for lines, spacing_mm, size in zip(grid.shape, grid.spacing_mm, shape, strict=True):
        wanted = min(size, round(DAMAGE_BOX_MM * size / (lines * spacing_mm)))
        first = (size - wanted) // 2
        window.append(slice(first, first + wanted))
    mask[tuple(window)] = True
    return mask


def haarpsi(
    reference: NDArray[np.floating], distorted: NDArray[np.floating], region: NDArray[np.bool_] | None = None
) -> float:
    """HaarPSI of ``distorted`` ``[row, column]`` against ``reference``: 1 identical, towards 0 the more it differs.

    Args:
        reference: undamaged image, in any unit.
        distorted: the damaged one in the same unit and of the same shape.
        region: pixels that count; None: all.

    Raises:
        ValueError: shapes differ, a pixel is not finite, or the reference shows nothing inside the region.
    """
    pair = _pair(reference, distorted, region)
    similarity, weight = _local_similarities(pair)
    weight = weight * pair.inside
    total = float(weight.sum())
    if total <= 0:
        raise ValueError("neither image has any structure inside the region to be compared by")
    mean = float(np.sum(_logistic(similarity) * weight)) / total
    # Rounding may leave identical images a last digit above 1.
    return min(1.0, float((np.log(mean / (1.0 - mean)) / ALPHA) ** 2))


def haarpsi_map(
    reference: NDArray[np.floating], distorted: NDArray[np.floating], region: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Local Haar similarity, 0 to 1, on the halved grid of the region's surroundings.

    Both directions by their weights; 1 where neither image has any structure. The array covers the rectangle around
    the region (the whole image without one) and its SUPPORT. Arguments and errors as of ``haarpsi``.
    """
    similarity, weight = _local_similarities(_pair(reference, distorted, region))
    total = weight.sum(axis=0)
    weighted = np.sum(similarity * weight, axis=0)
    return np.divide(weighted, total, out=np.ones_like(total), where=total > 0)


def gmsd(
    reference: NDArray[np.floating], distorted: NDArray[np.floating], region: NDArray[np.bool_] | None = None
) -> float:
    """Gradient magnitude similarity deviation: 0 identical, higher the more unevenly the gradients differ.

    Arguments and errors as of ``haarpsi``.
    """
    pair = _pair(reference, distorted, region)
    first, second = _prewitt(pair.reference), _prewitt(pair.distorted)
    similarity = (2.0 * first * second + GMSD_C) / (first**2 + second**2 + GMSD_C)
    return float(similarity[pair.inside].std())


def _pair(reference: NDArray[np.floating], distorted: NDArray[np.floating], region: NDArray[np.bool_] | None) -> _Pair:
    inside = np.ones(reference.shape, dtype=bool) if region is None else region
    if not reference.shape == distorted.shape == inside.shape or reference.ndim != 2:
        raise ValueError(f"shapes differ: {reference.shape}, {distorted.shape}, region {inside.shape}")
    if not inside.any():
        raise ValueError("the region is empty")
    window = _surroundings(inside)
    images = [image[window].astype(np.float64) for image in (reference, distorted)]
    inside = inside[window]
    if not all(np.isfinite(image).all() for image in images):
        raise ValueError("an image with pixels that are not finite cannot be compared; replace them first")
    white = float(np.percentile(images[0][inside], WHITE_PERCENTILE))
    if white <= 0:
        raise ValueError("the reference is empty inside the region")
    halved = [_halved(image * (WHITE / white)) for image in images]
    return _Pair(halved[0], halved[1], _halved(inside.astype(np.float64)) >= 0.5)


def _surroundings(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rectangle around a region with SUPPORT, of even start and size, so that halving meets the same blocks."""
    window = []
    for axis, size in enumerate(inside.shape):
        taken = np.flatnonzero(inside.any(axis=1 - axis))
        first = max(0, int(taken[0]) - SUPPORT) // 2 * 2
        last = min(size, int(taken[-1]) + 1 + SUPPORT)
        window.append(slice(first, first + (last - first) // 2 * 2))
    return window[0], window[1]


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2 x 2 blocks: both papers halve the image first, for the distance at which it is looked at."""
    rows, columns = image.shape
    return image.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))


def _local_similarities(pair: _Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarity of the fine scales and weight of the coarse one, ``[direction, row, column]``."""
    first, second = (
        np.abs([[_haar(image, scale, axis) for scale in (*SIMILARITY_SCALES, WEIGHT_SCALE)] for axis in (0, 1)])
        for image in (pair.reference, pair.distorted)
    )
    fine, other = first[:, :-1], second[:, :-1]
    similarity = np.mean((2.0 * fine * other + C) / (fine**2 + other**2 + C), axis=1)
    return similarity, np.maximum(first[:, -1], second[:, -1])


def _haar(image: NDArray[np.float64], scale: int, axis: int) -> NDArray[np.float64]:
    """Response to the Haar filter of side ``2**scale`` that differentiates along ``axis``; zero beyond the image."""
    length = 2**scale
    step = np.repeat([-1.0, 1.0], length // 2)
    # With origin -1 an even window reaches one pixel further ahead than back, as that of a "same" convolution does.
    smooth = ndimage.correlate1d(image, np.full(length, 1.0 / length), axis=1 - axis, mode="constant", origin=-1)
    return np.asarray(ndimage.correlate1d(smooth, step, axis=axis, mode="constant", origin=-1))


def _logistic(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-ALPHA * value))


def _prewitt(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient magnitude by Prewitt's masks, of which each holds thirds."""
    down, across = (ndimage.prewitt(image, axis=axis, mode="constant") / 3.0 for axis in (0, 1))
    return np.hypot(down, across)
