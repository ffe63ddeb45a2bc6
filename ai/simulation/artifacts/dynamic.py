"""What ruins a dynamic contrast-enhanced series between its frames: motion, and frames that take too long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ai.simulation.artifacts.motion import rotated_lines, shift_lines
from ai.simulation.artifacts.severity import CLEAN, Seed, check_severity, strength
from ai.simulation.kspace import along, to_image, to_kspace
from ai.simulation.protocol import SeriesKind

FRAME_SHIFT_MM = (0.4, 0.9, 1.8, 3.5, 6.0)
FRAME_ROTATION_DEG = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations of the position of a frame against the first, once the patient has become restless."""
PERSISTENCE = 0.7
"""How far the position of a frame follows that of the one before it."""
FRAME_STRETCH = (1.5, 2.2, 3.5, 6.0, 10.0)
"""Duration of a frame relative to what it was."""


@dataclass(frozen=True)
class DynamicSeries:
    """Magnitudes float32 ``[time, slice, row, column]``, one frame every ``frame_s`` seconds.

    ``phase_axis`` (1 or 2) is the phase-encoded axis of a frame's ``[slice, row, column]``.
    """

    frames: NDArray[np.float32]
    frame_s: float
    spacing_mm: tuple[float, float, float]
    phase_axis: int


@dataclass(frozen=True)
class DynamicArtifact:
    """One way to ruin a dynamic series between its frames; the frames by themselves are as good as before."""

    name: str
    meaning: str
    corrupt: Callable[[DynamicSeries, float, np.random.Generator], NDArray[np.float32]]
    applies_to: frozenset[SeriesKind] = frozenset({SeriesKind.DCE})

    def __call__(self, series: DynamicSeries, severity: float, seed: Seed) -> DynamicSeries:
        """The series with its frames ruined, as many as before. Severity 0 leaves them as they are.

        Raises:
            ValueError: severity is not 0..5.
        """
        check_severity(self.name, severity)
        if severity == CLEAN:
            return series
        return replace(series, frames=self.corrupt(series, severity, np.random.default_rng(seed)))


def frame_motion(series: DynamicSeries, severity: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Rigid motion between frames; the first stays in place. Curves then mix tissues, subtraction shows edges."""
    shifts = _walk(len(series.frames), 3, rng) * strength(FRAME_SHIFT_MM, severity)
    angles_deg = _walk(len(series.frames), 1, rng)[:, 0] * strength(FRAME_ROTATION_DEG, severity)
    moved = [
        _moved(frame, shift_mm, float(angle), series.spacing_mm)
        for frame, shift_mm, angle in zip(series.frames, shifts, angles_deg, strict=True)
    ]
    return np.stack(moved)


def _walk(steps: int, dimensions: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A position that wanders about 0 with standard deviation 1, relative to the first step."""
    innovations = rng.standard_normal((steps, dimensions)) * np.sqrt(1 - PERSISTENCE**2)
    position = np.zeros((steps, dimensions))
    for step in range(1, steps):
        position[step] = PERSISTENCE * position[step - 1] + innovations[step]
    return position


def _moved(
    frame: NDArray[np.float32], shift_mm: NDArray[np.float64], degrees: float, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """The object shifted along slice, row and column and turned in plane about the middle of the image.

    All by phases of the spectrum, so that a frame that moved is neither blurred nor less noisy than one that did not.
    Beyond the end slices the stack is mirrored.
    """
    through = _shifted_through(frame, shift_mm[0] / spacing_mm[0])
    rows, columns = frame.shape[1:]
    extent_mm = (rows * spacing_mm[1], columns * spacing_mm[2])
    turned = rotated_lines(to_kspace(through), extent_mm, 2, degrees, np.arange(columns))
    row_mm, column_mm = (np.full(columns, shift) for shift in shift_mm[1:])
    return np.abs(to_image(shift_lines(turned, extent_mm, 2, row_mm, column_mm)))


def _shifted_through(frame: NDArray[np.float32], slices: float) -> NDArray[np.float32]:
    mirrored = np.concatenate([frame, frame[::-1]])
    turn = np.exp((-2j * np.pi * fft.rfftfreq(len(mirrored)) * slices).astype(np.complex64))
    shifted = fft.irfft(fft.rfft(mirrored, axis=0) * turn[:, None, None], n=len(mirrored), axis=0)
    return np.asarray(shifted[: len(frame)], np.float32)


def low_temporal_resolution(series: DynamicSeries, severity: float, _rng: np.random.Generator) -> NDArray[np.float32]:
    """Frames that take too long: each phase line shows the contrast of the moment in which it was acquired.

    Lines are acquired from one edge of k-space to the other. At every original time the last finished frame is shown,
    the first before any is finished.
    """
    times, lines = len(series.frames), series.frames.shape[series.phase_axis + 1]
    stretch = strength(FRAME_STRETCH, severity, clean=1.0)
    spectra = np.stack([to_kspace(frame) for frame in series.frames])
    slow: list[NDArray[np.float32]] = []
    for index in range(max(1, int(np.ceil(times / stretch)))):
        moments = (index + np.arange(lines) / lines) * stretch
        slow.append(np.abs(to_image(_lines_at(spectra, moments, series.phase_axis))))
    finished = np.maximum(np.floor((np.arange(times) + 1) / stretch).astype(int) - 1, 0)
    return np.stack([slow[index] for index in finished])


def _lines_at(spectra: NDArray[np.complex64], moments: NDArray[np.float64], phase_axis: int) -> NDArray[np.complex64]:
    """One k-space ``[slice, row, column]`` whose phase lines are each of the frame that was on at their moment."""
    frame_of_line = np.minimum(moments, len(spectra) - 1).astype(int)
    mixed = np.empty_like(spectra[0])
    for frame in np.unique(frame_of_line):
        np.copyto(mixed, spectra[frame], where=along(phase_axis, frame_of_line == frame))
    return mixed


DYNAMIC_ARTIFACTS: Mapping[str, DynamicArtifact] = MappingProxyType(
    {
        artifact.name: artifact
        for artifact in (
            DynamicArtifact("frame-motion", "patient motion between frames", frame_motion),
            DynamicArtifact("low-temporal-resolution", "frames that take too long", low_temporal_resolution),
        )
    }
)
"""Every artefact of a dynamic series by name."""
