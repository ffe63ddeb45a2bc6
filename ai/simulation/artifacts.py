"""Artefacts made where they arise: in k-space, along the phase-encode axis, in the order of the echo trains.

Each has five severities: 1 is subtle, 3 clearly visible, 5 clearly non-diagnostic. The tables of physical strength
behind them were set by eye on the simulated axial T2 and DWI; they are metadata, not measured human grades.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.simulation.kspace import KSpace, resize_centre, to_image, to_kspace
from ai.simulation.protocol import T2_KINDS, SeriesKind

SEVERITIES = range(1, 6)

MOTION_SHIFT_MM = (0.35, 0.8, 1.6, 3.2, 5.0)
MOTION_ROTATION_DEG = (0.15, 0.4, 0.9, 2.0, 3.5)
MOTION_POSES = 5
"""Distinct positions a restless patient takes during a scan of some minutes."""
GHOST_MODULATION = (0.10, 0.22, 0.45, 0.80, 1.30)
GHOST_PERIOD_LINES = 6
NOISE_FACTOR = (2.0, 4.0, 8.0, 14.0, 24.0)
NOISE_FACTOR_ECHO_PLANAR = (1.25, 1.6, 2.4, 4.0, 8.0)
"""Diffusion-weighted images start much nearer to their noise than T2-weighted ones, most of all at a high b-value."""
BLUR_KEPT_SHARE = (0.70, 0.50, 0.34, 0.22, 0.14)
SPIKE_OF_PEAK = (0.04, 0.09, 0.20, 0.45, 1.00)
BIAS_DYNAMIC_RANGE = (2.5, 6.0, 16.0, 60.0, 250.0)
WRAP_PERIOD_OF_SHOWN = (1.05, 0.95, 0.82, 0.68, 0.55)
DISTORTION_FIELD_FACTOR = (0.25, 0.6, 1.2, 2.2, 3.6)
"""1 is the field of the gas pocket itself; more stands for a poor shim and a slower readout."""


SPINS_PER_PIXEL = 4
"""Samples of the object per pixel while it is encoded, so that stretched tissue does not fall apart into points."""


@dataclass(frozen=True)
class Artifact:
    """One way to ruin raw data: its name, the series it happens in, and what it does at a severity 1..5."""

    name: str
    meaning: str
    applies_to: frozenset[SeriesKind]
    corrupt: Callable[[KSpace, int, np.random.Generator], KSpace]

    def __call__(self, kspace: KSpace, severity: int, seed: int) -> KSpace:
        """Corrupt raw data. The same seed gives the same corruption; severity 0 leaves the data as they are.

        Raises:
            ValueError: severity is not 0..5.
        """
        if severity == 0:
            return kspace
        if severity not in SEVERITIES:
            raise ValueError(f"severity of {self.name} must be 0..5, not {severity}")
        return self.corrupt(kspace, severity, np.random.default_rng(seed))


def shift_lines(
    kspace: KSpace, data: NDArray[np.complex64], row_mm: NDArray[np.float64], column_mm: NDArray[np.float64]
) -> NDArray[np.complex64]:
    """Fourier shift theorem per phase line: the object stood ``row_mm``, ``column_mm`` further when it was acquired."""
    _, rows, columns = data.shape
    row_frequency = (np.arange(rows) - rows // 2)[None, :, None] / kspace.extent_mm[0]
    column_frequency = (np.arange(columns) - columns // 2)[None, None, :] / kspace.extent_mm[1]
    cycles = row_frequency * kspace.along_phase(row_mm) + column_frequency * kspace.along_phase(column_mm)
    return np.asarray(data * np.exp(-2j * np.pi * cycles), np.complex64)


def echo_train_of_line(kspace: KSpace) -> NDArray[np.int64]:
    """Which excitation acquired each phase line: interleaved, train s takes lines s, s + n, s + 2n, ..."""
    trains = max(1, round(kspace.phase_lines / kspace.echo_train_length))
    return np.arange(kspace.phase_lines) % trains


def motion(kspace: KSpace, severity: int, rng: np.random.Generator) -> KSpace:
    """Rigid motion between echo trains: shift and rotation in plane, and slices that mix with their neighbours."""
    train = echo_train_of_line(kspace)
    trains = int(train.max()) + 1
    pose_of_train = np.sort(rng.integers(0, MOTION_POSES, trains))
    pose_of_line = rng.permutation(pose_of_train)[train] if severity > 2 else pose_of_train[train]
    shift_mm = MOTION_SHIFT_MM[severity - 1]
    shifts = (
        rng.normal(0, shift_mm, (trains, 2)) * (0.4, 0.4) + rng.normal(0, shift_mm, (MOTION_POSES, 2))[pose_of_train]
    )
    angles = rng.normal(0, MOTION_ROTATION_DEG[severity - 1], MOTION_POSES)
    through_mm = rng.normal(0, shift_mm, MOTION_POSES)
    data = np.empty_like(kspace.data)
    for pose in range(MOTION_POSES):
        lines = kspace.along_phase(pose_of_line == pose)
        if lines.any():
            moved = _through_plane(kspace.data, through_mm[pose] / kspace.slice_thickness_mm)
            np.copyto(data, _rotated(moved, float(angles[pose])), where=lines)
    return replace(kspace, data=shift_lines(kspace, data, shifts[train, 0], shifts[train, 1]))


def _through_plane(data: NDArray[np.complex64], slices: float) -> NDArray[np.complex64]:
    """Linear mixture with the neighbouring slice that the object moved towards."""
    share = np.float32(min(abs(slices), 1.0))
    neighbour = np.concatenate([data[1:], data[-1:]] if slices > 0 else [data[:1], data[:-1]])
    return np.asarray((1 - share) * data + share * neighbour, np.complex64)


def _rotated(data: NDArray[np.complex64], degrees: float) -> NDArray[np.complex64]:
    """Rotate k-space, which rotates the object by the same angle (rotation theorem)."""
    image = to_image(data)
    parts = [
        ndimage.rotate(part, degrees, axes=(1, 2), reshape=False, order=1, mode="nearest")
        for part in (image.real, image.imag)
    ]
    return to_kspace(parts[0] + 1j * parts[1])


def ghosting(kspace: KSpace, severity: int, rng: np.random.Generator) -> KSpace:
    """Periodic modulation of the lines (breathing, bowel; N/2 in echo-planar): ghosts at extent / period."""
    period = 2 if kspace.off_resonance_hz is not None else GHOST_PERIOD_LINES
    swing = GHOST_MODULATION[severity - 1] * np.cos(
        2 * np.pi * kspace.phase_frequencies / period + rng.uniform(0, np.pi / 4)
    )
    return replace(kspace, data=np.asarray(kspace.data * (1 + kspace.along_phase(swing)), np.complex64))


def noise(kspace: KSpace, severity: int, _rng: np.random.Generator) -> KSpace:
    """Low signal-to-noise ratio: thermal noise times ``NOISE_FACTOR``, or its echo-planar twin."""
    factors = NOISE_FACTOR if kspace.off_resonance_hz is None else NOISE_FACTOR_ECHO_PLANAR
    return replace(kspace, noise_sd=kspace.noise_sd * factors[severity - 1])


def blur(kspace: KSpace, severity: int, _rng: np.random.Generator) -> KSpace:
    """Loss of high frequencies, as by T2 decay: a Gaussian over k-space, 1/e at ``BLUR_KEPT_SHARE`` of its edge."""
    data = kspace.data
    for axis in (1, 2):
        size = data.shape[axis]
        frequency = (np.arange(size) - size // 2) / (BLUR_KEPT_SHARE[severity - 1] * size / 2)
        window = np.exp(-(frequency**2)).astype(np.float32)
        data = data * (window[None, :, None] if axis == 1 else window[None, None, :])
    return replace(kspace, data=np.asarray(data, np.complex64))


def spike(kspace: KSpace, severity: int, rng: np.random.Generator) -> KSpace:
    """One electrical spike per slice: a single sample of huge value, seen as stripes across the image."""
    data = kspace.data.copy()
    slices, rows, columns = data.shape
    for index in range(slices):
        radius, angle = rng.uniform(0.08, 0.35), rng.uniform(0, 2 * np.pi)
        row = int(rows // 2 + radius * rows * np.sin(angle))
        column = int(columns // 2 + radius * columns * np.cos(angle))
        strength = SPIKE_OF_PEAK[severity - 1] * np.abs(data[index]).max()
        data[index, row, column] += strength * np.exp(1j * rng.uniform(0, 2 * np.pi))
    return replace(kspace, data=data)


def bias(kspace: KSpace, severity: int, rng: np.random.Generator) -> KSpace:
    """A failed coil element or missing normalisation: sensitivity falls exponentially across the image."""
    _, rows, columns = kspace.data.shape
    angle = rng.uniform(0, 2 * np.pi)
    row, column = np.linspace(-0.5, 0.5, rows)[:, None], np.linspace(-0.5, 0.5, columns)[None, :]
    fall = np.log(BIAS_DYNAMIC_RANGE[severity - 1]) * (row * np.sin(angle) + column * np.cos(angle))
    return replace(kspace, data=to_kspace(to_image(kspace.data) * np.exp(fall).astype(np.float32)))


def wrap(kspace: KSpace, severity: int, _rng: np.random.Generator) -> KSpace:
    """Too little phase oversampling: what lies outside the sampled field of view folds in from the other side."""
    axis = kspace.phase_axis
    image = np.moveaxis(to_image(kspace.data), axis, -1)
    size = image.shape[-1]
    shown = size * kspace.shown_mm / kspace.extent_mm[axis - 1]
    period = max(1, round(WRAP_PERIOD_OF_SHOWN[severity - 1] * shown))
    centred = np.arange(size) - size // 2
    folded = np.zeros((*image.shape[:-1], period), np.complex64)
    for cell in range(int(centred.min()) // period, int(centred.max()) // period + 1):
        inside = np.flatnonzero(centred // period == cell)
        folded[..., centred[inside] % period] += image[..., inside]
    return replace(kspace, data=to_kspace(np.moveaxis(folded[..., centred % period], -1, axis)))


def distortion(kspace: KSpace, severity: int, _rng: np.random.Generator) -> KSpace:
    """Echo-planar distortion by the field of rectal gas: each spin dephases while the lines are read out.

    The full encoding sum is evaluated, so signal piles up and tears as it does in a scanner. Pixel shift = field (Hz)
    x effective echo spacing x lines.

    Raises:
        ValueError: the raw data carry no field map (they are not echo-planar).
    """
    if kspace.off_resonance_hz is None:
        raise ValueError("distortion needs echo-planar raw data with an off-resonance map")
    field_hz = kspace.off_resonance_hz * DISTORTION_FIELD_FACTOR[severity - 1]
    return replace(kspace, data=encode_echo_planar(kspace, field_hz))


def encode_echo_planar(kspace: KSpace, field_hz: NDArray[np.float32]) -> NDArray[np.complex64]:
    """k-space of the object in a field: sum over x of rho(x) exp(-2 pi i (k x / N + field(x) t(k))).

    ``field_hz`` ``[slice, row, column]`` has the shape of the data.
    """
    image = np.moveaxis(_finer_along_phase(kspace), kspace.phase_axis, -1).astype(np.complex128)
    field = np.moveaxis(field_hz, kspace.phase_axis, -1).repeat(SPINS_PER_PIXEL, axis=-1)
    spins, lines = image.shape[-1], kspace.phase_lines
    position = (np.arange(spins) - spins // 2) / spins
    turn = np.exp(-2j * np.pi * (position + field * kspace.echo_spacing_ms / 1000.0))  # from one line to the next
    image *= turn ** kspace.phase_frequencies[0]
    encoded = np.empty((*image.shape[:-1], lines), np.complex128)
    for line in range(lines):
        encoded[..., line] = image.mean(axis=-1)
        image *= turn
    lines_in_k = np.moveaxis(encoded, -1, kspace.phase_axis)
    other = 3 - kspace.phase_axis
    shifted = np.fft.ifftshift(lines_in_k, axes=other)
    return np.asarray(np.fft.fftshift(np.fft.fft(shifted, axis=other, norm="forward"), axes=other), np.complex64)


def _finer_along_phase(kspace: KSpace) -> NDArray[np.complex64]:
    """The object with ``SPINS_PER_PIXEL`` samples per pixel along the phase axis."""
    _, rows, columns = kspace.data.shape
    factors = (SPINS_PER_PIXEL, 1) if kspace.phase_axis == 1 else (1, SPINS_PER_PIXEL)
    return to_image(resize_centre(kspace.data, rows * factors[0], columns * factors[1]))


_ALL_ACQUIRED = T2_KINDS | {SeriesKind.DWI}

ARTIFACTS: Mapping[str, Artifact] = MappingProxyType(
    {
        artifact.name: artifact
        for artifact in (
            Artifact("motion", "patient motion between echo trains", T2_KINDS, motion),
            Artifact("ghosting", "periodic ghosts along the phase axis", _ALL_ACQUIRED, ghosting),
            Artifact("noise", "low signal-to-noise ratio", _ALL_ACQUIRED, noise),
            Artifact("blur", "loss of sharpness", _ALL_ACQUIRED, blur),
            Artifact("spike", "electrical spikes (stripes)", _ALL_ACQUIRED, spike),
            Artifact("bias", "uneven receive sensitivity", _ALL_ACQUIRED, bias),
            Artifact("wrap", "fold-over along the phase axis", _ALL_ACQUIRED, wrap),
            Artifact("distortion", "echo-planar distortion by rectal gas", frozenset({SeriesKind.DWI}), distortion),
        )
    }
)
"""Every artefact by name. ADC is computed from what the DWI series became."""
