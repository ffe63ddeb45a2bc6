"""Geometric distortion of diffusion images: how far tissue lies from where the axial T2 shows it.

Echo-planar images shift every voxel along the phase-encoding axis by off-resonance x echo spacing x field of view
(Jezzard and Balaban, Magn Reson Med 1995;34:65); beside rectal gas by many millimetres. The shift is measured by
registration along that one axis in patient space. Idea of judging distortion by geometry: AutoIQ, arXiv 2606.00393.

What is measured is T2 against diffusion: motion between the two series, bowel filling and true distortion all count,
because all of them put a lesion into another sector. Only the shift along phase is seen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from ai.quality.acquired import phase_axis
from ai.quality.definitions import RATIO
from ai.quality.registration import displacement_along
from ai.quality.types import Metric
from ai.volumes.diffusion_set import comparable_frame_of_reference
from ai.volumes.geometry import resample_coarser
from ai.volumes.types import Geometry, Stack, Volume

STEP_MM = 2.0
"""In-plane grid of the registration: about an acquired voxel of diffusion imaging (PI-RADS v2.1: at most 2.5 mm)."""

FARTHEST_MM = 16.0
"""Shifts looked for: beyond, the gland is torn and no registration tells by how much."""

CENTRE_SEMI_AXES_MM = (24.0, 24.0, 20.0)
"""Semi-axes (along the T2's slice, column and row axis) of the ellipsoid that is judged, around the middle of the axial
T2, where the operator plans the gland: that of a gland of 45 ml (median of 219 public csPCa cases) in the proportions
of 32 public gland masks."""

CONTEXT_MM = 40.0
"""In-plane half extent of what is registered: the gland, the rectum behind it and the obturator muscles beside it."""

MINIMUM_IMAGED_SHARE = 0.5
"""Share of the ellipsoid that both series must show."""

LARGEST_TILT_DEG = 20.0
"""Between the slice normals of T2 and diffusion: beyond, thick slices of the two show different tissue."""

DEFINITIONS: dict[str, tuple[str, str]] = {
    "displacement_p95": ("mm", "95th percentile of the distance along phase between tissue on diffusion and on T2"),
    "distortion_rigid": ("mm", "Median shift along phase against T2: motion, or the field's mean"),
    "distortion_median": ("mm", "Median distance along phase from T2 once the median shift is removed"),
    "distortion_p95": ("mm", "95th percentile of that distance"),
    "t2_dwi_mismatch": (RATIO, "1 - Dice of bright central tissue as imaged and as T2 places it"),
}
"""Metric -> UCUM unit and meaning."""


@dataclass(frozen=True)
class Displacement:
    """Shift along phase in mm (float32 ``[slice, row, column]`` on ``grid``) and the voxels it is judged on."""

    grid: Geometry
    phase_axis: int
    shift_mm: NDArray[np.float32]
    centre: NDArray[np.bool_]
    diffusion: NDArray[np.float32]


class NotComparable(ValueError):
    """T2 and diffusion cannot be laid over each other; the message says why."""


def distortion_metrics(t2: Volume, diffusion: Volume) -> tuple[Metric, ...]:
    """DEFINITIONS of one diffusion volume against the axial T2; None with the reason where not to be had.

    ``diffusion`` should be the image of the lowest b-value: most signal, and contrast nearest to T2.
    """
    try:
        found = displacement(t2, diffusion)
    except NotComparable as reason:
        return unmeasured(str(reason))
    shifts = found.shift_mm[found.centre]
    rigid = float(np.median(shifts))
    apart = np.abs(shifts - rigid)
    values = {
        "displacement_p95": float(np.percentile(np.abs(shifts), 95.0)),
        "distortion_rigid": abs(rigid),
        "distortion_median": float(np.median(apart)),
        "distortion_p95": float(np.percentile(apart, 95.0)),
        "t2_dwi_mismatch": outline_mismatch(found),
    }
    return tuple(
        Metric(name, values[name], unit, meaning, "" if values[name] is not None else "no bright tissue in the centre")
        for name, (unit, meaning) in DEFINITIONS.items()
    )


def unmeasured(reason: str) -> tuple[Metric, ...]:
    """The metrics without values."""
    return tuple(Metric(name, None, unit, meaning, reason) for name, (unit, meaning) in DEFINITIONS.items())


def why_not_comparable(t2: Stack, diffusion: Stack) -> str:
    """Why the two stacks cannot be compared, from their headers; empty: they can."""
    if t2.geometry is None or diffusion.geometry is None:
        return "slices form no regular grid"
    if not comparable_frame_of_reference(t2.frame_of_reference_uid, diffusion.frame_of_reference_uid):
        return "another frame of reference than the axial T2"
    if phase_axis(diffusion) is None:
        return "phase direction unknown"
    cosine = min(1.0, abs(float(t2.geometry.normal_lps @ diffusion.geometry.normal_lps)))
    tilt = float(np.degrees(np.arccos(cosine)))
    return f"slices tilted by {tilt:.0f} degrees against the axial T2" if tilt > LARGEST_TILT_DEG else ""


def displacement(t2: Volume, diffusion: Volume) -> Displacement:
    """How far tissue lies along the phase axis of ``diffusion`` from where ``t2`` shows it.

    Positive shifts point towards rising rows or columns of the diffusion image.

    Raises:
        NotComparable: different frame of reference, unknown phase direction, or not enough common tissue.
    """
    refusal = why_not_comparable(t2.stack, diffusion.stack)
    axis = phase_axis(diffusion.stack)
    if refusal or axis is None:
        raise NotComparable(refusal)
    grid = _common_grid(t2.geometry, diffusion.geometry, axis)
    fixed = resample_coarser(t2.pixels, t2.geometry, grid)
    moving = resample_coarser(diffusion.pixels, diffusion.geometry, grid)
    ellipsoid = _ellipsoid(t2.geometry, grid)
    centre = ellipsoid & np.isfinite(fixed) & np.isfinite(moving)
    if centre.sum() < MINIMUM_IMAGED_SHARE * _ellipsoid_voxels(grid):
        raise NotComparable("T2 and diffusion share too little of the centre of the T2")
    try:
        shift_mm = displacement_along(fixed, moving, axis + 1, grid.spacing_mm, FARTHEST_MM)
    except ValueError as flat:
        raise NotComparable(str(flat)) from flat
    return Displacement(grid, axis, shift_mm, centre, moving)


def outline_mismatch(found: Displacement) -> float | None:
    """1 - Dice of the bright tissue of the centre as diffusion images it and as it lies once put back to its T2 place.

    Bright is above Otsu's threshold of the centre; fat is suppressed, so that is the gland (and bladder, where it
    reaches in). None where the centre has one grey value.
    """
    values = found.diffusion[found.centre]
    if values.min() == values.max():
        return None
    bright = (np.nan_to_num(found.diffusion, nan=0.0) > threshold_otsu(values)).astype(np.float32)
    index = [np.asarray(axis, np.float32) for axis in np.indices(bright.shape, sparse=True)]
    index[found.phase_axis + 1] = index[found.phase_axis + 1] + found.shift_mm / STEP_MM
    restored = ndimage.map_coordinates(bright, np.broadcast_arrays(*index), order=1, mode="nearest") > 0.5
    seen, placed = bright[found.centre] > 0, restored[found.centre]
    total = int(seen.sum()) + int(placed.sum())
    return 1.0 - 2.0 * int((seen & placed).sum()) / total if total else None


def _middle_lps_mm(geometry: Geometry) -> NDArray[np.float64]:
    return np.asarray(geometry.to_lps_mm((np.asarray([geometry.shape], np.float64) - 1) / 2)[0])


def _common_grid(t2: Geometry, diffusion: Geometry, axis: int) -> Geometry:
    """Slices of the diffusion series near the middle of the T2, STEP_MM in plane, longer along phase for the search."""
    middle = diffusion.to_index(_middle_lps_mm(t2)[None])[0]
    half_slices = CENTRE_SEMI_AXES_MM[0] / diffusion.spacing_mm[0] + 1
    first = int(np.clip(np.ceil(middle[0] - half_slices), 0, diffusion.shape[0] - 1))
    last = int(np.clip(np.floor(middle[0] + half_slices), first, diffusion.shape[0] - 1))
    reach = [CONTEXT_MM, CONTEXT_MM]
    reach[axis] += FARTHEST_MM
    steps = [round(extent / STEP_MM) for extent in reach]
    affine = diffusion.affine_lps_mm.copy()
    affine[:3, 1:3] *= STEP_MM / np.asarray(diffusion.spacing_mm[1:])
    start = diffusion.to_lps_mm(np.array([[first, middle[1], middle[2]]]))[0]
    affine[:3, 3] = start - steps[0] * affine[:3, 1] - steps[1] * affine[:3, 2]
    return Geometry(affine, (last - first + 1, 2 * steps[0] + 1, 2 * steps[1] + 1))


def _ellipsoid(t2: Geometry, grid: Geometry) -> NDArray[np.bool_]:
    """Voxels of ``grid`` within CENTRE_SEMI_AXES_MM of the middle of the T2."""
    index = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij"), axis=-1)
    offset = grid.to_lps_mm(index.reshape(-1, 3).astype(np.float64)) - _middle_lps_mm(t2)
    slice_axis, row_axis = t2.normal_lps, t2.affine_lps_mm[:3, 1] / t2.spacing_mm[1]
    column_axis = t2.affine_lps_mm[:3, 2] / t2.spacing_mm[2]
    along = offset @ np.stack([slice_axis, column_axis, row_axis], axis=1) / np.asarray(CENTRE_SEMI_AXES_MM)
    return np.asarray((along**2).sum(axis=1) <= 1.0).reshape(grid.shape)


def _ellipsoid_voxels(grid: Geometry) -> float:
    """How many voxels of ``grid`` the whole ellipsoid has."""
    volume_ml = 4.0 / 3.0 * np.pi * float(np.prod(CENTRE_SEMI_AXES_MM)) / 1000.0
    return volume_ml / grid.voxel_volume_ml
