"""Sharpness of one slice by reblurring: an edge width in millimetres, and the perceptual blur of either axis.

Idea: Crete, Dolmiere, Ladret and Nicolas, Proc SPIE 6492 (2007): a sharp image loses more gradient when blurred again.
For a step edge of Gaussian width s the gradient energy is proportional to 1/s, so a further blur of width k leaves the
fraction r = s / sqrt(s^2 + k^2), and s = k r / sqrt(1 - r^2). White noise is subtracted from the gradient energy first.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PERCEPTUAL_KERNEL_PIXELS = 9
"""Length of the moving average of the published blur metric."""

FWHM_PER_SIGMA = 2.0 * float(np.sqrt(2.0 * np.log(2.0)))

NOISE_SHARE_LIMIT = 0.9
"""Share of the gradient energy that may be noise; above, no edge is left to measure."""


def _gradient_energy(image: NDArray[np.float64], spacing_mm: tuple[float, float]) -> float:
    down = np.diff(image, axis=0) / spacing_mm[0]
    across = np.diff(image, axis=1) / spacing_mm[1]
    return float(np.mean(down**2) + np.mean(across**2))


def _noise_gain(spacing_mm: tuple[float, float], sigma_pixels: tuple[float, float]) -> float:
    """Gradient energy of unit white noise after Gaussian smoothing (0: none), from the kernels themselves."""
    impulse = np.zeros((65, 65))
    impulse[32, 32] = 1.0
    response = ndimage.gaussian_filter(impulse, sigma_pixels, mode="constant") if any(sigma_pixels) else impulse
    down, across = np.diff(response, axis=0) / spacing_mm[0], np.diff(response, axis=1) / spacing_mm[1]
    return float(np.sum(down**2) + np.sum(across**2))


def edge_width_mm(
    image: NDArray[np.float64], spacing_mm: tuple[float, float], kernel_mm: float, noise_sigma: float
) -> float | None:
    """Full width at half maximum, in mm, of the Gaussian that blurs the step edges of ``[row, column]``.

    ``kernel_mm`` is the SD of the further blur and should be about two acquired voxels. None where the image is flat
    or its gradients are noise.
    """
    pixels = (kernel_mm / spacing_mm[0], kernel_mm / spacing_mm[1])
    before = _gradient_energy(image, spacing_mm)
    after = _gradient_energy(ndimage.gaussian_filter(image, pixels, mode="nearest"), spacing_mm)
    signal = before - noise_sigma**2 * _noise_gain(spacing_mm, (0.0, 0.0))
    signal_after = after - noise_sigma**2 * _noise_gain(spacing_mm, pixels)
    if before <= 0 or signal <= (1.0 - NOISE_SHARE_LIMIT) * before:
        return None
    ratio = float(np.clip(signal_after / signal, 0.0, 0.999))
    return FWHM_PER_SIGMA * kernel_mm * ratio / float(np.sqrt(1.0 - ratio**2))


def perceptual_blur(image: NDArray[np.float64], axis: int) -> float | None:
    """Blur of ``[row, column]`` along one axis, 0 sharp to 1 blurred (Crete et al.; the image's is the larger one).

    The share of the neighbour differences that a moving average of 9 pixels along the axis leaves. None where there are
    no differences.
    """
    before = np.abs(np.diff(image, axis=axis))
    after = np.abs(np.diff(ndimage.uniform_filter1d(image, PERCEPTUAL_KERNEL_PIXELS, axis=axis), axis=axis))
    total = float(before.sum())
    return 1.0 - float(np.maximum(before - after, 0.0).sum()) / total if total > 0 else None
