"""What only echo-planar imaging suffers from: field errors, eddy currents, odd and even echoes that disagree."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace, KSpaceData, along, resize_centre, to_image, to_kspace

DISTORTION_FIELD_FACTOR = (0.25, 0.6, 1.2, 2.2, 3.6)
"""1 is the field of the gas pocket itself; more stands for a poor shim and a slower readout."""
DEPHASING_MS = (2.0, 5.0, 10.0, 20.0, 40.0)
"""Time spent off the spin echo, in which spins of one voxel lose each other."""
NYQUIST_PHASE_RAD = (0.08, 0.18, 0.35, 0.65, 1.1)
"""Phase error of odd and (negated) even echoes; the ghost has its sine."""
EDDY_SHIFT_MM = (1.0, 2.0, 4.0, 7.0, 12.0)
"""Displacement along phase at b = ``EDDY_REFERENCE_B``, at the edge of the field of view."""
EDDY_REFERENCE_B = 1000.0
EDDY_DIRECTIONS = 3
"""Gradient directions averaged to a trace image; each is displaced in its own way."""

SPINS_PER_PIXEL = 4
"""Samples of the object per pixel while it is encoded, so that stretched tissue does not fall apart into points."""
_SPLINE_TAPS = 4


def distortion(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Echo-planar distortion by the field of rectal gas: each spin dephases while the lines are read out.

    The full encoding sum is evaluated, so signal piles up and tears as it does in a scanner. Pixel shift = field (Hz)
    x effective echo spacing x lines.
    """
    assert kspace.off_resonance_hz is not None
    field_hz = kspace.off_resonance_hz * np.float32(strength(DISTORTION_FIELD_FACTOR, severity))
    return replace(kspace, data=encode_echo_planar(_emptied(kspace, severity), field_hz))


def dropout(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Void beside gas: the field varies within a voxel, and its spins cancel (a sinc per direction).

    The spin echo undoes this only at its centre; ``DEPHASING_MS`` is the time away from it.
    """
    assert kspace.off_resonance_hz is not None
    turns_per_hz = strength(DEPHASING_MS, severity) / 1000.0
    kept = np.ones(kspace.data.shape, np.float32)
    for axis in range(3):
        if kspace.data.shape[axis] > 1:
            kept *= np.sinc(np.gradient(kspace.off_resonance_hz, axis=axis) * turns_per_hz).astype(np.float32)
    emptied = _emptied(kspace, severity)
    return replace(emptied, data=to_kspace(to_image(emptied.data) * np.abs(kept))).without_margin()


def _emptied(kspace: KSpace, severity: float) -> KSpace:
    """The object without signal where the gas is; at a severity below 1 the gas is only partly there."""
    if kspace.gas is None:
        return kspace
    left = 1 - np.float32(min(severity, 1.0)) * kspace.gas
    return replace(kspace, data=to_kspace(to_image(kspace.data) * left), gas=None)


def eddy(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Eddy currents of the diffusion gradients: shift, shear and scale along phase, growing with their amplitude.

    The residual field is uniform plus linear (Jezzard et al., Magn Reson Med 1998;39:801) and follows the gradient,
    the root of b. A trace image averages directions that are displaced differently, so it is blurred as well.
    """
    reach_mm = strength(EDDY_SHIFT_MM, severity) * np.sqrt(kspace.b_value / EDDY_REFERENCE_B)
    hz_per_mm = 1 / (kspace.extent_mm[kspace.phase_axis - 1] * kspace.echo_spacing_ms / 1000.0)
    _, rows, columns = kspace.data.shape
    row, column = along(1, np.linspace(-1, 1, rows)), along(2, np.linspace(-1, 1, columns))
    encoded = np.zeros_like(kspace.data)
    for shift, by_row, by_column in rng.uniform(-1, 1, (EDDY_DIRECTIONS, 3)):
        field = reach_mm * hz_per_mm * (shift + by_row * row + by_column * column)
        field_hz = np.broadcast_to(field.astype(np.float32), kspace.data.shape)
        encoded += encode_echo_planar(kspace, field_hz) / np.float32(EDDY_DIRECTIONS)
    return replace(kspace, data=encoded)


def nyquist_ghost(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Odd and even echoes differ in phase: a ghost half a field of view away, of the sine of that phase.

    Half of the error may vary linearly along the frequency axis (echoes read in opposite directions are shifted).
    """
    axis = 3 - kspace.phase_axis
    error = strength(NYQUIST_PHASE_RAD, severity)
    slope = rng.uniform(-0.5, 0.5)
    phase = error * (1 + slope * np.linspace(-1, 1, kspace.data.shape[axis]))
    sign = kspace.along_phase(np.where(kspace.phase_frequencies % 2 == 0, 1.0, -1.0))
    turn = np.exp((1j * sign * along(axis, phase)).astype(np.complex64))
    return replace(kspace, data=_to_frequency(_from_frequency(kspace.data, axis) * turn, axis))


def encode_echo_planar(kspace: KSpace, field_hz: NDArray[np.float32]) -> KSpaceData:
    """k-space of the object in a field: sum over x of rho(x) exp(-2 pi i (k x / N + field(x) t(k))).

    The time of a line is proportional to its k, so a spin in a field is encoded as if it stood field x echo spacing x
    N pixels further. Spins are put there on a fine grid with a cubic B-spline, whose spectrum is divided out.

    Args:
        kspace: raw data of the undisturbed object.
        field_hz: ``[slice, row, column]``, shape of the data.
    """
    image = np.moveaxis(_finer_along_phase(kspace), kspace.phase_axis, -1)
    lines, spins = kspace.phase_lines, image.shape[-1]
    field = _finer(np.moveaxis(field_hz, kspace.phase_axis, -1))
    moved = np.arange(spins) + field * (kspace.echo_spacing_ms / 1000.0 * spins)
    spread = _spread(image.reshape(-1, spins), moved.reshape(-1, spins)).reshape(image.shape)
    spectrum = fft.fft(fft.ifftshift(spread, axes=-1), axis=-1, norm="forward")
    first = spins // 2 - lines // 2
    encoded = fft.fftshift(spectrum, axes=-1)[..., first : first + lines]
    encoded /= np.sinc(kspace.phase_frequencies / spins).astype(np.float32) ** _SPLINE_TAPS
    return _to_frequency(np.moveaxis(encoded, -1, kspace.phase_axis), 3 - kspace.phase_axis)


def _spread(values: NDArray[np.complex64], positions: NDArray[np.floating]) -> NDArray[np.complex64]:
    """Add each value ``[row, spin]`` to the grid cells about its position (periodic), weighted by a B-spline."""
    rows, cells = values.shape
    base = np.floor(positions)
    share = (positions - base).astype(np.float32)
    cell = base.astype(np.int64) - 1
    row_start = cells * np.arange(rows)[:, None]
    real, imaginary = np.zeros(rows * cells), np.zeros(rows * cells)
    for tap, weight in enumerate(_cubic_b_spline(share)):
        index = ((cell + tap) % cells + row_start).ravel()
        real += np.bincount(index, (values.real * weight).ravel(), rows * cells)
        imaginary += np.bincount(index, (values.imag * weight).ravel(), rows * cells)
    return (real + 1j * imaginary).astype(np.complex64).reshape(rows, cells)


def _cubic_b_spline(share: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Weights of the four cells at -1, 0, 1 and 2 for a position ``share`` beyond cell 0."""
    rest = 1 - share
    before, after = (4 - 6 * share**2 + 3 * share**3) / 6, (4 - 6 * rest**2 + 3 * rest**3) / 6
    weights = (rest**3 / 6, before, after, share**3 / 6)
    return tuple(np.asarray(weight, np.float32) for weight in weights)


def _finer(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """``SPINS_PER_PIXEL`` values per pixel along the last axis; pixel ``n // 2`` stays the centre."""
    size = field.shape[-1]
    wanted = (np.arange(size * SPINS_PER_PIXEL) - size * SPINS_PER_PIXEL // 2) / SPINS_PER_PIXEL + size // 2
    low = np.clip(np.floor(wanted).astype(np.int64), 0, size - 2)
    share = np.clip(wanted - low, 0, 1).astype(np.float32)
    return np.asarray(field[..., low] * (1 - share) + field[..., low + 1] * share, np.float32)


def _finer_along_phase(kspace: KSpace) -> NDArray[np.complex64]:
    """The object with ``SPINS_PER_PIXEL`` samples per pixel along the phase axis."""
    _, rows, columns = kspace.data.shape
    factors = (SPINS_PER_PIXEL, 1) if kspace.phase_axis == 1 else (1, SPINS_PER_PIXEL)
    return to_image(resize_centre(kspace.data, rows * factors[0], columns * factors[1]))


def _from_frequency(data: KSpaceData, axis: int) -> KSpaceData:
    """Centred inverse transform of one axis."""
    return np.asarray(
        fft.fftshift(fft.ifft(fft.ifftshift(data, axes=axis), axis=axis, norm="forward"), axes=axis), np.complex64
    )


def _to_frequency(data: KSpaceData, axis: int) -> KSpaceData:
    """Inverse of ``_from_frequency``."""
    return np.asarray(
        fft.fftshift(fft.fft(fft.ifftshift(data, axes=axis), axis=axis, norm="forward"), axes=axis), np.complex64
    )
