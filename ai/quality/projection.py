"""What is measured on projection X-ray images: exposure from the header, clipping, contrast, noise, exposed field.

Deviation index: IEC 62494-1:2008, DI = 10 log10(EI / EI_T); computed where the header has both but not the DI.
Grey values of processed radiographs have no unit, so everything taken from pixels is relative to the image's range.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ai.quality.definitions import RATIO
from ai.quality.noise import haar_noise_sigma, structure_to_noise
from ai.quality.types import Metric
from ai.volumes.types import Acquisition, Volume

LONGEST_SIDE_PIXELS = 1024
"""Statistics of the whole image are taken on every n-th pixel, noise on a crop of this size, at full resolution."""

COLLIMATED_RANGE_SHARE = 0.02
"""A border row or column whose values span less than this share of the image's range lies behind the collimator."""


def projection_metrics(volume: Volume) -> tuple[Metric, ...]:
    """The metrics of a radiograph; of a series of frames those of the middle one."""
    image = volume.pixels[len(volume.stack.slices) // 2]
    return (*exposure_metrics(volume.stack.acquisition), *_pixel_metrics(np.nan_to_num(image)))


def exposure_metrics(acquisition: Acquisition) -> tuple[Metric, ...]:
    """Exposure index and deviation index, as told or computed; None with the reason where the header is silent."""
    index, target, told = (
        acquisition.exposure_index,
        acquisition.target_exposure_index,
        acquisition.deviation_index,
    )
    deviation = told
    if deviation is None and index is not None and target is not None:
        deviation = 10.0 * math.log10(index / target)
    silent = "neither a deviation index nor exposure and target exposure index in the header"
    return (
        _metric("exposure_index", index, "Exposure index (IEC 62494-1)", "not in the header"),
        _metric("deviation_index", deviation, "Deviation from the target, 10 log10(EI / EI_T) (IEC 62494-1)", silent),
    )


def exposed_field(image: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns inside the collimator: borders that hardly vary are cut away."""
    low, high = np.percentile(image, [0.5, 99.5])
    flat = COLLIMATED_RANGE_SHARE * float(high - low)
    rows, columns = (
        np.flatnonzero(np.subtract(*np.percentile(image, [95.0, 5.0], axis=axis)) > flat) for axis in (1, 0)
    )
    if not rows.size or not columns.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _pixel_metrics(image: NDArray[np.float32]) -> tuple[Metric, ...]:
    step = max(1, math.ceil(max(image.shape) / LONGEST_SIDE_PIXELS))
    coarse = image[::step, ::step]
    field = exposed_field(coarse)
    inside = coarse[field]
    share = inside.size / coarse.size
    clipped: float | None = None
    contrast: float | None = None
    noise: float | None = None
    if inside.size:
        lowest, highest = float(image.min()), float(image.max())
        clipped = float(np.mean((inside <= lowest) | (inside >= highest)))
        low, high = np.percentile(inside, [5.0, 95.0])
        contrast = float(high - low) / (highest - lowest)
        crop = _central_crop(image[tuple(slice(part.start * step, part.stop * step) for part in field)])
        sigma = haar_noise_sigma(crop)
        noise = structure_to_noise(crop, sigma) if sigma else None
    flat = "the image is flat"
    return (
        _metric("collimated_share", share, "Share of the image inside the collimator", flat),
        _metric("extreme_fraction", clipped, "Share of the exposed field at an end of the grey scale", flat),
        _metric("grey_contrast", contrast, "5th to 95th percentile range over the whole grey range", flat),
        _metric(
            "structure_to_noise", noise, "Range of the smoothed central field over noise SD", "no noise to measure"
        ),
    )


def _central_crop(image: NDArray[np.float32]) -> NDArray[np.float64]:
    starts = [max(0, (size - LONGEST_SIDE_PIXELS) // 2) for size in image.shape]
    rows, columns = (slice(start, start + LONGEST_SIDE_PIXELS) for start in starts)
    return image[rows, columns].astype(np.float64)


def _metric(name: str, value: float | None, meaning: str, absent: str) -> Metric:
    """All are without unit."""
    return Metric(name, value, RATIO, meaning, absent if value is None else "")
