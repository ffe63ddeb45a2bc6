"""Takes back a shift of the whole image before two images are compared: where the patient lies is no damage."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

UPSAMPLING = 10
"""The shift is found to a tenth of a pixel."""

LARGEST_SHIFT_PIXELS = 12.0
"""A larger shift is no shift but a failure of the registration, or worse than a repeat: it stays."""


def aligned(
    reference: NDArray[np.float64], moved: NDArray[np.float64], region: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """``moved`` ``[row, column]``, shifted so that it lies on ``reference`` (Guizar-Sicairos et al., Opt Lett 2008).

    Found inside the bounding box of ``region``; interpolated by the shift theorem, so that nothing is blurred.
    """
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    shift, _, _ = phase_cross_correlation(reference[box], moved[box], upsample_factor=UPSAMPLING)
    if not shift.any() or np.abs(shift).max() > LARGEST_SHIFT_PIXELS:
        return moved
    return np.abs(np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(moved), shift)))
