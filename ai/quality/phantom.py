"""Acceptance measurements on phantoms: SNR, uniformity, ghosting, size and slice thickness as physicists take them.

They are the yardstick for the metrics of patients' images, which have no uniform region, no second scan and often no
air. SNR by subtraction: NEMA MS 1; by smoothing and its normalisation: McCann et al., Phys Med Biol 2013;58:3775.
Percent integral uniformity, diameters and slice thickness: ACR Large Phantom Guidance. Fractional uniformity and
ghosting of a small bottle: IPEM Report 112. Images are ``[row, column]`` of magnitudes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from ai.quality.noise import foreground

SNR_ROI_PIXELS = 20
SNR_ROI_OFFSET_PIXELS = 40
"""Five square regions: one in the centre, four displaced along both axes."""

SMOOTHING_PIXELS = 9
"""Moving average for a head coil (McCann et al.); 25 for a body coil."""

REFERENCE_BANDWIDTH_KHZ = 30.0

LARGE_REGION_RADIUS_MM = 80.0
SMALL_REGION_AREA_MM2 = 100.0
"""ACR: regions of about 1 cm2 inside one of about 200 cm2."""

PROFILE_PIXELS = 160
PROFILE_WIDTH_PIXELS = 10
UNIFORM_WITHIN = 0.1
"""IPEM: share of a profile that stays within 10 % of the modal value of the centre."""

GHOST_ROI_MM = 10.0
GHOST_MARGIN_PIXELS = 30
GHOST_OBJECT_FRACTION = 0.4
"""The bottle is what exceeds 40 % of the maximum; ghosts are looked for 30 pixels away from it."""

RAMP_SLOPE = 0.1
RAMP_WINDOW_MM = (12.0, 65.0)
MINIMUM_RAMP_LINES = 6
"""The insert of the ACR phantom's slice 1 lies within 12 mm of the centre; its ramps end within 65 mm of it."""


@dataclass(frozen=True)
class SnrConditions:
    """What an SNR is normalised by: voxel in mm (row, column, slice), lines, and times."""

    voxel_mm: tuple[float, float, float]
    rows: int
    columns: int
    bandwidth_hz_per_pixel: float
    averages: float
    repetition_time_s: float

    @property
    def factor(self) -> float:
        """Factor that makes an SNR one of 1 ml, 1 s and 30 kHz."""
        bandwidth_khz = self.bandwidth_hz_per_pixel * self.columns / 2.0 / 1000.0
        volume_ml = float(np.prod(self.voxel_mm)) / 1000.0
        duration_s = self.averages * self.rows * self.repetition_time_s
        return float(np.sqrt(bandwidth_khz / REFERENCE_BANDWIDTH_KHZ / duration_s) / volume_ml)


def object_centre(image: NDArray[np.float64]) -> tuple[int, int]:
    """Centroid (row, column) of the phantom without its holes."""
    row, column = ndimage.center_of_mass(ndimage.binary_fill_holes(foreground(image)))
    return round(row), round(column)


def snr_by_subtraction(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """SNR of two scans of the same: mean signal over the SD of their difference / sqrt(2), mean of five regions."""
    return float(np.sqrt(2.0)) * _snr(first, first - second)


def snr_by_smoothing(image: NDArray[np.float64], kernel_pixels: int = SMOOTHING_PIXELS) -> float:
    """SNR of one scan: mean signal over the SD of what a moving average takes away, mean of five regions."""
    return _snr(image, image - ndimage.uniform_filter(image, kernel_pixels, mode="constant"))


def integral_uniformity_percent(image: NDArray[np.float64], spacing_mm: float) -> float:
    """Percent integral uniformity: 100 where all small regions inside the large one have the same mean."""
    small = int(np.ceil(np.sqrt(SMALL_REGION_AREA_MM2 / np.pi) / spacing_mm))
    large = int(np.ceil(LARGE_REGION_RADIUS_MM / spacing_mm))
    y, x = np.ogrid[-small : small + 1, -small : small + 1]
    disc = (y**2 + x**2 <= small**2).astype(np.float64)
    means = signal.fftconvolve(image, disc / disc.sum(), mode="same")
    row, column = object_centre(image)
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    within = means[np.hypot(rows - row, columns - column) + small <= large]
    low, high = float(within.min()), float(within.max())
    return 100.0 * (1.0 - (high - low) / (high + low))


def fractional_uniformity(image: NDArray[np.float64]) -> tuple[float, float]:
    """Share (across, down) of a central profile of 160 pixels within 10 % of the modal value of the centre, 0 to 1."""
    row, column = object_centre(image)
    half, wide = PROFILE_WIDTH_PIXELS // 2, PROFILE_PIXELS // 2
    values, counts = np.unique(image[row - half : row + half, column - half : column + half], return_counts=True)
    mode = float(values[counts.argmax()])
    across = image[row - half : row + half, column - wide : column + wide].mean(axis=0)
    down = image[row - wide : row + wide, column - half : column + half].mean(axis=1)
    shares = [float(np.mean(np.abs(profile / mode - 1.0) < UNIFORM_WITHIN)) for profile in (across, down)]
    return shares[0], shares[1]


def ghosting_percent(image: NDArray[np.float64], spacing_mm: float, phase_axis: int) -> float:
    """Signal beside a small bottle along phase above that of noise, in percent of the bottle's."""
    lines = image if phase_axis == 1 else image.T
    rows, columns = (_extent(lines, axis) for axis in (0, 1))
    half = int(GHOST_ROI_MM // (2.0 * spacing_mm))
    row, column = sum(rows) // 2, sum(columns) // 2
    count = lines.shape[1]
    if columns[0] < count / 2:
        beside = slice(columns[1] + GHOST_MARGIN_PIXELS, count - half - 1)
    else:
        beside = slice(half, columns[0] - GHOST_MARGIN_PIXELS - 1)
    ghost = lines[max(half, rows[0]) : min(lines.shape[0] - half, rows[1]) - 1, beside]
    # Noise: four regions along phase, on the far side of the bottle along frequency, where it has no ghosts.
    far = round(lines.shape[0] * (0.75 if row < lines.shape[0] / 2 else 0.25))
    gap = -round(column / 4) if column > count / 2 else round((count - column) / 4)
    noise = np.mean([_square(lines, far, column + step * gap, half).mean() for step in range(4)])
    return float(100.0 * abs(ghost.mean() - noise) / _square(lines, row, column, half).mean())


def diameters_mm(image: NDArray[np.float64], spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """Extent (across, down) of the phantom through its centre at half of its median signal."""
    row, column = object_centre(image)
    level = 0.5 * float(np.median(image[foreground(image)]))
    across, down = _width(image[row], level), _width(image[:, column], level)
    return across * spacing_mm[1], down * spacing_mm[0]


def slice_thickness_mm(image: NDArray[np.float64], spacing_mm: tuple[float, float]) -> float:
    """Slice thickness from the two crossed 10:1 ramps of slice 1 of the ACR phantom.

    Raises:
        ValueError: there is no dark insert across the centre.
    """
    row, column = object_centre(image)
    half_signal = 0.5 * float(np.median(image[foreground(image)]))
    down, across = (round(reach / spacing) for reach, spacing in zip(RAMP_WINDOW_MM, spacing_mm, strict=True))
    window = image[row - down : row + down, column - across : column + across]
    # Beside the ramps the insert is empty: a quarter of each of its lines at least.
    dark = np.flatnonzero(np.percentile(window, 25.0, axis=1) < 0.25 * half_signal)
    if dark.size < MINIMUM_RAMP_LINES:
        raise ValueError("no insert with ramps across the centre: is this slice 1 of an ACR phantom?")
    middle = dark.size // 2
    lengths = []
    for lines in (dark[1:middle], dark[dark.size - middle : -1]):
        profile = window[lines].mean(axis=0)
        plateau = float(np.median(profile[profile > 0.5 * np.percentile(profile, 95.0)]))
        lengths.append(_width(profile, 0.5 * plateau) * spacing_mm[1])
    return RAMP_SLOPE * 2.0 * lengths[0] * lengths[1] / (lengths[0] + lengths[1])


def _snr(image: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    row, column = object_centre(image)
    offset, half = SNR_ROI_OFFSET_PIXELS, SNR_ROI_PIXELS // 2
    places = [(0, 0), *((down, across) for down in (-offset, offset) for across in (-offset, offset))]
    regions = [(row + down, column + across) for down, across in places]
    return float(np.mean([_square(image, *at, half).mean() / _square(noise, *at, half).std(ddof=1) for at in regions]))


def _square(image: NDArray[np.float64], row: int, column: int, half: int) -> NDArray[np.float64]:
    return image[row - half : row + half, column - half : column + half]


def _extent(image: NDArray[np.float64], axis: int) -> tuple[int, int]:
    """First and last line along ``axis`` that the bottle reaches."""
    taken = np.flatnonzero((image > GHOST_OBJECT_FRACTION * image.max()).any(axis=1 - axis))
    return int(taken[0]), int(taken[-1])


def _width(profile: NDArray[np.float64], level: float) -> float:
    """Distance in pixels between the outermost crossings of a level, between samples by straight lines."""
    above = np.flatnonzero(profile >= level)
    first, last = int(above[0]), int(above[-1])
    start = first - (profile[first] - level) / (profile[first] - profile[first - 1]) if first else 0.0
    if last == profile.size - 1:
        return float(last - start)
    return float(last + (profile[last] - level) / (profile[last] - profile[last + 1]) - start)
