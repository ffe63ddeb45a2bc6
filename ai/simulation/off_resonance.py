"""The magnetic field error that rectal gas causes: a dipole convolution of susceptibility (Marques & Bowtell 2005)."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ai.simulation.anatomy import CENTRE_MM, Anatomy
from ai.simulation.kspace import KSpace
from ai.simulation.protocol import Protocol
from ai.simulation.sequences import slice_centres_mm
from ai.simulation.tissues import Tissue

GAS_MINUS_TISSUE_PPM = 9.4
"""Volume susceptibility of air (0.36 ppm) minus that of water-like tissue (-9.05 ppm)."""
LARMOR_HZ_PER_PPM = 123.2
"""Proton frequency at 2.89 T, the true field of scanners called 3 T."""
GRID_MM = 2.0


def off_resonance_hz(anatomy: Anatomy, protocol: Protocol, raw: KSpace) -> NDArray[np.float32]:
    """Field error in Hz on the acquired grid of an axial series, float32 ``[slice, row, column]``.

    Only rectal gas counts: shimming takes care of the body's outline.

    Raises:
        ValueError: the series is not axial.
    """
    if protocol.plane != "axial":
        raise ValueError("field maps are made for axial series")
    field = dipole_field_hz(_gas_on_coarse_grid(anatomy), LARMOR_HZ_PER_PPM)
    return on_acquired_grid(field, slice_centres_mm(protocol) - CENTRE_MM[0], raw.data.shape[1:], raw.extent_mm)


def on_acquired_grid(
    field: NDArray[np.float32],
    slices_mm: NDArray[np.float64],
    samples: tuple[int, ...],
    extent_mm: tuple[float, float],
    centre_mm: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """A map ``[z, y, x]`` of ``GRID_MM`` cells at slices (mm from its centre) and at the samples of each plane.

    ``centre_mm`` is where the map's centre lies in the plane, along rows and columns.
    """
    planes = slices_mm / GRID_MM + (field.shape[0] - 1) / 2
    rows, columns = (
        ((np.arange(count) - count // 2) * extent / count - centre) / GRID_MM + (size - 1) / 2
        for count, extent, size, centre in zip(samples, extent_mm, field.shape[1:], centre_mm, strict=True)
    )
    where = np.meshgrid(planes, rows, columns, indexing="ij")
    return np.asarray(ndimage.map_coordinates(field, where, order=1, mode="nearest"), np.float32)


def _gas_on_coarse_grid(anatomy: Anatomy) -> NDArray[np.float32]:
    """Share of gas per cell of about ``GRID_MM``, ``[z, y, x]``."""
    gas = (anatomy.labels == Tissue.RECTAL_GAS).astype(np.float32)
    for axis, step in enumerate(anatomy.spacing_mm):
        cells = round(gas.shape[axis] * step / GRID_MM)
        edges = (np.arange(cells) * gas.shape[axis]) // cells
        sizes = np.diff(np.append(edges, gas.shape[axis])).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = -1
        gas = np.add.reduceat(gas, edges, axis=axis) / sizes.reshape(shape)
    return gas


def dipole_field_hz(gas: NDArray[np.float32], larmor_hz_per_ppm: float) -> NDArray[np.float32]:
    """Field of gas (share per cell ``[z, y, x]``): convolution with 1/3 - kz^2/k^2; the main field is along z."""
    kz, ky, kx = np.meshgrid(*(fft.fftfreq(n) for n in gas.shape), indexing="ij")
    squared = kz**2 + ky**2 + kx**2
    squared[0, 0, 0] = 1.0
    kernel = 1 / 3 - kz**2 / squared
    kernel[0, 0, 0] = 0.0
    field_ppm = fft.ifftn(fft.fftn(gas) * kernel).real * GAS_MINUS_TISSUE_PPM
    return np.asarray(field_ppm * larmor_hz_per_ppm, np.float32)
