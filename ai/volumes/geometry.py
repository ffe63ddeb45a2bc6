"""Moving values between grids in patient space and comparing where grids lie."""

from collections.abc import Hashable

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
