"""Moving values between grids in patient space and comparing where grids lie."""

from collections.abc import Hashable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.volumes.types import Geometry

MAX_VOXELS = 2**28
"""One GiB of float32, 1024 slices of 512 x 512: the limit of what is allocated at once."""
SAME_GRID_VOXELS = 0.1
"""Grids whose corners lie closer than this part of the smallest voxel edge are one grid."""
OVERLAP_SAMPLES = 32
"""Points per axis with which an overlap is measured: the error stays below 2 % of the volume."""

_FULL_WEIGHT = 1.0 - 1e-6

Box: TypeAlias = tuple[slice, slice, slice]


def resample(
    pixels: NDArray[np.float32], source: Geometry, target: Geometry, order: int, fill: float = float("nan")
) -> NDArray[np.float32]:
    """Values of ``pixels`` at the voxel centres of ``target``: float32 of the target's shape.

    A target voxel whose centre lies in no source voxel gets ``fill``. Missing source values (NaN) make NaN of every
    target voxel that would be interpolated from them.

    Args:
        pixels: ``[slice, row, column]`` on ``source``.
        order: spline order, 0 (nearest, for masks) to 3.

    Raises:
        ValueError: the array does not fit its geometry, or the target has more than ``MAX_VOXELS``.
    """
    if pixels.shape != source.shape:
        raise ValueError(f"array of shape {pixels.shape} on a grid of shape {source.shape}")
    if np.prod(target.shape, dtype=np.int64) > MAX_VOXELS:
        raise ValueError(f"target grid of shape {target.shape} has more than {MAX_VOXELS} voxels")
    index_map = np.linalg.inv(source.affine_lps_mm) @ target.affine_lps_mm
    valid = np.isfinite(pixels)
    if not valid.any():
        values = np.full(target.shape, np.nan, dtype=np.float32)
    elif valid.all():
        values = _transform(pixels, index_map, target.shape, order)
    else:
        values = _transform(_filled(pixels, valid), index_map, target.shape, order)
        weight = _transform(valid.astype(np.float32), index_map, target.shape, min(order, 1))
        values[weight < _FULL_WEIGHT] = np.nan
    for slice_index, plane in enumerate(values):
        plane[~_inside(index_map, source.shape, slice_index, plane.shape)] = fill
    return values


def resample_coarser(pixels: NDArray[np.float32], source: Geometry, target: Geometry) -> NDArray[np.float32]:
    """Linear resampling to a coarser grid of about the same axes, smoothed first so that fine detail does not alias.

    The part of ``source`` that the target covers is smoothed by half a target step along each axis that is finer there;
    missing values (NaN) weigh nothing. NaN outside, as of ``resample``.
    """
    box = index_box(source, target)
    part, grid = pixels[box], crop(source, box)
    if part.size == 0:
        return np.full(target.shape, np.nan, np.float32)
    have, wanted = np.asarray(source.spacing_mm), np.asarray(target.spacing_mm)
    sigma = np.where(have < wanted, wanted / 2 / have, 0.0)
    valid = np.isfinite(part)
    weight = ndimage.gaussian_filter(valid.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(valid, part, np.float32(0)), sigma) / np.maximum(weight, 1e-3)
    return resample(np.where(valid, smooth, np.nan).astype(np.float32), grid, target, 1)


def overlap_fraction(a: Geometry, b: Geometry) -> float:
    """How much of the smaller of two grids lies inside the other, from 0 to 1."""
    small, large = sorted((a, b), key=_volume_ml)
    axes = [(np.arange(OVERLAP_SAMPLES) + 0.5) / OVERLAP_SAMPLES * length - 0.5 for length in small.shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    index = large.to_index(small.to_lps_mm(points))
    inside = np.all((index >= -0.5) & (index <= np.array(large.shape) - 0.5), axis=1)
    return float(inside.mean())


def same_grid(a: Geometry, b: Geometry) -> bool:
    """Whether two grids have the same shape and voxel centres, within ``SAME_GRID_VOXELS``."""
    if a.shape != b.shape:
        return False
    corners = np.stack(np.meshgrid(*[(0.0, length - 1.0) for length in a.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    distance_mm = np.linalg.norm(a.to_lps_mm(corners) - b.to_lps_mm(corners), axis=1)
    return bool(distance_mm.max() <= SAME_GRID_VOXELS * min(a.spacing_mm))


def grid_key(geometry: Geometry) -> Hashable:
    """A key under which grids that are written alike (to 0.01 mm) meet; cheap where many are to be sorted."""
    return geometry.shape, tuple(np.round(geometry.affine_lps_mm[:3].ravel(), 2) + 0.0)


def crop(geometry: Geometry, box: Box) -> Geometry:
    """The part of a grid inside a box of index slices (step 1)."""
    start = np.array([[part.start for part in box]], np.float64)
    affine = geometry.affine_lps_mm.copy()
    affine[:3, 3] = geometry.to_lps_mm(start)[0]
    slices, rows, columns = (int(part.stop - part.start) for part in box)
    return Geometry(affine, (slices, rows, columns))


def index_box(geometry: Geometry, other: Geometry) -> Box:
    """The smallest index box of ``geometry`` that holds all of ``other`` as far as they overlap (may be empty)."""
    last = np.asarray(other.shape, np.float64) - 1
    corners = np.stack(np.meshgrid(*[(0.0, end) for end in last], indexing="ij"), axis=-1).reshape(-1, 3)
    index = geometry.to_index(other.to_lps_mm(corners))
    shape = np.asarray(geometry.shape)
    start = np.clip(np.floor(index.min(axis=0)), 0, shape).astype(int)
    stop = np.clip(np.ceil(index.max(axis=0)) + 1, start, shape).astype(int)
    return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])


def _volume_ml(geometry: Geometry) -> float:
    return geometry.voxel_volume_ml * float(np.prod(geometry.shape, dtype=np.float64))


def _inside(
    index_map: NDArray[np.float64], source_shape: tuple[int, int, int], slice_index: int, plane: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which voxel centres of a target slice lie in a source voxel (half a voxel beyond the outer centres included)."""
    rows, columns = np.ogrid[: plane[0], : plane[1]]
    inside = np.ones(plane, dtype=bool)
    for (along_slice, along_row, along_column, origin), length in zip(index_map[:3], source_shape, strict=True):
        index = along_slice * slice_index + along_row * rows + along_column * columns + origin
        inside &= (index >= -0.5) & (index <= length - 0.5)
    return inside


def _transform(
    pixels: NDArray[np.float32], index_map: NDArray[np.float64], shape: tuple[int, int, int], order: int
) -> NDArray[np.float32]:
    moved = ndimage.affine_transform(
        pixels,
        index_map[:3, :3],
        offset=index_map[:3, 3],
        output_shape=shape,
        output=np.float32,
        order=order,
        mode="nearest",
    )
    return np.asarray(moved)


def _filled(pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Missing values replaced by the nearest present one, so that splines do not carry NaN through the volume."""
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(pixels[tuple(nearest)])
