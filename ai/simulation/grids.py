"""Where simulated images lie in the patient: image grids in LPS mm (PS3.3 C.7.6.2.1.1) and masks on them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.simulation.anatomy import CENTRE_MM, Anatomy
from ai.simulation.protocol import Plane, Protocol
from ai.simulation.sequences import slabs, slice_centres_mm, upsampling
from ai.volumes.types import Geometry

_DIRECTIONS: dict[Plane, tuple[tuple[int, int, int], ...]] = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
"""Per plane: what rising slice, row and column index mean in the frame's (x, y, z)."""


def image_geometry(anatomy: Anatomy, protocol: Protocol) -> Geometry:
    """The grid of a reconstructed series.

    Pixel ``matrix // 2`` is the transform's centre, which is half a fine step beyond the middle of the anatomy.
    """
    directions = np.asarray(_DIRECTIONS[protocol.plane], float)
    slice_direction, row_direction, column_direction = directions
    spacing = protocol.pixel_spacing_mm
    first_slice = float(slice_centres_mm(protocol)[0])
    half_row, half_column = (step / 2 for step in _fine_steps_mm(anatomy, protocol.plane))
    centre = np.asarray(CENTRE_MM[::-1]) * (1 - np.abs(slice_direction))
    origin = centre + first_slice * slice_direction
    origin += (half_row - protocol.matrix // 2 * spacing) * row_direction
    origin += (half_column - protocol.matrix // 2 * spacing) * column_direction
    index_to_frame = np.eye(4)
    index_to_frame[:3, 0] = slice_direction * protocol.slice_thickness_mm
    index_to_frame[:3, 1] = row_direction * spacing
    index_to_frame[:3, 2] = column_direction * spacing
    index_to_frame[:3, 3] = origin
    return Geometry(anatomy.frame_to_lps @ index_to_frame, (protocol.slices, protocol.matrix, protocol.matrix))


def mask_on_grid(
    anatomy: Anatomy, protocol: Protocol, belongs: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Voxels of a series that are more than half filled by the chosen labels, bool ``[slice, row, column]``."""
    fine_rows, fine_columns = _fine_steps_mm(anatomy, protocol.plane)
    offset = (np.arange(protocol.matrix) - protocol.matrix // 2) * protocol.pixel_spacing_mm
    mask = np.zeros((protocol.slices, protocol.matrix, protocol.matrix), bool)
    for index, slab in enumerate(slabs(anatomy, protocol)):
        filled = np.tensordot(slab.weights, belongs(slab.labels).astype(np.float32), 1)
        factor = upsampling(anatomy, protocol.plane)
        rows = (offset / fine_rows + filled.shape[0] * factor // 2 - (factor - 1) / 2) / factor
        columns = offset / fine_columns + filled.shape[1] // 2
        mask[index] = ndimage.map_coordinates(filled, np.meshgrid(rows, columns, indexing="ij"), order=1) > 0.5
    return mask


def _fine_steps_mm(anatomy: Anatomy, plane: Plane) -> tuple[float, float]:
    z, y, x = anatomy.spacing_mm
    rows, columns = {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]
    return rows / upsampling(anatomy, plane), columns
