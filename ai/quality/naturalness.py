"""Local contrast statistics of one slice: how far its normalised values are from those of an undistorted image.

Mean-subtracted contrast-normalised (MSCN) values and the products of neighbours, after Mittal, Moorthy and Bovik,
IEEE Trans Image Process 2012;21:4695 (BRISQUE). Noise brings the values nearer to a Gaussian, blur makes them peaked,
ghosts and spikes change the balance of the products. No natural-image model is used: only the statistics.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import gamma

WINDOW_SIGMA_PIXELS = 7.0 / 6.0
WINDOW_RADIUS_PIXELS = 3
"""The paper's 7 x 7 Gaussian window."""

STABILISER = 1.0 / 255.0
WHITE_PERCENTILE = 99.5
"""The paper adds 1 to the local deviation of images of 0..255: here 1/255 of the 99.5th percentile."""

_SHAPES = np.geomspace(0.2, 10.0, 400)
_SHAPE_RATIOS = gamma(1.0 / _SHAPES) * gamma(3.0 / _SHAPES) / gamma(2.0 / _SHAPES) ** 2
"""Shape of a generalised Gaussian and the ratio of its variance to its squared mean magnitude (falling)."""


@dataclass(frozen=True)
class LocalContrast:
    """Statistics of the MSCN values of one slice.

    ``shape`` is the exponent of the generalised Gaussian (2 Gaussian, 1 Laplacian, clipped to 0.2..10), ``variance``
    that of the values, ``product_asymmetry`` the mean over both axes of the difference of right and left mean square of
    the products of neighbours over their sum: 0 for white noise, towards 1 for smooth images.
    """

    shape: float
    variance: float
    product_asymmetry: float


def local_contrast(box: NDArray[np.float64]) -> LocalContrast | None:
    """MSCN statistics of ``[row, column]``. None where the image is flat or nowhere positive."""
    white = float(np.percentile(box, WHITE_PERCENTILE))
    if white <= 0 or box.min() == box.max():
        return None
    values = _normalised(box, STABILISER * white)
    variance = float(np.mean(values**2))
    magnitude = float(np.mean(np.abs(values)))
    if magnitude <= 0:
        return None
    products = (values[1:] * values[:-1], values[:, 1:] * values[:, :-1])
    return LocalContrast(
        generalised_gaussian_shape(variance / magnitude**2),
        variance,
        float(np.mean([_asymmetry(product) for product in products])),
    )


def generalised_gaussian_shape(ratio: float) -> float:
    """Exponent whose variance over squared mean magnitude is ``ratio`` (pi/2 gives 2, 2 gives 1), within 0.2..10."""
    return float(np.interp(ratio, _SHAPE_RATIOS[::-1], _SHAPES[::-1]))


def _normalised(box: NDArray[np.float64], stabiliser: float) -> NDArray[np.float64]:
    mean = ndimage.gaussian_filter(box, WINDOW_SIGMA_PIXELS, radius=WINDOW_RADIUS_PIXELS)
    square = ndimage.gaussian_filter(box**2, WINDOW_SIGMA_PIXELS, radius=WINDOW_RADIUS_PIXELS)
    return (box - mean) / (np.sqrt(np.maximum(square - mean**2, 0.0)) + stabiliser)


def _asymmetry(product: NDArray[np.float64]) -> float:
    positive = np.mean(np.maximum(product, 0.0) ** 2)
    negative = np.mean(np.minimum(product, 0.0) ** 2)
    total = float(positive + negative)
    return float(positive - negative) / total if total > 0 else 0.0
