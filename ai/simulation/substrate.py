"""Ruin any clean magnitude series, simulated or real, as its scanner would: back to k-space, fault, reconstruction.

A magnitude image has lost its phase, its oversampling and its coils. A smooth random phase stands in for the first and
mirrored tissue for the second; noise is added to the noise the image has. What comes back is on the stored grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ai.quality.acquired import acquired_grid
from ai.simulation.artifacts import ARTIFACTS, Artifact
from ai.simulation.fat_estimate import fat_of_suppressed
from ai.simulation.gas_pocket import GasPocket, pocket_maps
from ai.simulation.kspace import KSpace, along, reconstruct, resize_centre, to_kspace
from ai.simulation.protocol import DWI, T2_AXIAL, T2_KINDS, SeriesKind
from ai.simulation.sequences import fit_adc
from ai.volumes.types import Acquisition, Role, Volume

KIND_OF_ROLE = {
    Role.T2W_AXIAL: SeriesKind.T2_AXIAL,
    Role.T2W_SAGITTAL: SeriesKind.T2_SAGITTAL,
    Role.T2W_CORONAL: SeriesKind.T2_CORONAL,
    Role.DWI: SeriesKind.DWI,
    Role.DCE: SeriesKind.DCE,
}
TYPICAL_NOISE_OF_TISSUE = {
    **dict.fromkeys(T2_KINDS, 0.035),
    SeriesKind.DWI: 0.15,
    SeriesKind.DCE: 0.08,
}
"""Standard deviation of a good scan's noise over the median tissue signal in the centre: as in the simulated protocols
(axial T2; DWI at b 50; DCE after the bolus)."""
TISSUE_ABOVE = 0.1
"""Share of the 99th percentile below which a pixel of the centre is not tissue."""
CENTRAL_SHARE = 0.6
MIRRORED_SHARE = 0.125
"""Tissue added beyond either edge along phase, relative to the field of view: what wrap-around folds in."""
MIRRORED_END = 0.4
"""Receive sensitivity at the far end of it."""
PARALLEL_IMAGING = 2
RAMPS = 1.08
"""Effective echo spacing of a prostate EPI, where the header has only the bandwidth: time of one line with its gradient
ramps, halved by parallel imaging. An assumption: the standard has no element for either."""
PHASE_WAVES = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1))
"""Periods along rows and columns of the waves that make the object's phase."""
ADC_BACKGROUND_SHARE = 0.2
"""The ADC map is 0 where the lowest b-value gives less than this share of its tissue signal."""


@dataclass(frozen=True, eq=False)
class Substrate:
    """A clean series that is to be degraded.

    ``pixels`` float32 ``[slice, row, column]`` are magnitudes on the stored grid of ``spacing_mm``; ``acquired`` counts
    the samples along rows and columns that the scanner measured; ``phase_axis`` (1 or 2) is an array axis.
    ``noise_reference`` is the tissue signal that noise is relative to, where it is not the series' own.
    """

    name: str
    patient: str
    vendor: str
    kind: SeriesKind
    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    acquired: tuple[int, int]
    phase_axis: int
    echo_train_length: int
    echo_spacing_ms: float
    averages: int = 1
    b_value: float = 0.0
    field_strength_t: float = 3.0
    noise_reference: float | None = None

    @property
    def echo_planar(self) -> bool:
        """Whether the series was read out in one shot."""
        return self.kind == SeriesKind.DWI

    @cached_property
    def tissue_signal(self) -> float:
        """Median signal of what is not dark in the central part of all slices."""
        rows, columns = (round(size * CENTRAL_SHARE) for size in self.pixels.shape[1:])
        centre = resize_centre(self.pixels, rows, columns)
        return float(np.median(centre[centre > TISSUE_ABOVE * np.percentile(centre, 99)]))


def substrate_of(volume: Volume, role: str, patient: str) -> Substrate:
    """What the header says about how a series was acquired.

    Raises:
        ValueError: the series cannot be degraded; the message says why.
    """
    stack, acquisition = volume.stack, volume.stack.acquisition
    if role in (Role.ADC, Role.DWI_CALCULATED):
        raise ValueError(f"{role} is computed, not acquired: degrade the images it comes from and compute it again")
    kind = KIND_OF_ROLE.get(Role(role)) if role in set(Role) else None
    if kind is None:
        raise ValueError(f"there are no artefacts for a series of role {role}")
    grid = acquired_grid(stack)
    if grid.phase_axis is None or not grid.known:
        raise ValueError(
            f"volume {stack.volume_id} does not tell how it was acquired: Acquisition Matrix (0018,1310) and In-plane "
            "Phase Encoding Direction (0018,1312) are needed"
        )
    if not np.isfinite(volume.pixels).all():
        raise ValueError(f"volume {stack.volume_id} has missing slices")
    if volume.pixels.min() < 0 or volume.pixels.max() <= 0:
        raise ValueError(f"volume {stack.volume_id} does not hold magnitudes: values below 0, or nothing but 0")
    return Substrate(
        name=stack.volume_id,
        patient=patient,
        vendor=acquisition.manufacturer,
        kind=kind,
        pixels=volume.pixels,
        spacing_mm=volume.geometry.spacing_mm,
        acquired=grid.shape,
        phase_axis=grid.phase_axis + 1,
        echo_train_length=acquisition.echo_train_length or T2_AXIAL.echo_train_length,
        echo_spacing_ms=_echo_spacing_ms(acquisition, kind),
        averages=max(1, round(acquisition.number_of_averages or 1)),
        b_value=stack.b_value.s_per_mm2 if stack.b_value else 0.0,
        field_strength_t=acquisition.magnetic_field_strength_t or 3.0,
    )


def _echo_spacing_ms(acquisition: Acquisition, kind: SeriesKind) -> float:
    """Time between phase lines: in an echo-planar train from the bandwidth, else from the echo time, its middle."""
    if kind == SeriesKind.DWI:
        bandwidth_hz = acquisition.pixel_bandwidth_hz
        return RAMPS * 1000.0 / bandwidth_hz / PARALLEL_IMAGING if bandwidth_hz else DWI.echo_spacing_ms
    if acquisition.echo_time_ms and acquisition.echo_train_length:
        return 2 * acquisition.echo_time_ms / acquisition.echo_train_length
    return T2_AXIAL.echo_spacing_ms


def raw_data(
    substrate: Substrate, seed: int, slices: Sequence[int] | None = None, faults: Sequence[Artifact] = ()
) -> KSpace:
    """Raw data that reconstruct to the series: with a smooth random phase, on the acquired matrix, without noise.

    Args:
        substrate: the series.
        seed: of the phase and, where a fault needs it, of the gas pocket.
        slices: which ones; default all.
        faults: what will be done to the data; decides whether a field map, fat, or tissue beyond the view is made.
    """
    chosen = list(range(len(substrate.pixels)) if slices is None else slices)
    image = substrate.pixels[chosen]
    if any(fault.beyond_view for fault in faults):
        image = _mirrored(image, substrate.phase_axis)
    full, stored = image.shape[1:], substrate.pixels.shape[1:]
    row_samples, column_samples = (
        round(samples * have / shown) for samples, have, shown in zip(substrate.acquired, full, stored, strict=True)
    )
    shown_mm = (stored[0] * substrate.spacing_mm[1], stored[1] * substrate.spacing_mm[2])
    extent_mm = (full[0] * substrate.spacing_mm[1], full[1] * substrate.spacing_mm[2])
    phase = _object_phase(full, seed)
    noise_share = TYPICAL_NOISE_OF_TISSUE[substrate.kind]
    fat = field_hz = gas = None
    if any(fault.needs_fat for fault in faults):
        fat_image = fat_of_suppressed(image, substrate.tissue_signal, substrate.b_value, substrate.spacing_mm[1:])
        fat = resize_centre(to_kspace(fat_image * phase), row_samples, column_samples)
    if any(fault.needs_gas for fault in faults):
        maps = _gas_maps(seed, substrate, (row_samples, column_samples), extent_mm)
        field_hz, gas = (values[chosen] for values in maps)
    return KSpace(
        data=resize_centre(to_kspace(image * phase), row_samples, column_samples),
        extent_mm=extent_mm,
        shown_mm=shown_mm,
        phase_axis=substrate.phase_axis,
        echo_train_length=substrate.echo_train_length,
        echo_spacing_ms=substrate.echo_spacing_ms,
        slice_thickness_mm=substrate.spacing_mm[0],
        noise_sd=0.0,
        typical_noise_sd=noise_share * (substrate.noise_reference or substrate.tissue_signal),
        averages=substrate.averages,
        filter_taper=0.0,
        echo_planar=substrate.echo_planar,
        b_value=substrate.b_value,
        field_strength_t=substrate.field_strength_t,
        off_resonance_hz=field_hz,
        gas=gas,
        fat=fat,
    )


def degrade(
    substrate: Substrate, artifact: str | None, severity: float, seed: int, slices: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Slices of the series with one artefact; see ``degrade_many``. None, at severity 0, is the clean reference."""
    return degrade_many(substrate, [] if artifact is None else [(artifact, severity)], seed, slices)


def degrade_many(
    substrate: Substrate, artifacts: Sequence[tuple[str, float]], seed: int, slices: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Slices of the series with several artefacts, which act in the order of ``ARTIFACTS``.

    A slice comes out the same whichever others are asked for, and the same seed repeats it bit for bit. With nothing
    to do it is still taken to the acquired matrix and back, so that it is the reference for the others.

    Args:
        substrate: the clean series.
        artifacts: names of ``ARTIFACTS`` and severities 0..5.
        seed: not negative.
        slices: indices; default all.

    Returns:
        float32 ``[slice, row, column]``, one per index asked for, on the stored grid.

    Raises:
        ValueError: an unknown artefact or one named twice, a severity outside 0..5, an artefact that does not happen
            in such a series.
    """
    faults = _in_order(substrate, artifacts)
    chosen = range(len(substrate.pixels)) if slices is None else slices
    stored = substrate.pixels.shape[1], substrate.pixels.shape[2]
    images = np.empty((len(chosen), *stored), np.float32)
    for position, number in enumerate(chosen):
        kspace = _with_neighbours(substrate, seed, number, [fault for fault, _ in faults])
        for fault, severity in faults:
            kspace = fault(kspace, severity, (seed, *fault.name.encode(), *([number] if fault.per_slice else [])))
        noise = np.random.default_rng([seed, number, round(substrate.b_value)])
        images[position] = reconstruct(kspace, stored, noise)[0]
    return images


def degraded_adc(
    b_images: Sequence[Substrate],
    artifacts: Sequence[tuple[str, float]],
    seed: int,
    slices: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """The ADC map fitted to degraded diffusion-weighted images, float32 ``[slice, row, column]`` in 10^-6 mm2/s.

    The receiver's noise does not know the b-value: it is relative to the tissue of the b-value in the middle for all.

    Raises:
        ValueError: as ``degrade_many``; fewer than two b-values.
    """
    ordered = sorted(b_images, key=lambda one: one.b_value)
    reference = ordered[len(ordered) // 2].tissue_signal
    images = np.stack(
        [degrade_many(replace(one, noise_reference=reference), artifacts, seed, slices) for one in ordered]
    )
    b_values = tuple(one.b_value for one in ordered)
    return fit_adc(images, b_values, ADC_BACKGROUND_SHARE * ordered[0].tissue_signal)


def _in_order(substrate: Substrate, artifacts: Sequence[tuple[str, float]]) -> list[tuple[Artifact, float]]:
    severities = dict(artifacts)
    if len(severities) < len(artifacts):
        raise ValueError("an artefact is named twice")
    for name in severities:
        if name not in ARTIFACTS:
            raise ValueError(f"unknown artefact {name!r}; there are {', '.join(ARTIFACTS)}")
        if substrate.kind not in ARTIFACTS[name].applies_to:
            raise ValueError(f"{name} does not happen in {substrate.kind}")
    return [(fault, severities[name]) for name, fault in ARTIFACTS.items() if severities.get(name)]


def _with_neighbours(substrate: Substrate, seed: int, number: int, faults: Sequence[Artifact]) -> KSpace:
    """Raw data of one slice, with the slices beside it where a fault takes signal from them."""
    if not any(fault.needs_neighbours for fault in faults):
        return raw_data(substrate, seed, [number], faults)
    last = len(substrate.pixels) - 1
    around = [max(number - 1, 0), number, min(number + 1, last)]
    return replace(raw_data(substrate, seed, around, faults), margin=1)


@lru_cache(maxsize=8)
def _object_phase(shape: tuple[int, int], seed: int) -> NDArray[np.complex64]:
    """Smooth phase of coil and field, complex64 ``[row, column]`` of magnitude 1.

    Waves of one or two periods across the image, so that it does not jump where the image's edges meet.
    """
    rng = np.random.default_rng([seed, 100])
    row, column = (np.linspace(-np.pi, np.pi, size, endpoint=False, dtype=np.float32) for size in shape)
    angle = np.zeros(shape, np.float32)
    for along_rows, along_columns in PHASE_WAVES:
        height, start = np.float32(rng.uniform(-1.2, 1.2)), np.float32(rng.uniform(-np.pi, np.pi))
        angle += height * np.sin(along_rows * row[:, None] + along_columns * column + start)
    phase = np.empty(shape, np.complex64)
    phase.real, phase.imag = np.cos(angle), np.sin(angle)
    return phase


def _gas_maps(
    seed: int, substrate: Substrate, samples: tuple[int, int], extent_mm: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Field in Hz and share of gas of the pocket that belongs to a seed, for all slices."""
    pocket = GasPocket.random(np.random.default_rng([seed, 200]))
    return pocket_maps(
        pocket, len(substrate.pixels), substrate.spacing_mm[0], samples, extent_mm, substrate.field_strength_t
    )


def _mirrored(image: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Continue the image beyond its edges along one axis, fading; pixel ``n // 2`` stays the centre."""
    size = image.shape[axis]
    full = size + 2 * round(MIRRORED_SHARE * size)
    lead = full // 2 - size // 2
    padding = [(0, 0)] * 3
    padding[axis] = (lead, full - size - lead)
    beyond = np.maximum(np.abs(np.arange(full) - full // 2) - size / 2, 0) / (full / 2 - size / 2)
    fall = (1 - (1 - MIRRORED_END) * beyond).astype(np.float32)
    return np.pad(image, padding, mode="reflect") * along(axis, fall)
