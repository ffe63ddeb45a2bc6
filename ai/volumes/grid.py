"""From slice positions to a regular grid in patient space, with every irregularity named (PS3.3 C.7.6.2.1.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.volumes.types import Geometry, Plane, StackAnomaly

SAME_POSITION_MM = 0.02
"""Slices closer than this along the normal lie at one position: vendors' rounding is below 1e-4 mm, steps above 0.2."""
STEP_TOLERANCE = 0.05
"""How far, in slice steps, a slice may lie from its place on the grid. The scanners' rounding stays below 1e-4; the CT
series measured with a real change of spacing is a quarter of a step off."""
SHEAR_TOLERANCE = 0.01
"""Tangent of the angle between stacking direction and normal above which a stack is called sheared (0.6 degrees)."""
MAX_GRID_PER_SLICE = 2
"""A grid with more empty than filled places is a guess, not a gap: the stack is irregular instead."""
ORTHONORMAL_TOLERANCE = 0.01
"""How far direction cosines may be from unit length and perpendicular before they are damage."""
PLANE_COSINE = np.cos(np.deg2rad(45.0))
"""A stack belongs to the anatomical plane whose axis lies within 45 degrees of its normal; axial prostate series
are tilted by up to 23 degrees (cosines down to 0.92)."""


@dataclass(frozen=True)
class Grid:
    """``indices[i]`` is the grid row of the i-th slice; ``geometry`` is None where the slices form no grid."""

    geometry: Geometry | None
    indices: tuple[int, ...]
    anomalies: tuple[StackAnomaly, ...]


def is_orientation(cosines: Sequence[float] | None) -> bool:
    """Whether these six numbers are two perpendicular unit vectors."""
    if cosines is None:
        return False
    row, column = np.asarray(cosines[:3]), np.asarray(cosines[3:])
    gram = np.array([row @ row - 1.0, column @ column - 1.0, row @ column])
    return bool(np.all(np.abs(gram) <= ORTHONORMAL_TOLERANCE))


def slice_normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    """Unit normal of Image Orientation (Patient): the cross product of its row and column directions."""
    normal = np.cross(np.asarray(orientation[:3]), np.asarray(orientation[3:]))
    return np.asarray(normal / np.linalg.norm(normal))


def plane_of(orientation: Sequence[float]) -> Plane:
    """The anatomical plane nearest to an orientation."""
    normal = np.abs(slice_normal(orientation))
    axis = int(np.argmax(normal))
    if normal[axis] <= PLANE_COSINE:
        return "oblique"
    planes: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")
    return planes[axis]


def position_groups(positions_lps_mm: NDArray[np.float64], normal: NDArray[np.float64]) -> list[list[int]]:
    """Slice numbers grouped by position and sorted along the normal; several in a group share a position.

    ``positions_lps_mm`` is ``[n, 3]``. Within a group the given order is kept.
    """
    offsets = positions_lps_mm @ normal
    groups: list[list[int]] = []
    for number in np.argsort(offsets, kind="stable"):
        if groups and offsets[number] - offsets[groups[-1][0]] <= SAME_POSITION_MM:
            groups[-1].append(int(number))
        else:
            groups.append([int(number)])
    return [sorted(group) for group in groups]


def fit_grid(
    positions_lps_mm: NDArray[np.float64],
    orientation: Sequence[float],
    pixel_spacing_mm: Sequence[float],
    size: tuple[int, int],
    single_slice_step_mm: float | None,
) -> Grid:
    """The regular grid through slices at distinct positions, sorted along the normal.

    Args:
        positions_lps_mm: ``[n, 3]``, Image Position (Patient).
        orientation: Image Orientation (Patient).
        pixel_spacing_mm: distance between rows, then between columns.
        size: rows, columns.
        single_slice_step_mm: the extent of a lone slice along the normal, where the header has one.
    """
    normal = slice_normal(orientation)
    count = len(positions_lps_mm)
    consecutive = tuple(range(count))
    if count == 1:
        if single_slice_step_mm is None:
            return Grid(None, consecutive, (StackAnomaly.SINGLE_SLICE, StackAnomaly.NO_GEOMETRY))
        affine = _affine(positions_lps_mm[0], normal * single_slice_step_mm, orientation, pixel_spacing_mm)
        return Grid(Geometry(affine, (1, *size)), consecutive, (StackAnomaly.SINGLE_SLICE,))
    sheared = (StackAnomaly.SHEARED,) if _is_sheared(positions_lps_mm, normal) else ()
    indices = _grid_rows(positions_lps_mm @ normal)
    if indices is None:
        return Grid(None, consecutive, (StackAnomaly.IRREGULAR_SPACING, *sheared))
    design = np.column_stack([indices, np.ones(count)])
    (step, origin), *_ = np.linalg.lstsq(design, positions_lps_mm, rcond=None)
    misplaced = np.linalg.norm(design @ np.stack([step, origin]) - positions_lps_mm, axis=1)
    if misplaced.max() > STEP_TOLERANCE * float(np.linalg.norm(step)):
        return Grid(None, consecutive, (StackAnomaly.IRREGULAR_SPACING, *sheared))
    length = int(indices[-1]) + 1
    missing = (StackAnomaly.MISSING_SLICE,) if length > count else ()
    affine = _affine(origin, step, orientation, pixel_spacing_mm)
    return Grid(Geometry(affine, (length, *size)), tuple(int(index) for index in indices), (*missing, *sheared))


def _grid_rows(offsets: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The grid row of each offset (rising) where all gaps are whole multiples of the smallest; None otherwise."""
    steps = np.diff(offsets)
    multiples = steps / steps.min()
    whole = np.rint(multiples)
    if np.abs(multiples - whole).max() > STEP_TOLERANCE * whole.max() or whole.sum() + 1 > MAX_GRID_PER_SLICE * len(
        offsets
    ):
        return None
    return np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)


def _is_sheared(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    travel = positions[-1] - positions[0]
    along = float(travel @ normal)
    return bool(np.linalg.norm(travel - along * normal) > SHEAR_TOLERANCE * abs(along))


def _affine(
    origin: NDArray[np.float64],
    step: NDArray[np.float64],
    orientation: Sequence[float],
    pixel_spacing_mm: Sequence[float],
) -> NDArray[np.float64]:
    """Index (slice, row, column, 1) to LPS mm: equation C.7.6.2.1-1 with the slice step as first column."""
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.asarray(orientation[3:]) * pixel_spacing_mm[0]
    affine[:3, 2] = np.asarray(orientation[:3]) * pixel_spacing_mm[1]
    affine[:3, 3] = origin
    return affine
