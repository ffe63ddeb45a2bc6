"""Sequence physics: what each tissue sends back, and the raw data a scanner records of it.

Spin echo: S = PD (1 - exp(-TR/T1)) exp(-TE/T2), with the effective echo time for a turbo spin echo; diffusion weighting
multiplies by exp(-b ADC) (Stejskal & Tanner 1965). Fat saturation leaves ``RESIDUAL_FAT`` of the fat signal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.simulation.anatomy import Anatomy
from ai.simulation.kspace import KSpace, KSpaceData, Scalar, resize_centre, to_kspace
from ai.simulation.protocol import Plane, Protocol, SeriesKind
from ai.simulation.tissues import property_table

RESIDUAL_FAT = 0.035
"""Share of fat signal that survives spectral fat saturation; typical, by eye."""
BOUNDARY_BLUR_MM = 0.35
"""Tissues do not end within a tenth of a millimetre: sub-voxel softness of edges, by eye."""
ADC_PER_T2 = 0.5
"""How far ADC follows local T2 (in logarithms); the two correlate in normal prostate (Simpkin et al. 2013)."""

_SLICE_AXIS: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}


@dataclass(frozen=True)
class Slab:
    """The tissue in one slice: labels, grain and septa ``[plane, row, column]`` and the share of each plane."""

    labels: NDArray[np.uint8]
    grain: NDArray[np.float32]
    septa: NDArray[np.float32]
    weights: NDArray[np.float32]


def slice_centres_mm(protocol: Protocol) -> NDArray[np.float64]:
    """Slice positions along the slice axis of the anatomy's frame: rising, contiguous, centred on the gland."""
    offsets = np.arange(protocol.slices) - (protocol.slices - 1) / 2
    return np.asarray(offsets * protocol.slice_thickness_mm, np.float64)


def slabs(anatomy: Anatomy, protocol: Protocol) -> Iterator[Slab]:
    """The tissue in each slice, turned so that rows and columns are those of the image."""
    axis = _SLICE_AXIS[protocol.plane]
    centres, step = anatomy.centres_mm[axis], anatomy.spacing_mm[axis]
    for position in slice_centres_mm(protocol):
        overlap = (protocol.slice_thickness_mm + step) / 2 - np.abs(centres - position)
        weights = np.clip(overlap / step, 0, 1).astype(np.float32)
        planes = np.flatnonzero(weights)
        coarse = np.minimum(planes // 2, anatomy.grain.shape[axis] - 1)
        yield Slab(
            labels=_image_axes(anatomy.labels.take(planes, axis), protocol.plane),
            grain=_doubled(_image_axes(anatomy.grain.take(coarse, axis), protocol.plane)),
            septa=_doubled(_image_axes(anatomy.septa.take(coarse, axis), protocol.plane)),
            weights=weights[planes] / weights[planes].sum(),
        )


def _image_axes(block: NDArray[Scalar], plane: Plane) -> NDArray[Scalar]:
    """From ``[z, y, x]`` to ``[slice, row, column]``: sagittal and coronal images have the head on top."""
    if plane == "axial":
        return block
    if plane == "coronal":
        return block.transpose(1, 0, 2)[:, ::-1]
    return block.transpose(2, 0, 1)[:, ::-1]


def _doubled(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring texture to the label grid in plane (it is twice as coarse)."""
    return block.repeat(2, axis=1).repeat(2, axis=2)


def slab_signals(slab: Slab, protocol: Protocol, only_fat: bool = False) -> NDArray[np.float32]:
    """Mean signal over the slice thickness, float32 ``[b, row, column]`` (one image without diffusion weighting).

    Signal 1 is undecayed water. With ``only_fat`` it is the signal that fat would have without suppression.
    """
    steady = property_table("proton_density") * (1 - np.exp(-protocol.repetition_time_ms / property_table("t1_ms")))
    if only_fat:
        steady *= property_table("is_fat") > 0
    elif protocol.b_values:
        steady *= np.where(property_table("is_fat") > 0, RESIDUAL_FAT, 1.0)
    labels = slab.labels
    variation = property_table("grain")[labels] * slab.grain - property_table("septa")[labels] * slab.septa
    relaxation = protocol.echo_time_ms / property_table("t2_ms").astype(np.float32)
    signal = steady.astype(np.float32)[labels] * np.exp(-relaxation[labels] * np.exp(-variation))
    if not protocol.b_values:
        return np.tensordot(slab.weights, signal, 1)[None]
    diffusion = property_table("adc_um2_per_s")[labels] * np.exp(ADC_PER_T2 * variation) * np.float32(1e-6)
    return np.stack(
        [np.tensordot(slab.weights, signal * np.exp(np.float32(-b) * diffusion), 1) for b in protocol.b_values]
    )


def acquire(anatomy: Anatomy, protocol: Protocol) -> tuple[KSpace, ...]:
    """Scan the anatomy: noiseless raw data, one stack per b-value (one in all without diffusion weighting)."""
    return raw_series(anatomy, protocol, record(anatomy, protocol))


def raw_series(anatomy: Anatomy, protocol: Protocol, stacks: tuple[KSpaceData, ...]) -> tuple[KSpace, ...]:
    """Samples ``[slice, row, column]`` of each volume with how the protocol acquired them."""
    extent_mm = _plane_extent_mm(anatomy, protocol.plane)
    b_values = protocol.b_values or (0.0,) * len(protocol.averages)
    return tuple(
        KSpace(
            data=data,
            extent_mm=extent_mm,
            shown_mm=(protocol.field_of_view_mm, protocol.field_of_view_mm),
            phase_axis=2 if protocol.phase_direction == "ROW" else 1,
            echo_train_length=protocol.echo_train_length,
            echo_spacing_ms=protocol.echo_spacing_ms,
            slice_thickness_mm=protocol.slice_thickness_mm,
            noise_sd=protocol.noise_sd / float(np.sqrt(averages)),
            typical_noise_sd=protocol.noise_sd / float(np.sqrt(averages)),
            averages=averages,
            echo_planar=protocol.kind == SeriesKind.DWI,
            b_value=b_value,
        )
        for data, averages, b_value in zip(stacks, protocol.averages, b_values, strict=True)
    )


def record(anatomy: Anatomy, protocol: Protocol, only_fat: bool = False) -> tuple[KSpaceData, ...]:
    """The samples of ``acquire``, complex64 ``[slice, row, column]`` per b-value; of fat alone, if so wanted."""
    stacks: list[list[KSpaceData]] = [[] for _ in protocol.averages]
    for slab in slabs(anatomy, protocol):
        for stack, signal in zip(stacks, slab_signals(slab, protocol, only_fat), strict=True):
            stack.append(encode(anatomy, protocol, signal))
    return tuple(np.stack(stack) for stack in stacks)


def encode(anatomy: Anatomy, protocol: Protocol, signal: NDArray[np.float32]) -> KSpaceData:
    """The acquired samples ``[row, column]`` of one slice, whose signal is given on the anatomy's grid."""
    extent_mm = _plane_extent_mm(anatomy, protocol.plane)
    fine = _even_grid(signal, extent_mm, upsampling(anatomy, protocol.plane))
    return resize_centre(to_kspace(fine * _coil(fine.shape, anatomy.seed)), *acquired_matrix(protocol, extent_mm))


def acquired_matrix(protocol: Protocol, extent_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of k-space over the whole extent, oversampling included."""
    along_phase = protocol.phase_lines / protocol.field_of_view_mm
    along_frequency = protocol.frequency_samples / protocol.field_of_view_mm
    per_row, per_column = (
        (along_frequency, along_phase) if protocol.phase_direction == "ROW" else (along_phase, along_frequency)
    )
    return round(extent_mm[0] * per_row), round(extent_mm[1] * per_column)


def _plane_extent_mm(anatomy: Anatomy, plane: Plane) -> tuple[float, float]:
    z, y, x = (n * step for n, step in zip(anatomy.labels.shape, anatomy.spacing_mm, strict=True))
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def upsampling(anatomy: Anatomy, plane: Plane) -> int:
    """How many times the rows of a slab are interpolated so that its pixels are about square."""
    z, y, x = anatomy.spacing_mm
    row_step, column_step = {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]
    return max(1, round(row_step / column_step))


def _even_grid(signal: NDArray[np.float32], extent_mm: tuple[float, float], row_factor: int) -> NDArray[np.float32]:
    """Interpolate the rows ``row_factor`` times, then soften edges by ``BOUNDARY_BLUR_MM``."""
    rows = signal.shape[0]
    if row_factor > 1:
        wanted = (np.arange(rows * row_factor) - (row_factor - 1) / 2) / row_factor
        low = np.clip(np.floor(wanted).astype(int), 0, rows - 2)
        share = np.clip(wanted - low, 0, 1).astype(np.float32)[:, None]
        signal = signal[low] * (1 - share) + signal[low + 1] * share
    sigma = [BOUNDARY_BLUR_MM * n / extent for n, extent in zip(signal.shape, extent_mm, strict=True)]
    return np.asarray(ndimage.gaussian_filter(signal, sigma))


@lru_cache(maxsize=4)
def _coil(shape: tuple[int, ...], seed: int) -> NDArray[np.complex64]:
    """Receive sensitivity left after normalisation (within about 15 %) and the smooth phase of the object."""
    rng = np.random.default_rng([seed, 100])
    row, column = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]
    gain = 1 + 0.10 * (row**2 - 0.3) + rng.uniform(-0.05, 0.05) * row + rng.uniform(-0.05, 0.05) * column
    a, b, c, d = rng.uniform(-1, 1, 4)
    phase = a * row + b * column + c * row * column + d * (row**2 - column**2)
    return np.asarray(gain * np.exp(1j * phase), np.complex64)


def fit_adc(images: NDArray[np.float32], b_values: tuple[float, ...], background: float) -> NDArray[np.float32]:
    """Apparent diffusion coefficient by an unweighted log-linear fit, as scanners do it.

    Args:
        images: float32 ``[b, slice, row, column]``.
        b_values: s/mm2, at least two.
        background: signal of the first image below which the map is 0.

    Returns:
        float32 ``[slice, row, column]`` in 10^-6 mm2/s, never negative.
    """
    if len(b_values) < 2 or len(set(b_values)) != len(b_values):
        raise ValueError(f"an ADC fit needs two different b-values, not {b_values}")
    centred = np.asarray(b_values) - np.mean(b_values)
    weights = (-centred / (centred**2).sum()).astype(np.float32)
    slope = np.tensordot(weights, np.log(np.maximum(images, np.float32(1e-4))), 1)
    return np.where(images[0] < background, 0, np.maximum(slope * 1e6, 0)).astype(np.float32)
