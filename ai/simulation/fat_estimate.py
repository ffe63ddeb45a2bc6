"""Where fat is likely to be in an image from which it was suppressed."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

DARK_BELOW = 0.5
"""Share of the tissue signal below which tissue counts as suppressed, the more the darker it is."""
AIR_BELOW = 0.08
BODY_SCALE_MM = 8.0
FAT_OVER_TISSUE = 2.0
"""Signal of unsuppressed fat over that of tissue at b = 0 and the echo times of prostate DWI."""
TISSUE_MINUS_FAT_ADC = 1.2e-3
"""mm2/s: fat hardly diffuses, so it stands out the more, the higher the b-value."""


def fat_of_suppressed(
    images: NDArray[np.float32], tissue_signal: float, b_value: float, pixel_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """An estimate of the suppressed fat's signal, float32 ``[slice, row, column]``.

    What is dark amid the body in a fat-suppressed image is mostly fat; cortical bone and flow voids are taken for it
    too. Air is what stays dark over ``BODY_SCALE_MM``.
    """
    fat = np.empty_like(images)
    fat_signal = tissue_signal * FAT_OVER_TISSUE * np.exp(b_value * TISSUE_MINUS_FAT_ADC)
    sigma = [BODY_SCALE_MM / edge for edge in pixel_mm]
    for index, image in enumerate(images):
        dark = np.clip(1 - ndimage.uniform_filter(image, 3) / (DARK_BELOW * tissue_signal), 0, 1)
        body = ndimage.gaussian_filter((image > AIR_BELOW * tissue_signal).astype(np.float32), sigma, truncate=2.0)
        fat[index] = fat_signal * dark * np.clip(2 * body - 0.5, 0, 1)
    return fat
