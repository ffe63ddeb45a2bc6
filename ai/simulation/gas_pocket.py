"""A pocket of rectal gas for series of which only magnitudes are known: an ellipsoid behind the centre of the image."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ai.simulation.artifacts.fat import PROTON_MHZ_PER_T
from ai.simulation.off_resonance import GRID_MM, dipole_field_hz, on_acquired_grid

GLAND_BACK_MM = (16.0, 24.0)
"""How far the gland reaches behind the centre of an image planned on it: half of a depth of 32 to 48 mm."""
SEMI_AXES_MM = ((14.0, 28.0), (8.0, 15.0), (9.0, 18.0))
"""Half lengths of the pocket along z (superior), y (posterior) and x: from little gas to a distended rectum."""
SOFT_EDGE_MM = 2.0
AROUND_MM = 80.0
"""How far around the pocket its field is computed; beyond, the field of the block's face is carried on."""


@dataclass(frozen=True)
class GasPocket:
    """Centre and half lengths of an ellipsoid along z, y, x, in mm from the centre of the stack."""

    centre_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]

    @classmethod
    def random(cls, rng: np.random.Generator) -> "GasPocket":
        """A pocket whose front wall touches the back of the gland."""
        along_z, along_y, along_x = (float(rng.uniform(low, high)) for low, high in SEMI_AXES_MM)
        behind = float(rng.uniform(*GLAND_BACK_MM)) + along_y
        return cls((float(rng.uniform(-8, 8)), behind, float(rng.uniform(-5, 5))), (along_z, along_y, along_x))


@lru_cache(maxsize=16)
def pocket_maps(
    pocket: GasPocket,
    slices: int,
    slice_spacing_mm: float,
    samples: tuple[int, int],
    extent_mm: tuple[float, float],
    field_strength_t: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Field in Hz and share of gas on the acquired grid of an axial series, float32 ``[slice, row, column]`` each.

    Args:
        pocket: the gas; susceptibility and dipole as for simulated anatomy (``ai.simulation.off_resonance``).
        slices: how many; the stack's centre is at 0.
        slice_spacing_mm: between them.
        samples: acquired rows and columns.
        extent_mm: what they span.
        field_strength_t: of the main field, along z.
    """
    cells = 2 * round(AROUND_MM / GRID_MM)
    offsets = (np.arange(cells) - (cells - 1) / 2) * GRID_MM
    z, y, x = np.meshgrid(*(offsets / semi for semi in pocket.semi_axes_mm), indexing="ij")
    distance = np.sqrt(z**2 + y**2 + x**2)
    edge = SOFT_EDGE_MM / min(pocket.semi_axes_mm)
    gas = np.clip((1 - distance) / edge + 0.5, 0, 1).astype(np.float32)
    field_hz = dipole_field_hz(gas, field_strength_t * PROTON_MHZ_PER_T)
    centre_z, *centre_in_plane = pocket.centre_mm
    slices_mm = np.asarray((np.arange(slices) - (slices - 1) / 2) * slice_spacing_mm - centre_z, np.float64)
    centre_mm = (centre_in_plane[0], centre_in_plane[1])
    return (
        on_acquired_grid(field_hz, slices_mm, samples, extent_mm, centre_mm),
        on_acquired_grid(gas, slices_mm, samples, extent_mm, centre_mm),
    )
