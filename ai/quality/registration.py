"""Displacement along one axis between two images of different contrast, by discrete matching: a one-dimensional search.

Contrast: modality independent neighbourhood descriptors (MIND, Heinrich et al., Med Image Anal 2012;16:1423), in plane.
Every shift of a fixed range is tried at every voxel, so there is no local optimum to be caught in; smoothness comes
from alternating a voxel-wise search, coupled to the smooth field, with smoothing of what it found (coupled convex
optimisation, Steinbruecker et al., ICCV 2009; Heinrich et al., WBIR 2014). Deterministic; blind to the grey scale.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image: TypeAlias = NDArray[np.float32]

NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))
"""In-plane neighbours (row, column) a voxel's patch is compared with; slices are too thick to be neighbours."""

PATCH_SIGMA = 0.7
"""SD of the Gaussian patch in voxels: with the neighbours, about five voxels of structure."""

LEAST_VARIANCE_SHARE = 0.01
"""Local variance counts as no less than this share of its median, so that noise in flat regions is no structure."""

COST_SIGMA_MM = (1.8, 3.0, 3.0)
"""SD along slice, row and column over which matching costs are gathered before they are compared."""

FIELD_SIGMA_MM = (3.6, 6.0, 6.0)
"""SD of the field's smoothing: off-resonance is smooth, except within some millimetres of gas. Less between slices,
which are excited one by one."""

COUPLING_PER_MM2 = (0.0, 0.002, 0.005, 0.01, 0.03, 0.1)
"""Weight of the distance to the smooth field, round by round: from free search to agreement. Descriptors differ by 0
to 1, so the last round lets a voxel leave the field by 2 mm only for a match that is better by 0.2."""

STEP_VOXELS = 0.5
"""Distance between the shifts that are tried; between them a parabola is fitted."""


def displacement_along(
    fixed: Image, moving: Image, axis: int, spacing_mm: tuple[float, float, float], farthest_mm: float
) -> Image:
    """For every voxel of ``fixed`` how far along ``axis`` its tissue lies in ``moving``: mm, float32, smooth.

    Args:
        fixed: ``[slice, row, column]`` on an in-plane isotropic grid; NaN where not imaged.
        moving: the other image on the same grid.
        axis: 1 along rising rows, 2 along rising columns.
        spacing_mm: voxel size along slice, row and column, the last two alike.
        farthest_mm: shifts up to this distance to either side are tried; what lies further is reported nearer.

    Raises:
        ValueError: one of the images has no structure at all.
    """
    step_mm = spacing_mm[axis]
    reach = round(farthest_mm / step_mm / STEP_VOXELS)
    shifts = np.arange(-reach, reach + 1) * STEP_VOXELS
    first, second = descriptors(fixed), descriptors(moving)
    gathered = _voxels(COST_SIGMA_MM, spacing_mm)
    costs = np.stack([_cost(first, second, axis, float(shift), gathered) for shift in shifts])
    shifts_mm = (shifts * step_mm).astype(np.float32)
    return _smooth_minimum(costs, shifts_mm, _voxels(FIELD_SIGMA_MM, spacing_mm))


def descriptors(image: Image) -> Image:
    """MIND of each voxel: float32 ``[neighbour, slice, row, column]``, 1 where a neighbour's patch is most alike.

    Raises:
        ValueError: the image is flat.
    """
    known = np.isfinite(image)
    filled = np.where(known, image, np.float32(0))
    distances = np.stack(
        [
            ndimage.gaussian_filter(
                (filled - ndimage.shift(filled, (0, *neighbour), order=0, mode="nearest")) ** 2,
                (0.0, PATCH_SIGMA, PATCH_SIGMA),
            )
            for neighbour in NEIGHBOURS
        ]
    )
    variance = distances.mean(axis=0)
    least = LEAST_VARIANCE_SHARE * float(np.median(variance[known])) if known.any() else 0.0
    if least <= 0:
        raise ValueError("an image without structure cannot be matched")
    return np.exp(-(distances - distances.min(axis=0)) / np.maximum(variance, least)).astype(np.float32)


def _voxels(sigma_mm: Sequence[float], spacing_mm: Sequence[float]) -> tuple[float, ...]:
    return tuple(sigma / step for sigma, step in zip(sigma_mm, spacing_mm, strict=True))


def _cost(fixed: Image, moving: Image, axis: int, shift: float, sigma: Sequence[float]) -> Image:
    """Mean difference of the descriptors if the tissue lies ``shift`` voxels further, gathered over ``sigma``."""
    position = np.clip(np.arange(moving.shape[axis + 1]) + shift, 0, moving.shape[axis + 1] - 1)
    low = np.floor(position).astype(int)
    share = _along((position - low).astype(np.float32), axis + 1)
    moved = moving.take(low, axis + 1)
    if share.any():
        moved += share * (moving.take(np.minimum(low + 1, moving.shape[axis + 1] - 1), axis + 1) - moved)
    return np.asarray(ndimage.gaussian_filter(np.abs(fixed - moved).mean(axis=0), sigma))


def _along(values: Image, axis: int) -> Image:
    """One value per index of ``axis``, shaped to broadcast over four axes."""
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)


def _smooth_minimum(costs: Image, shifts_mm: Image, sigma: Sequence[float]) -> Image:
    """The smooth field of least cost. Voxels that match nearly everywhere alike hardly weigh in the smoothing."""
    certainty = costs.mean(axis=0) - costs.min(axis=0) + np.float32(1e-6)
    total = ndimage.gaussian_filter(certainty, sigma)
    field = np.zeros(costs.shape[1:], np.float32)
    for coupling in COUPLING_PER_MM2:
        distance = shifts_mm[:, None, None, None] - field
        found = _minimum(costs + np.float32(coupling / 2) * distance**2, shifts_mm)
        field = np.asarray(ndimage.gaussian_filter(found * certainty, sigma) / total)
    return field


def _minimum(costs: Image, shifts_mm: Image) -> Image:
    """The shift of least cost per voxel, refined by the parabola through it and its two neighbours."""
    best = costs.argmin(axis=0)
    inner = np.clip(best, 1, len(shifts_mm) - 2)
    before, at, after = (np.take_along_axis(costs, (inner + step)[None], axis=0)[0] for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    refined = np.clip((before - after) / (2 * np.maximum(curvature, 1e-9)), -0.5, 0.5)
    step_mm = shifts_mm[1] - shifts_mm[0]
    return np.where(best == inner, shifts_mm[inner] + refined * step_mm, shifts_mm[best]).astype(np.float32)
