"""What is measured on CT: noise in soft tissue, streaks, sharpness, coverage and steps of the table.

Noise: the mode of the local standard deviation over soft tissue (global noise level, Christianson et al., AJR
2015;205:W93), which organs and vessels hardly touch. Streaks: how much more the averages along straight lines of one
direction scatter than those of the others; noise alone is alike in all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ai.quality.definitions import RATIO
from ai.quality.sharpness import edge_width_mm
from ai.quality.types import Metric
from ai.volumes.types import Stack, Volume

HOUNSFIELD = "[hnsf'U]"

MEASURED_SLICES = 9
"""Slices measured, evenly spread: noise and streaks are those of the protocol and the patient, not of one slice."""

SOFT_TISSUE_HU = (0.0, 100.0)
"""Brain, muscle and parenchyma; neither fat nor bone nor contrast medium."""

WINDOW_HU = (-200.0, 300.0)
"""Edges are measured between fat, soft tissue and bone: beyond, the skin and metal would drown them."""

SMOOTHING_MM = 2.0
"""SD of the Gaussian before tissue is told by its value, so that noise does not choose the pixels."""

KERNEL_MM = 7.0
"""Side of the square whose standard deviation is taken."""

HISTOGRAM_BIN_HU = 0.2
MODE_SMOOTHING_BINS = 5.0

DIRECTIONS = 12
LINE_MM = 30.0
"""Length of the lines that are averaged: longer than any texture, shorter than the soft tissue is wide."""

WHOLE_LINE_SHARE = 0.95
"""Share of a line that must lie in soft tissue for its average to count."""

MINIMUM_TISSUE_PIXELS = 2000
REBLUR_MM = 1.0


def tomography_metrics(volume: Volume) -> tuple[Metric, ...]:
    """The metrics of a CT series; None with the reason where the header or the tissue does not allow one."""
    stack = volume.stack
    spacing = stack.acquisition.pixel_spacing_mm
    if spacing is None:
        return (*_image_metrics([], "the pixel spacing is unknown"), *_step_metrics(stack))
    rows = stack.slice_indices
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MEASURED_SLICES)).round().astype(int))
    images = [np.nan_to_num(volume.pixels[rows[number]].astype(np.float64), nan=-1000.0) for number in chosen]
    measured = [_slice_values(image, spacing) for image in images]
    return (*_image_metrics(measured, "too little soft tissue"), *_step_metrics(stack))


def soft_tissue(image: NDArray[np.float64], spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels of soft tissue whose whole KERNEL_MM square is soft tissue too."""
    smooth = ndimage.gaussian_filter(image, [SMOOTHING_MM / step for step in spacing_mm])
    tissue = (smooth >= SOFT_TISSUE_HU[0]) & (smooth <= SOFT_TISSUE_HU[1])
    return np.asarray(ndimage.minimum_filter(tissue, _kernel(spacing_mm)))


def global_noise_level(
    image: NDArray[np.float64], tissue: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> float | None:
    """Most frequent local standard deviation over the tissue, in the image's units; None with too little tissue."""
    if tissue.sum() < MINIMUM_TISSUE_PIXELS:
        return None
    kernel = _kernel(spacing_mm)
    # About the mean of the tissue, so that squares do not lose digits to it.
    centred = image - image[tissue].mean()
    mean = ndimage.uniform_filter(centred, kernel)
    count = kernel[0] * kernel[1]
    variance = (ndimage.uniform_filter(centred**2, kernel) - mean**2) * count / max(1, count - 1)
    local = np.sqrt(np.maximum(variance[tissue], 0.0))
    counts, edges = np.histogram(local, np.arange(0.0, local.max() + 2 * HISTOGRAM_BIN_HU, HISTOGRAM_BIN_HU))
    mode = int(np.argmax(ndimage.gaussian_filter1d(counts.astype(float), MODE_SMOOTHING_BINS)))
    return float(edges[mode] + HISTOGRAM_BIN_HU / 2)


def streak_index(
    image: NDArray[np.float64], tissue: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> float | None:
    """Largest over median SD of averages along LINE_MM, over DIRECTIONS: 1 without streaks. None with little tissue.

    Anatomy is taken away first (everything wider than KERNEL_MM across).
    """
    if tissue.sum() < MINIMUM_TISSUE_PIXELS:
        return None
    weight = tissue.astype(np.float64)
    slow = [KERNEL_MM / step for step in spacing_mm]
    local = ndimage.gaussian_filter(image * weight, slow) / np.maximum(ndimage.gaussian_filter(weight, slow), 1e-3)
    detail = np.where(tissue, image - local, 0.0)
    lines = [_line(float(angle), spacing_mm) for angle in np.arange(DIRECTIONS) * 180.0 / DIRECTIONS]
    padded = np.add(image.shape, lines[0].shape)
    shape = [fft.next_fast_len(int(size), real=True) for size in padded]
    spectra = [fft.rfft2(plane, shape) for plane in (weight, detail)]
    scatters = []
    for line in lines:
        share, average = (fft.irfft2(spectrum * fft.rfft2(line, shape), shape) for spectrum in spectra)
        whole = share > WHOLE_LINE_SHARE
        if whole.sum() < MINIMUM_TISSUE_PIXELS / 4:
            return None
        scatters.append(float(np.std(average[whole])))
    typical = float(np.median(scatters))
    return max(scatters) / typical if typical > 0 else None


def _line(angle_deg: float, spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Kernel that averages along a straight line through the pixel."""
    half = [int(np.ceil(LINE_MM / 2 / step)) for step in spacing_mm]
    along = np.linspace(-LINE_MM / 2, LINE_MM / 2, 4 * max(half) + 1)
    rows = np.rint(along * np.sin(np.deg2rad(angle_deg)) / spacing_mm[0]).astype(int)
    columns = np.rint(along * np.cos(np.deg2rad(angle_deg)) / spacing_mm[1]).astype(int)
    kernel = np.zeros((2 * half[0] + 1, 2 * half[1] + 1))
    kernel[rows + half[0], columns + half[1]] = 1.0
    return kernel / kernel.sum()


def _kernel(spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """KERNEL_MM in pixels, odd."""
    rows, columns = (max(3, 2 * int(KERNEL_MM / step / 2) + 1) for step in spacing_mm)
    return rows, columns


def _slice_values(image: NDArray[np.float64], spacing_mm: tuple[float, float]) -> dict[str, float | None]:
    tissue = soft_tissue(image, spacing_mm)
    noise = global_noise_level(image, tissue, spacing_mm)
    windowed = np.clip(image, *WINDOW_HU)
    return {
        "noise_hu": noise,
        "streak_index": streak_index(image, tissue, spacing_mm),
        "edge_width": None if noise is None else edge_width_mm(windowed, spacing_mm, REBLUR_MM, noise),
    }


_MEANINGS = {
    "noise_hu": (HOUNSFIELD, "Mode of the local SD over soft tissue (global noise level)"),
    "streak_index": (RATIO, "Largest over median SD of line averages over 12 directions in soft tissue"),
    "edge_width": ("mm", "Full width at half maximum of the blur of step edges"),
}


def _image_metrics(measured: Sequence[dict[str, float | None]], absent: str) -> tuple[Metric, ...]:
    """Medians over the measured slices."""
    metrics = []
    for name, (unit, meaning) in _MEANINGS.items():
        values = [value for row in measured if (value := row[name]) is not None]
        value = float(np.median(values)) if values else None
        metrics.append(_metric(name, value, unit, meaning, absent))
    return tuple(metrics)


def _step_metrics(stack: Stack) -> tuple[Metric, ...]:
    """Coverage and table steps from the positions; missing slices where the steps form a grid."""
    positions = [one.position_lps_mm for one in stack.slices if one.position_lps_mm is not None]
    steps = np.linalg.norm(np.diff(np.asarray(positions, float), axis=0), axis=1) if len(positions) > 1 else np.empty(0)
    thickness = stack.acquisition.slice_thickness_mm
    no_steps = "fewer than two positions"
    covered = float(steps.sum()) + (thickness or 0.0) if steps.size else thickness
    count = stack.geometry.shape[0] if stack.geometry is not None else None
    missing = len(stack.missing_slice_indices) / count if count else None
    return (
        _metric("coverage", covered, "mm", "Extent from the first to the last slice, thickness included", no_steps),
        _metric("slice_step_least", float(steps.min()) if steps.size else None, "mm", "Smallest table step", no_steps),
        _metric("slice_step_most", float(steps.max()) if steps.size else None, "mm", "Largest table step", no_steps),
        _metric("missing_fraction", missing, RATIO, "Share of the grid without an image", "table steps are irregular"),
    )


def _metric(name: str, value: float | None, unit: str, meaning: str, absent: str) -> Metric:
    return Metric(name, value, unit, meaning, absent if value is None else "")
