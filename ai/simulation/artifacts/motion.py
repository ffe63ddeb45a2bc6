"""Rigid motion of the patient between echo trains."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace, KSpaceData, along

MOTION_SHIFT_MM = (0.25, 0.5, 1.0, 2.0, 4.0)
MOTION_ROTATION_DEG = (0.1, 0.25, 0.6, 1.3, 2.6)
"""Standard deviations of the positions, along each axis and about the slice normal."""
MOTION_POSES = 5
"""Distinct positions a restless patient takes, again and again, during a scan of some minutes."""
TREMOR = 0.4
"""Shift of one echo train about its pose, relative to the shift between poses."""


def echo_train_of_line(kspace: KSpace) -> NDArray[np.int64]:
    """Which excitation acquired each phase line: interleaved, train s takes lines s, s + n, s + 2n, ..."""
    trains = max(1, round(kspace.phase_lines / kspace.echo_train_length))
    return np.arange(kspace.phase_lines) % trains


def shift_lines(
    data: KSpaceData,
    extent_mm: tuple[float, float],
    phase_axis: int,
    row_mm: NDArray[np.float64],
    column_mm: NDArray[np.float64],
) -> KSpaceData:
    """Fourier shift theorem per phase line: the object stood ``row_mm``, ``column_mm`` further when it was acquired."""
    row_frequency, column_frequency = (
        along(axis, (np.arange(data.shape[axis]) - data.shape[axis] // 2) / extent_mm[axis - 1]) for axis in (1, 2)
    )
    cycles = row_frequency * along(phase_axis, row_mm) + column_frequency * along(phase_axis, column_mm)
    return data * np.exp((-2j * np.pi * cycles).astype(np.complex64))


def motion(kspace: KSpace, severity: float, rng: np.random.Generator) -> KSpace:
    """Rigid motion between echo trains: shift and rotation in plane, and slices that mix with their neighbours.

    Positions are relative to that of the central line, so the image as a whole stays where it is.
    """
    shift_mm, rotation_deg = strength(MOTION_SHIFT_MM, severity), strength(MOTION_ROTATION_DEG, severity)
    train = echo_train_of_line(kspace)
    trains = int(train.max()) + 1
    pose_of_train = rng.integers(0, MOTION_POSES, trains)
    shifts_mm = shift_mm * rng.normal(0, 1, (MOTION_POSES, 2))[pose_of_train]
    shifts_mm += shift_mm * TREMOR * rng.normal(0, 1, (trains, 2))
    angles_deg = rotation_deg * rng.normal(0, 1, MOTION_POSES)
    through_slices = shift_mm / kspace.slice_thickness_mm * rng.normal(0, 1, MOTION_POSES)
    central_train = train[kspace.phase_lines // 2]
    central_pose = pose_of_train[central_train]
    shifts_mm -= shifts_mm[central_train]
    data = kspace.without_margin().data.copy()
    for pose in sorted(set(pose_of_train) - {central_pose}):
        lines = np.flatnonzero(pose_of_train[train] == pose)
        moved = _through_plane(kspace, through_slices[pose] - through_slices[central_pose])
        angle_deg = angles_deg[pose] - angles_deg[central_pose]
        turned = rotated_lines(moved, kspace.extent_mm, kspace.phase_axis, angle_deg, lines)
        if kspace.phase_axis == 1:
            data[:, lines] = turned
        else:
            data[:, :, lines] = turned
    shifted = shift_lines(data, kspace.extent_mm, kspace.phase_axis, shifts_mm[train, 0], shifts_mm[train, 1])
    return replace(kspace.without_margin(), data=shifted)


def _through_plane(kspace: KSpace, slices: float) -> KSpaceData:
    """Linear mixture with the neighbouring slice that the object moved towards; the margin is used up."""
    data, margin = kspace.data, kspace.margin
    share = np.float32(min(abs(slices), 1.0))
    neighbour = np.concatenate([data[1:], data[-1:]] if slices > 0 else [data[:1], data[:-1]])
    inner = slice(margin, len(data) - margin)
    return (1 - share) * data[inner] + share * neighbour[inner]


def rotated_lines(
    data: KSpaceData, extent_mm: tuple[float, float], phase_axis: int, degrees: float, lines: NDArray[np.intp]
) -> KSpaceData:
    """Some phase lines of the k-space of the object turned by an angle (from rows to columns), by three shears.

    A shear along one axis is a phase that grows along the other (Eddy et al., Magn Reson Med 1996;36:923): nothing is
    interpolated, so nothing is blurred. The last shear is along the frequency axis, so it is done on ``lines`` alone.
    """
    swapped = phase_axis == 1
    if swapped:
        data, degrees = data.transpose(0, 2, 1), -degrees
    sizes = data.shape[1:]
    extents = extent_mm[::-1] if swapped else extent_mm
    angle = np.deg2rad(degrees)
    frequency, phase = (fft.fftfreq(n, extent / n) for n, extent in zip(sizes, extents, strict=True))
    position = [fft.fftfreq(n, 1 / extent) for n, extent in zip(sizes, extents, strict=True)]
    outer = np.exp((2j * np.pi * np.tan(angle / 2) * np.outer(position[0], phase)).astype(np.complex64))
    inner = np.exp((-2j * np.pi * np.sin(angle) * np.outer(frequency, position[1])).astype(np.complex64))
    sheared = fft.ifft(fft.ifftshift(data, axes=(1, 2)), axis=1) * outer
    sheared = fft.fft(fft.ifft(sheared, axis=2), axis=1) * inner
    sheared = fft.fft(sheared, axis=2)
    unshifted = (lines - sizes[1] // 2) % sizes[1]
    sheared = fft.ifft(sheared[:, :, unshifted], axis=1) * outer[:, unshifted]
    turned = np.asarray(fft.fftshift(fft.fft(sheared, axis=1), axes=1), np.complex64)
    return turned.transpose(0, 2, 1) if swapped else turned
