"""The vocabulary of volumes: geometry, slices, stacks (a volume without its pixels) and roles.

Coordinates are LPS millimetres (PS3.3 C.7.6.2.1.1); arrays are indexed ``[slice, row, column]``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Plane = Literal["axial", "sagittal", "coronal", "oblique"]


class Role(StrEnum):
    """What a volume is for in a prostate MR study. A series that is not MR has its modality in lower case instead."""

    T2W_AXIAL = "t2w-axial"
    T2W_SAGITTAL = "t2w-sagittal"
    T2W_CORONAL = "t2w-coronal"
    T1W = "t1w"
    DWI = "dwi"
    DWI_CALCULATED = "dwi-calculated"
    ADC = "adc"
    DCE = "dce"
    LOCALIZER = "localizer"
    OTHER = "other"


class StackAnomaly(StrEnum):
    """Irregularities of a stack of slices: named, never hidden."""

    DUPLICATE_POSITION = "duplicate-position"
    MISSING_SLICE = "missing-slice"
    IRREGULAR_SPACING = "irregular-spacing"
    MIXED_ORIENTATION = "mixed-orientation"
    SHEARED = "sheared"
    SINGLE_SLICE = "single-slice"
    NO_GEOMETRY = "no-geometry"


@dataclass(frozen=True)
class Geometry:
    """A regular grid in patient space.

    ``affine_lps_mm`` (4 x 4) maps the homogeneous index ``(slice, row, column, 1)`` of a voxel centre to LPS mm.
    """

    affine_lps_mm: NDArray[np.float64]
    shape: tuple[int, int, int]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along slice, row and column index."""
        slice_mm, row_mm, column_mm = np.linalg.norm(self.affine_lps_mm[:3, :3], axis=0)
        return float(slice_mm), float(row_mm), float(column_mm)

    @property
    def normal_lps(self) -> NDArray[np.float64]:
        """Unit vector perpendicular to the slices, pointing towards rising slice index."""
        row_axis, column_axis = self.affine_lps_mm[:3, 1], self.affine_lps_mm[:3, 2]
        normal = np.cross(column_axis, row_axis)
        normal /= np.linalg.norm(normal)
        return np.asarray(normal if normal @ self.affine_lps_mm[:3, 0] >= 0 else -normal)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine_lps_mm[:3, :3]))) / 1000.0

    def to_lps_mm(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel indices ``[n, 3]`` (slice, row, column) to LPS mm ``[n, 3]``."""
        return np.asarray(index @ self.affine_lps_mm[:3, :3].T + self.affine_lps_mm[:3, 3])

    def to_index(self, points_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """LPS mm ``[n, 3]`` to fractional voxel indices ``[n, 3]`` (slice, row, column)."""
        inverse = np.linalg.inv(self.affine_lps_mm)
        return np.asarray(points_lps_mm @ inverse[:3, :3].T + inverse[:3, 3])


@dataclass(frozen=True)
class SliceReference:
    """Where one slice of a stack is stored.

    ``frame_number`` counts from 1 inside a multi-frame instance and is None for a single-frame instance.
    ``position_lps_mm`` is Image Position (Patient).
    """

    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int | None
    position_lps_mm: tuple[float, float, float] | None
    instance_number: int | None = None


@dataclass(frozen=True)
class BValue:
    """A diffusion b-value in s/mm2 and the element it was read from (vendors hide it in different places)."""

    s_per_mm2: float
    source: str


@dataclass(frozen=True)
class Acquisition:
    """How a stack was acquired; None where the header is silent. Names follow the DICOM keywords."""

    modality: str
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    body_part_examined: str = ""
    series_description: str = ""
    protocol_name: str = ""
    sequence_name: str = ""
    image_type: tuple[str, ...] = ()
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    magnetic_field_strength_t: float | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    flip_angle_deg: float | None = None
    echo_train_length: int | None = None
    number_of_averages: float | None = None
    pixel_bandwidth_hz: float | None = None
    slice_thickness_mm: float | None = None
    spacing_between_slices_mm: float | None = None
    acquisition_matrix: tuple[int, int, int, int] | None = None
    """Frequency rows, frequency columns, phase rows, phase columns (0018,1310)."""
    percent_sampling: float | None = None
    percent_phase_field_of_view: float | None = None
    in_plane_phase_encoding_direction: Literal["ROW", "COL"] | None = None
    temporal_position: int | None = None
    acquisition_time: str = ""
    series_time: str = ""
    series_number: int | None = None
    rescale_units: str = ""
    samples_per_pixel: int = 1
    pixel_spacing_mm: tuple[float, float] | None = None
    """Between rows, between columns: Pixel Spacing, also where the slices form no grid."""
    exposure_index: float | None = None
    target_exposure_index: float | None = None
    deviation_index: float | None = None
    """Projection X-ray, IEC 62494-1: (0018,1411), (0018,1412), (0018,1413)."""


@dataclass(frozen=True)
class Stack:
    """A volume without its pixels: slices of one contrast, sorted along the normal.

    ``geometry`` is None where the slices do not form a grid (``anomalies`` says why). Where several slices share a
    position, ``slices`` keeps the first by instance number and ``duplicates`` holds the others.
    A slice missing inside the stack leaves a gap: ``geometry`` spans the full grid and ``slice_indices[i]`` is the
    grid row of ``slices[i]``.
    """

    volume_id: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    acquisition: Acquisition
    rows: int
    columns: int
    slices: tuple[SliceReference, ...]
    slice_indices: tuple[int, ...]
    geometry: Geometry | None
    plane: Plane | None
    b_value: BValue | None = None
    anomalies: tuple[StackAnomaly, ...] = ()
    duplicates: tuple[SliceReference, ...] = ()

    @property
    def missing_slice_indices(self) -> tuple[int, ...]:
        """Grid rows without an image."""
        if self.geometry is None:
            return ()
        return tuple(sorted(set(range(self.geometry.shape[0])) - set(self.slice_indices)))


@dataclass(frozen=True)
class Volume:
    """A stack with its pixels: float32 ``[slice, row, column]``, modality rescale applied, NaN in missing slices."""

    stack: Stack
    pixels: NDArray[np.float32]

    @property
    def geometry(self) -> Geometry:
        """The stack's grid. Raises ValueError for a stack without one."""
        if self.stack.geometry is None:
            raise ValueError(f"volume {self.stack.volume_id} has no regular geometry")
        return self.stack.geometry


@dataclass(frozen=True)
class RoledStack:
    """A stack, the role it was given, and why in words a PACS administrator follows."""

    stack: Stack
    role: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """Which stack was taken for a task and why: the best bug report and part of the SR."""

    purpose: Literal["t2w", "adc", "high-b"]
    volume_id: str | None
    reason: str
    rejected: Mapping[str, str] = field(default_factory=dict)
    """volume_id -> why it was not taken."""


@dataclass(frozen=True)
class Assembly:
    """A study in volumes: every stack with its role, what could not be read, and the stacks chosen for detection."""

    study_instance_uid: str
    stacks: tuple[RoledStack, ...]
    choices: tuple[Choice, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """SOP Instance UID -> why it is in no volume."""


class PixelSource(Protocol):
    """Gives the stored values of one frame; the node reads its object store, the command line reads files."""

    def frame(self, reference: SliceReference) -> NDArray[np.float32]:
        """Return float32 ``[row, column]`` with Rescale Slope/Intercept applied.

        Raises:
            PixelsUnavailable: the frame cannot be decoded; the message says why.
        """
        ...


class PixelsUnavailable(Exception):
    """A frame's pixels cannot be had (unsupported syntax, truncated data, implausible size)."""
