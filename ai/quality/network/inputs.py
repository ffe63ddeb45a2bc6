"""What the network sees of a slice: the centre at its native pixel size, scaled two ways.

Noise and blur live at the pixel; squeezing a slice into a fixed grid loses them. The slice is therefore cropped or
reflected to a fixed number of acquired pixels, and its pixel size told apart. Channel 0 keeps contrast on a robust
scale; channel 1 is contrast-normalised (MSCN; Mittal, Moorthy and Bovik, IEEE TIP 2012;21:4695) and cares little for
coil sensitivity and tissue contrast. Both are independent of the intensity scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.quality.acquired import acquired_grid, central_box, stored_grid, to_acquired
from ai.quality.metrics import MAP_ROLES
from ai.volumes.types import Volume

INPUT_VERSION = "1"
"""Bumped when a slice gives other numbers than before: weights are of one version."""

SIZE = 128
CHANNELS = 2

MAXIMUM_ANISOTROPY = 1.5
FINEST_PIXEL_MM = 0.4
"""No prostate sequence acquires finer (PI-RADS v2.1: 0.4 mm); a smaller pixel is interpolated by the scanner."""

PERCENTILES = (2.0, 98.0)
MSCN_SD_PIXELS = 7.0 / 6.0
MSCN_RADIUS_PIXELS = 3
MSCN_STABILISER = 1.0 / 255.0
"""Mittal's constant of one grey level in 256, as a part of the robust range."""


@dataclass(frozen=True)
class NetworkInput:
    """Slices for the network: float32 ``[slice, channel, row, column]`` and their pixel size in mm (geometric mean)."""

    pixels: NDArray[np.float32]
    pixel_mm: float


def volume_input(volume: Volume, role: str, indices: Sequence[int]) -> NetworkInput:
    """The stored slices ``indices`` of a volume on one intensity scale, so that a slice that lost signal shows it.

    Raises:
        ValueError: the volume has no regular geometry, or no slice was asked for.
    """
    stack = volume.stack
    grid = stored_grid(stack) if role in MAP_ROLES else acquired_grid(stack)
    rows = [stack.slice_indices[index] for index in indices]
    if not rows:
        raise ValueError(f"no slice of volume {stack.volume_id} was chosen")
    images = [to_acquired(_finite(volume.pixels[row]), grid) for row in rows]
    limits = intensity_limits(*images)
    inputs = [slice_input(image, grid.spacing_mm, limits) for image in images]
    return NetworkInput(np.concatenate([one.pixels for one in inputs]), inputs[0].pixel_mm)


def slice_input(
    image: NDArray[np.float64], spacing_mm: tuple[float, float], limits: tuple[float, float] | None = None
) -> NetworkInput:
    """One slice ``[row, column]`` on the acquired grid with pixels of ``spacing_mm`` (row, column), as a batch of one.

    ``limits`` are the intensities that become -1 and 1; None takes those of the slice. A flipped slice gives the
    flipped input (shifted by one for an odd number of pixels, for the crop is even). A constant slice gives zeros.
    """
    image, pixel_mm = _resampled(_finite(image), spacing_mm)
    low, high = limits if limits is not None else intensity_limits(image)
    if not high > low:
        return NetworkInput(np.zeros((1, CHANNELS, SIZE, SIZE), np.float32), pixel_mm)
    channels = (_soft_clip(2.0 * (image - low) / (high - low) - 1.0), _mscn(image, high - low))
    return NetworkInput(np.stack([_centre(channel) for channel in channels])[None].astype(np.float32), pixel_mm)


def intensity_limits(*images: NDArray[np.float64]) -> tuple[float, float]:
    """2nd and 98th percentile of the central boxes of the images together."""
    low, high = np.percentile(np.concatenate([central_box(image).ravel() for image in images]), PERCENTILES)
    return float(low), float(high)


def _finite(image: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _resampled(image: NDArray[np.float64], spacing_mm: tuple[float, float]) -> tuple[NDArray[np.float64], float]:
    """The slice with pixels neither too oblong nor too fine, and the pixel size; nearly always the slice itself."""
    row_mm, column_mm = spacing_mm
    mean_mm = float(np.sqrt(row_mm * column_mm))
    if max(row_mm, column_mm) / min(row_mm, column_mm) <= MAXIMUM_ANISOTROPY and mean_mm >= FINEST_PIXEL_MM:
        return image, mean_mm
    target_mm = max(mean_mm, FINEST_PIXEL_MM)
    for axis, step_mm in enumerate(spacing_mm):
        # A Gaussian that passes what the coarser pixel can show, so that nothing folds over.
        blur = 0.5 * np.sqrt(max((target_mm / step_mm) ** 2 - 1.0, 0.0))
        image = ndimage.gaussian_filter1d(image, blur, axis=axis, mode="reflect") if blur > 0 else image
    zoom = [
        2.0 * max(round(size * step_mm / target_mm / 2.0), 1) / size
        for size, step_mm in zip(image.shape, spacing_mm, strict=True)
    ]
    return np.asarray(ndimage.zoom(image, zoom, order=1, mode="reflect", grid_mode=True)), target_mm


def _soft_clip(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unchanged between -1 and 1, bending towards -2 and 2 outside, with a continuous slope."""
    excess = np.abs(values) - 1.0
    return np.where(excess <= 0, values, np.sign(values) * (1.0 + np.tanh(np.maximum(excess, 0.0))))


def _mscn(image: NDArray[np.float64], intensity_range: float) -> NDArray[np.float64]:
    """Mean-subtracted contrast-normalised coefficients with a 7 x 7 Gaussian window."""

    def window(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, MSCN_SD_PIXELS, mode="reflect", radius=MSCN_RADIUS_PIXELS))

    deviation = image - window(image)
    # Variance of the deviation from the mean of each window: never negative, unlike E[x2] - E[x]2 in floating point.
    spread = np.sqrt(window(deviation**2))
    return deviation / (spread + MSCN_STABILISER * intensity_range)


def _centre(channel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The central SIZE x SIZE pixels, reflected outwards where the slice is smaller."""
    missing = [max(SIZE - size, 0) for size in channel.shape]
    padded = np.pad(channel, [(short // 2, short - short // 2) for short in missing], mode="symmetric")
    first = [(size - SIZE) // 2 for size in padded.shape]
    return padded[first[0] : first[0] + SIZE, first[1] : first[1] + SIZE]
