"""The acquired grid of a slice: what the scanner measured, before it interpolated.

Scanners zero-fill k-space to a larger reconstruction matrix (PS3.3 C.8.3.1, Acquisition Matrix (0018,1310)). Noise on
the interpolated grid is correlated and resolution looks better than it is, so metrics are taken on the acquired grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ai.volumes.types import Stack

CENTRAL_FRACTION = 0.6
"""Part of the field of view, per axis, on which a prostate slice is judged: the gland is centred by the operator, the
edge holds distortion-correction borders, wrap-around and coil hot spots that harm nobody."""

NOMINAL_TOLERANCE = 0.02
"""Relative deviation up to which the number of phase lines counts as the nominal one (rounding to whole lines)."""


@dataclass(frozen=True)
class AcquiredGrid:
    """Acquired lines and voxel size of one slice.

    ``shape`` is (rows, columns) and ``spacing_mm`` the acquired voxel along the same axes. ``phase_axis`` is 0 where
    phase is encoded along a column (``COL``), 1 along a row (``ROW``), None where the header is silent.
    ``known`` is False where the header gave no acquisition matrix and the stored grid stands in.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    phase_axis: int | None
    known: bool


@dataclass(frozen=True)
class AcquiredResolution:
    """Acquired voxel in mm along the frequency and phase axis; None where the header does not tell."""

    frequency_mm: float | None
    phase_mm: float | None


def acquired_lines(stack: Stack) -> tuple[int, int] | None:
    """Number of (frequency, phase) samples acquired, or None where Acquisition Matrix is absent or unusable.

    Most makers write the lines really acquired into Acquisition Matrix (0018,1310). Where the phase count equals the
    nominal isotropic one although Percent Sampling (0018,0093) is below 100, it is the nominal count and is reduced.
    """
    acquisition = stack.acquisition
    if acquisition.acquisition_matrix is None:
        return None
    frequency = max(acquisition.acquisition_matrix[0], acquisition.acquisition_matrix[1])
    phase = max(acquisition.acquisition_matrix[2], acquisition.acquisition_matrix[3])
    if frequency <= 1 or phase <= 1:
        return None
    nominal = frequency * (acquisition.percent_phase_field_of_view or 100.0) / 100.0
    sampling = acquisition.percent_sampling
    if sampling is not None and 0 < sampling < 100 and abs(phase / nominal - 1.0) <= NOMINAL_TOLERANCE:
        phase = max(2, round(phase * sampling / 100.0))
    return frequency, phase


def field_of_view_mm(stack: Stack) -> tuple[float, float] | None:
    """Extent of a slice (along rows axis, along columns axis) in mm, None without a geometry."""
    if stack.geometry is None:
        return None
    _, row_mm, column_mm = stack.geometry.spacing_mm
    return stack.rows * row_mm, stack.columns * column_mm


def phase_axis(stack: Stack) -> int | None:
    """Array axis (0 down, 1 across) of phase encoding from In-plane Phase Encoding Direction (0018,1312)."""
    return {"COL": 0, "ROW": 1}.get(stack.acquisition.in_plane_phase_encoding_direction or "")


def acquired_resolution(stack: Stack) -> AcquiredResolution:
    """Acquired voxel size from the field of view and the acquired lines; never from Pixel Spacing alone.

    With the phase direction unknown a square field of view still gives both; otherwise neither is told.
    """
    lines, extent, axis = acquired_lines(stack), field_of_view_mm(stack), phase_axis(stack)
    if lines is None or extent is None:
        return AcquiredResolution(None, None)
    if axis is None:
        if not np.isclose(extent[0], extent[1], rtol=NOMINAL_TOLERANCE):
            return AcquiredResolution(None, None)
        axis = 0
    return AcquiredResolution(extent[1 - axis] / lines[0], extent[axis] / lines[1])


def acquired_grid(stack: Stack) -> AcquiredGrid:
    """The grid to measure on: the acquired one where it is known and coarser, else the stored one.

    Raises:
        ValueError: the stack has no regular geometry.
    """
    extent, axis, lines = field_of_view_mm(stack), phase_axis(stack), acquired_lines(stack)
    if extent is None:
        raise ValueError(f"volume {stack.volume_id} has no regular geometry")
    stored = (stack.rows, stack.columns)
    if axis is None or lines is None:
        return AcquiredGrid(stored, (extent[0] / stored[0], extent[1] / stored[1]), axis, known=False)
    wanted = (lines[1], lines[0]) if axis == 0 else (lines[0], lines[1])
    shape = (min(stored[0], wanted[0]), min(stored[1], wanted[1]))
    return AcquiredGrid(shape, (extent[0] / shape[0], extent[1] / shape[1]), axis, known=True)


def stored_grid(stack: Stack) -> AcquiredGrid:
    """The grid of the stored pixels: what a computed map, which was never acquired, is measured on.

    Raises:
        ValueError: the stack has no regular geometry.
    """
    extent = field_of_view_mm(stack)
    if extent is None:
        raise ValueError(f"volume {stack.volume_id} has no regular geometry")
    spacing = (extent[0] / stack.rows, extent[1] / stack.columns)
    return AcquiredGrid(
        (stack.rows, stack.columns), spacing, phase_axis(stack), known=acquired_lines(stack) is not None
    )


def to_acquired(image: NDArray[np.float64], grid: AcquiredGrid) -> NDArray[np.float64]:
    """Undo zero-filling: keep the central ``grid.shape`` of the image's Fourier plane ``[row, column]``.

    The mean is preserved. An image already on the grid is returned as it is.
    """
    if image.shape == grid.shape:
        return image
    spectrum = fft.fftshift(fft.fft2(image))
    first = [have // 2 - want // 2 for have, want in zip(image.shape, grid.shape, strict=True)]
    central = spectrum[first[0] : first[0] + grid.shape[0], first[1] : first[1] + grid.shape[1]]
    scale = grid.shape[0] * grid.shape[1] / image.size
    return np.asarray(np.abs(fft.ifft2(fft.ifftshift(central))) * scale)


def central_box(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The central CENTRAL_FRACTION of the image along both axes."""
    margins = [round(size * (1.0 - CENTRAL_FRACTION) / 2.0) for size in image.shape]
    return image[margins[0] : image.shape[0] - margins[0], margins[1] : image.shape[1] - margins[1]]
