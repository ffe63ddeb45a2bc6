"""Noise and signal to noise of one slice, without needing air.

Noise: median absolute deviation of the finest diagonal Haar detail (Donoho and Johnstone, Biometrika 1994;81:425).
Low-signal bias of magnitude images: Koay and Basser, J Magn Reson 2006;179:317. Air: Rayleigh statistics
(Gudbjartsson and Patz, Magn Reson Med 1995;34:910). Laplacian: Immerkaer, Comput Vis Image Underst 1996;64:300.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ive

MAD_TO_SIGMA = 0.6744897501960817
"""Median absolute deviation of a unit normal distribution."""

RAYLEIGH_MEAN_TO_SD = float(np.sqrt(np.pi / (4.0 - np.pi)))
"""Mean over standard deviation of a Rayleigh distribution, 1.913: what pure noise gives in a magnitude image."""

RAYLEIGH_TOLERANCE = 0.2
"""Relative deviation from the Rayleigh ratio up to which a background counts as noise only: filtered, interpolated or
multi-coil backgrounds deviate more, and a Rayleigh correction would then lie."""

FOREGROUND_FRACTION = 0.1
"""Part of the 99th percentile above which a pixel counts as tissue: gas, cortical bone, masked background are below."""

MINIMUM_PIXELS = 256
"""Fewest pixels that a statistic of a region is taken from."""

AIR_MARGIN_PIXELS = 3
"""Distance kept from tissue when air is looked for, so that ringing and partial volume stay out."""


STRUCTURE_SMOOTHING_PIXELS = 2.0
"""SD of the Gaussian that leaves anatomy and averages white noise down to 0.14 of its SD."""


@dataclass(frozen=True)
class SliceNoise:
    """Noise SD and tissue signal in the image's units, and their ratio corrected for the Rician floor.

    ``snr`` is None where no noise is measurable: smooth images of few grey levels have a median detail of 0.
    """

    sigma: float
    signal: float
    snr: float | None


def foreground(image: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tissue pixels: above FOREGROUND_FRACTION of the 99th percentile. Independent of the intensity scale."""
    return np.asarray(image > FOREGROUND_FRACTION * np.percentile(image, 99.0))


def haar_noise_sigma(image: NDArray[np.float64], valid: NDArray[np.bool_] | None = None) -> float | None:
    """Noise SD of ``[row, column]``: MAD of the diagonal Haar detail over 0.6745, from 2 x 2 blocks that are valid.

    None where fewer than MINIMUM_PIXELS blocks are valid.
    """
    detail = _haar_diagonal(image)
    if valid is not None:
        rows, columns = (2 * size for size in detail.shape)
        whole = valid[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).all(axis=(1, 3))
        detail = detail[whole]
    if detail.size < MINIMUM_PIXELS:
        return None
    return float(np.median(np.abs(detail))) / MAD_TO_SIGMA


def _haar_diagonal(image: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = (size // 2 * 2 for size in image.shape)
    quads = image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2)
    return np.asarray((quads[:, 0, :, 0] - quads[:, 0, :, 1] - quads[:, 1, :, 0] + quads[:, 1, :, 1]) / 2.0)


def laplacian_noise_sigma(image: NDArray[np.float64]) -> float:
    """Noise SD of ``[row, column]`` by Immerkaer's mask, the difference of two Laplacians, which is blind to edges that
    are straight: ``sqrt(pi/2) / 6`` times the mean magnitude of the response.

    A mean, so fine structure counts too: over the Haar estimate it tells structure from noise.
    """
    rows = image[2:] - 2.0 * image[1:-1] + image[:-2]
    response = rows[:, 2:] - 2.0 * rows[:, 1:-1] + rows[:, :-2]
    return float(np.sqrt(np.pi / 2.0) / 6.0 * np.mean(np.abs(response)))


def haar_kurtosis(image: NDArray[np.float64]) -> float | None:
    """Kurtosis of the finest diagonal Haar detail: 3 for Gaussian noise, higher the more edges stand out of it.

    None for a flat image.
    """
    square = _haar_diagonal(image) ** 2
    mean = float(square.mean())
    return float(np.mean(square**2)) / mean**2 if mean > 0 else None


def rician_snr(measured: float) -> float:
    """True signal over true noise SD, from the measured mean over measured SD of a magnitude image.

    Fixed point of Koay and Basser's correction; 0 at or below the Rayleigh ratio of 1.913 (nothing but noise).
    """
    if measured <= RAYLEIGH_MEAN_TO_SD:
        return 0.0
    snr = measured
    for _ in range(200):
        updated = float(np.sqrt(max(_koay_xi(snr) * (1.0 + measured**2) - 2.0, 0.0)))
        if abs(updated - snr) < 1e-6:
            break
        snr = updated
    return updated


def _koay_xi(snr: float) -> float:
    """Measured over true variance of a Rician variable; exponentially scaled Bessel functions keep it finite."""
    if snr > 30.0:
        return 1.0
    half = snr**2 / 4.0
    bessel = (2.0 + snr**2) * ive(0, half) + snr**2 * ive(1, half)
    return float(2.0 + snr**2 - np.pi / 8.0 * bessel**2)


def slice_noise(box: NDArray[np.float64], tissue: NDArray[np.bool_], magnitude: bool = True) -> SliceNoise | None:
    """Noise and SNR of the central box of a slice: median signal of its ``tissue`` over the Haar noise SD.

    ``magnitude`` corrects for the Rician floor; maps such as ADC are no magnitude images. None where there is too
    little tissue.
    """
    if tissue.sum() < MINIMUM_PIXELS:
        return None
    sigma = haar_noise_sigma(box, None if magnitude else tissue)
    if sigma is None:
        return None
    signal = float(np.median(box[tissue]))
    if sigma == 0:
        return SliceNoise(sigma, signal, None)
    return SliceNoise(sigma, signal, rician_snr(signal / sigma) if magnitude else signal / sigma)


def structure_to_noise(box: NDArray[np.float64], sigma: float) -> float | None:
    """Range of what remains after smoothing (5th to 95th percentile) over the noise SD.

    Unlike the SNR it needs no model of the noise floor: filtered and multi-coil noise lifts the mean of an empty image,
    but not its range. Pure noise gives about 0.8. None where no noise is measurable.
    """
    if sigma <= 0:
        return None
    low, high = np.percentile(ndimage.gaussian_filter(box, STRUCTURE_SMOOTHING_PIXELS), [5.0, 95.0])
    return float(high - low) / sigma


def air_noise_sigma(image: NDArray[np.float64]) -> tuple[float | None, str]:
    """Noise SD from air, ``sqrt(mean(x^2) / 2)``, and the reason where it cannot be had.

    Air is what is darker than tissue, connected to the image border, not zero-filled and away from tissue; it must
    be Rayleigh distributed.
    """
    dark = ndimage.binary_erosion(~foreground(image), iterations=AIR_MARGIN_PIXELS, border_value=1)
    labels, _ = ndimage.label(dark)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    air = image[np.isin(labels, edge[edge > 0]) & (image != 0)]
    if air.size < MINIMUM_PIXELS:
        return None, "no air outside the body that is not zero-filled"
    ratio = float(air.mean() / air.std()) if air.std() > 0 else float("inf")
    if abs(ratio / RAYLEIGH_MEAN_TO_SD - 1.0) > RAYLEIGH_TOLERANCE:
        return None, f"background is not noise alone (mean/SD {ratio:.2f}, Rayleigh 1.91)"
    return float(np.sqrt(np.mean(air**2) / 2.0)), ""
