"""One frame of an image instance as the splitter sees it: where it is stored, where it lies and what sets it apart."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from ai.volumes.acquisition import acquisition_of, echo_time_ms, image_type, temporal_position
from ai.volumes.diffusion import gradient_direction, read_b_value
from ai.volumes.frames import TooManyFrames, frame_count, frame_headers
from ai.volumes.grid import is_orientation
from ai.volumes.header import Header
from ai.volumes.types import Acquisition, BValue, SliceReference

MAX_ROWS_OR_COLUMNS = 65_535
"""Rows and Columns are US (PS3.3 C.7.6.3): anything above was written with a wrong VR."""
NOT_AN_IMAGE = {"SEG": "a segmentation", "SR": "a structured report", "KO": "a key object note", "PR": "a presentation"}
RAW_DATA = frozenset({"1.2.840.10008.5.1.4.1.1.66"})
"""Raw Data Storage: Philips writes some with Rows and Modality MR."""
MODALITY_OTHER = "OT"
"""Defined term for what the header does not name (PS3.3 C.7.3.1.1.1)."""

_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")


class NotInAnyVolume(ValueError):
    """The instance gives no slice; the message says why."""


@dataclass(frozen=True)
class Slice:
    """One frame. ``orientation`` and ``position`` are None where absent or damaged; lengths in mm, time in ms."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    reference: SliceReference
    header: Header
    modality: str
    rows: int
    columns: int
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    b_value: BValue | None
    direction: tuple[float, ...] | None
    echo: tuple[int | None, float | None]
    temporal_position: int | None
    image_type: tuple[str, ...]

    @property
    def acquisition(self) -> Acquisition:
        """How it was acquired; read when asked for, since a stack needs it once."""
        return acquisition_of(self.header)


def read_slices(dataset: Dataset) -> Iterator[Slice]:
    """The slices of an instance, in stored order.

    Raises:
        NotInAnyVolume: no image, no identity, or more frames or pixels than any scanner makes.
    """
    root = Header((dataset,))
    uids = [root.text(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    if not all(uids):
        raise NotInAnyVolume("Study, Series or SOP Instance UID is missing")
    modality = root.text("Modality").upper()
    if modality in NOT_AN_IMAGE:
        raise NotInAnyVolume(f"{NOT_AN_IMAGE[modality]}, not an image")
    if root.text("SOPClassUID") in RAW_DATA:
        raise NotInAnyVolume("raw data, not an image")
    rows, columns = _size(root)
    try:
        frame_count(dataset)
    except TooManyFrames as error:
        raise NotInAnyVolume(str(error)) from error
    for frame_number, header in frame_headers(dataset):
        yield _slice(
            uids, modality if _CODE.fullmatch(modality) else MODALITY_OTHER, (rows, columns), frame_number, header
        )


def _size(root: Header) -> tuple[int, int]:
    rows, columns = root.integer("Rows"), root.integer("Columns")
    if rows is None and columns is None:
        raise NotInAnyVolume("no Rows and Columns: not an image")
    if rows is None or columns is None or not all(0 < size <= MAX_ROWS_OR_COLUMNS for size in (rows, columns)):
        raise NotInAnyVolume(f"Rows x Columns is {rows} x {columns}")
    return rows, columns


def _slice(uids: list[str], modality: str, size: tuple[int, int], frame_number: int | None, header: Header) -> Slice:
    study, series, instance = uids
    orientation = header.vector("ImageOrientationPatient", 6)
    position = header.vector("ImagePositionPatient", 3)
    spacing = header.vector("PixelSpacing", 2)
    is_magnetic_resonance = modality == "MR"
    return Slice(
        study_instance_uid=study,
        series_instance_uid=series,
        frame_of_reference_uid=header.text("FrameOfReferenceUID"),
        reference=SliceReference(
            sop_instance_uid=instance,
            sop_class_uid=header.text("SOPClassUID"),
            frame_number=frame_number,
            position_lps_mm=None if position is None else (position[0], position[1], position[2]),
            instance_number=header.integer("InstanceNumber"),
        ),
        header=header,
        modality=modality,
        rows=size[0],
        columns=size[1],
        orientation=orientation if is_orientation(orientation) else None,
        pixel_spacing_mm=spacing if spacing is not None and min(spacing) > 0 else None,
        b_value=read_b_value(header) if is_magnetic_resonance else None,
        direction=gradient_direction(header),
        echo=(header.integer("EchoNumbers"), echo_time_ms(header)) if is_magnetic_resonance else (None, None),
        temporal_position=temporal_position(header),
        image_type=image_type(header) if is_magnetic_resonance else image_type(header)[:3],
    )
