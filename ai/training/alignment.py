"""Takes back a shift of the whole image before two images are compared: where the patient lies is no damage."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

UPSAMPLING = 10
"""The shift is found to a tenth of a pixel."""

ITERATIONS = 2
"""The first shift is a little short, because the window fades what moves out of it."""

LARGEST_SHIFT_PIXELS = 12.0
"""A larger shift is no shift but a failure of the registration, or worse than a repeat: it stays."""


def aligned(
    reference: NDArray[np.float64], moved: NDArray[np.float64], region: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """``moved`` ``[row, column]``, shifted so that it lies on ``reference`` (Guizar-Sicairos et al., Opt Lett 2008).

    Found inside the bounding box of ``region``; interpolated by the shift theorem, so that nothing is blurred.
    """
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    spectrum = np.fft.fft2(moved)
    total, back = np.zeros(2), moved
    for _ in range(ITERATIONS):
        # Without phase normalisation, which would give noise as much say as anatomy.
        shift, _, _ = phase_cross_correlation(
            _windowed(reference[box]), _windowed(back[box]), upsample_factor=UPSAMPLING, normalization=None
        )
        if not shift.any():
            break
        total += shift
        if np.abs(total).max() > LARGEST_SHIFT_PIXELS:
            return moved
        back = np.abs(np.fft.ifft2(ndimage.fourier_shift(spectrum, total)))
    return back


def _windowed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without its mean and fading to the edges, which would hold the maximum of the correlation at no shift."""
    rows, columns = (np.hanning(size + 2)[1:-1] for size in image.shape)
    return np.asarray((image - image.mean()) * rows[:, None] * columns[None, :])
