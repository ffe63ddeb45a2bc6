"""A label map under construction: shapes are painted in millimetres, later ones over earlier ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.simulation.tissues import Tissue

Coordinates = NDArray[np.floating]
Point = tuple[float, float, float]
"""Millimetres along (x, y, z): patient left, posterior, superior of the gland's centre."""


@dataclass(frozen=True)
class Canvas:
    """Labels uint8 ``[z, y, x]`` and the millimetres of each axis, seen from the gland's centre.

    x points to the patient's left, y posterior, z superior, all in the gland's own (slightly tilted) frame.
    """

    labels: NDArray[np.uint8]
    z_mm: Coordinates
    y_mm: Coordinates
    x_mm: Coordinates

    def view(self, low: Point, high: Point) -> "Canvas":
        """The part between two corners, sharing memory with this one."""
        z, y, x = (
            slice(int(np.searchsorted(axis, low[i])), int(np.searchsorted(axis, high[i], "right")))
            for axis, i in ((self.z_mm, 2), (self.y_mm, 1), (self.x_mm, 0))
        )
        return Canvas(self.labels[z, y, x], self.z_mm[z], self.y_mm[y], self.x_mm[x])

    @property
    def open_grid(self) -> tuple[Coordinates, Coordinates, Coordinates]:
        """z, y and x shaped so that they broadcast to the canvas."""
        return self.z_mm[:, None, None], self.y_mm[None, :, None], self.x_mm[None, None, :]

    def paint(self, tissue: Tissue, where: NDArray[np.bool_]) -> None:
        """Set ``where`` (broadcastable to the canvas) to a tissue."""
        np.copyto(self.labels, np.uint8(tissue), where=where)

    def paint_ellipsoid(
        self, tissue: Tissue, centre: Point, radii: Point, rim: tuple[Tissue, float] | None = None
    ) -> None:
        """Paint an ellipsoid with radii in mm, with an optional rim of another tissue and thickness in mm inside it."""
        low = (centre[0] - radii[0], centre[1] - radii[1], centre[2] - radii[2])
        high = (centre[0] + radii[0], centre[1] + radii[1], centre[2] + radii[2])
        part = self.view(low, high)
        if rim is not None:
            part.paint(rim[0], part.ellipsoid(centre, radii) < 1)
            radii = (radii[0] - rim[1], radii[1] - rim[1], radii[2] - rim[1])
        part.paint(tissue, part.ellipsoid(centre, radii) < 1)

    def paint_both_sides(
        self, tissue: Tissue, centre: Point, radii: Point, rim: tuple[Tissue, float] | None = None
    ) -> None:
        """Paint an ellipsoid and its mirror image on the patient's other side."""
        for side in (-1, 1):
            self.paint_ellipsoid(tissue, (side * centre[0], centre[1], centre[2]), radii, rim)

    def paint_tube(
        self,
        tissue: Tissue,
        path: Callable[[Coordinates], tuple[Coordinates, Coordinates]],
        radius: Callable[[Coordinates], tuple[Coordinates, Coordinates]],
        z_range_mm: tuple[float, float],
    ) -> None:
        """Paint a tube along z. ``path`` gives its centre (x, y) and ``radius`` its half widths (x, y) at each z."""
        part = self.view((-np.inf, -np.inf, z_range_mm[0]), (np.inf, np.inf, z_range_mm[1]))
        centre_x, centre_y = path(part.z_mm)
        radius_x, radius_y = radius(part.z_mm)
        reach_x, reach_y = float(radius_x.max()), float(radius_y.max())
        low = (float(centre_x.min()) - reach_x, float(centre_y.min()) - reach_y, z_range_mm[0])
        high = (float(centre_x.max()) + reach_x, float(centre_y.max()) + reach_y, z_range_mm[1])
        part = part.view(low, high)
        _, y, x = part.open_grid
        across = ((x - centre_x[:, None, None]) / radius_x[:, None, None]) ** 2
        part.paint(tissue, across + ((y - centre_y[:, None, None]) / radius_y[:, None, None]) ** 2 < 1)

    def ellipsoid(self, centre: Point, radii: Point) -> Coordinates:
        """Squared normalised distance from an ellipsoid's centre: below 1 inside."""
        z, y, x = self.open_grid
        flat = ((z - centre[2]) / radii[2]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
        return np.asarray(flat + ((x - centre[0]) / radii[0]) ** 2)
