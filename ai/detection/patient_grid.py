"""Patient-aligned working grids: the detector thinks in LPS millimetres, not in the scanner's rows and columns.

Working on a grid along the patient axes (PS3.3 C.7.6.2.1.1) makes the answer independent of flips, of slice order
and, up to interpolation, of oblique slices.
"""

import numpy as np
from numpy.typing import NDArray

from ai.volumes.types import Geometry

MAXIMUM_EXTENT_MM = 240.0
"""No grid reaches further than this along an axis: a prostate field of view is 120-200 mm (PI-RADS v2.1)."""


def patient_grid(
    geometry: Geometry, spacing_mm: float, half_extent_mm: tuple[float, float, float] | None = None
) -> Geometry:
    """An isotropic grid along the patient axes around the centre of ``geometry``.

    Args:
        geometry: the grid to work in.
        spacing_mm: distance between voxel centres.
        half_extent_mm: reach to either side along S, P and L; by default the bounding box of ``geometry``. Either
            way at most ``MAXIMUM_EXTENT_MM`` in all.

    Returns:
        Geometry whose slice, row and column index rise towards superior, posterior and left.
    """
    centre = geometry.to_lps_mm((np.asarray([geometry.shape], np.float64) - 1) / 2)[0]
    reach = bounding_half_extent_mm(geometry)
    if half_extent_mm is not None:
        reach = np.minimum(reach, half_extent_mm)
    reach = np.minimum(reach, MAXIMUM_EXTENT_MM / 2)
    steps = np.floor(reach / spacing_mm).astype(int)
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = spacing_mm
    affine[:3, 3] = centre - spacing_mm * steps[::-1]
    affine[3, 3] = 1
    slices, rows, columns = (int(2 * step + 1) for step in steps)
    return Geometry(affine, (slices, rows, columns))


def bounding_half_extent_mm(geometry: Geometry) -> NDArray[np.float64]:
    """Half the patient-aligned bounding box of all voxels, along S, P and L in mm."""
    edges = np.abs(geometry.affine_lps_mm[:3, :3]) * np.asarray(geometry.shape, np.float64)
    return np.asarray(edges.sum(axis=1)[::-1] / 2)
