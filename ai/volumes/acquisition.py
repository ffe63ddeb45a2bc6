"""How a frame was acquired, from a classic or enhanced MR header (PS3.3 C.8.3.1, C.8.13) or any other modality's."""

from typing import Literal

from pydicom.dataset import Dataset

from ai.volumes.frames import frame_header
from ai.volumes.header import Header, binary_number, texts
from ai.volumes.types import Acquisition

SIEMENS_XA_SEQUENCE_NAME = (0x0021, 0x77, "SIEMENS MR SDI 02")
"""Siemens XA writes the classic Sequence Name of each frame here; the enhanced objects have none."""

PHILIPS_EPI_FACTOR = (0x2001, 0x13, "Philips Imaging DD 001")


def read_acquisition(dataset: Dataset) -> Acquisition:
    """How the instance was acquired; of an enhanced multi-frame object, how its first frame was.

    Never raises for what is in the header: damaged, absent and nonsensical values read as None or "".
    """
    return acquisition_of(frame_header(dataset))


def acquisition_of(header: Header) -> Acquisition:
    """How one frame was acquired. Times in ms, lengths in mm, angles in degrees, as the standard has them."""
    return Acquisition(
        modality=header.text("Modality").upper(),
        manufacturer=header.text("Manufacturer"),
        manufacturer_model_name=header.text("ManufacturerModelName"),
        body_part_examined=header.text("BodyPartExamined"),
        series_description=header.text("SeriesDescription"),
        protocol_name=header.text("ProtocolName"),
        sequence_name=sequence_name(header),
        image_type=image_type(header),
        scanning_sequence=scanning_sequence(header),
        sequence_variant=_codes(header, "SequenceVariant"),
        scan_options=_codes(header, "ScanOptions"),
        magnetic_field_strength_t=_positive(header, "MagneticFieldStrength"),
        repetition_time_ms=_positive(header, "RepetitionTime"),
        echo_time_ms=echo_time_ms(header),
        flip_angle_deg=_positive(header, "FlipAngle"),
        echo_train_length=_echo_train_length(header),
        number_of_averages=_positive(header, "NumberOfAverages"),
        pixel_bandwidth_hz=_positive(header, "PixelBandwidth"),
        slice_thickness_mm=_positive(header, "SliceThickness"),
        spacing_between_slices_mm=_positive(header, "SpacingBetweenSlices"),
        acquisition_matrix=_acquisition_matrix(header),
        percent_sampling=_positive(header, "PercentSampling"),
        percent_phase_field_of_view=_positive(header, "PercentPhaseFieldOfView"),
        in_plane_phase_encoding_direction=_phase_encoding_direction(header),
        temporal_position=temporal_position(header),
        acquisition_time=acquisition_time(header),
        series_time=_time(header, "SeriesTime"),
        series_number=header.integer("SeriesNumber"),
        rescale_units=_rescale_units(header),
        samples_per_pixel=header.integer("SamplesPerPixel") or 1,
        pixel_spacing_mm=_pixel_spacing(header),
        exposure_index=_positive(header, "ExposureIndex"),
        target_exposure_index=_positive(header, "TargetExposureIndex"),
        deviation_index=header.number("DeviationIndex"),
    )


def image_type(header: Header) -> tuple[str, ...]:
    """Frame Type of an enhanced frame, else Image Type; upper case, without empty values."""
    return _codes(header, "FrameType") or _codes(header, "ImageType")


def sequence_name(header: Header) -> str:
    """Sequence Name, Siemens XA's private one, or Pulse Sequence Name."""
    private = " ".join(texts(header.private(*SIEMENS_XA_SEQUENCE_NAME)))
    return header.text("SequenceName") or private or header.text("PulseSequenceName")


def echo_time_ms(header: Header) -> float | None:
    """Echo Time, or Effective Echo Time of an enhanced frame, in ms."""
    return _positive(header, "EffectiveEchoTime") or _positive(header, "EchoTime")


def acquisition_time(header: Header) -> str:
    """Acquisition Time as TM, or the time of the frame's or instance's acquisition date and time."""
    return _time(header, "AcquisitionTime", "FrameAcquisitionDateTime", "AcquisitionDateTime")


def temporal_position(header: Header) -> int | None:
    """Temporal Position Index of an enhanced frame, else Temporal Position Identifier."""
    index = header.integer("TemporalPositionIndex")
    return index if index is not None else header.integer("TemporalPositionIdentifier")


def scanning_sequence(header: Header) -> tuple[str, ...]:
    """Scanning Sequence in the classic terms (C.8.3.1.1.1), put together from the enhanced attributes (C.8.13.4)."""
    classic = _codes(header, "ScanningSequence")
    if classic:
        return (*classic, "EP") if "EP" not in classic and _is_philips_echo_planar(header) else classic
    echoes = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(
        header.text("EchoPulseSequence").upper(), ()
    )
    planar = ("EP",) if header.text("EchoPlanarPulseSequence").upper() == "YES" else ()
    inverted = ("IR",) if header.text("InversionRecovery").upper() == "YES" else ()
    return (*echoes, *planar, *inverted)


def _codes(header: Header, keyword: str) -> tuple[str, ...]:
    return tuple(code.upper() for code in header.texts(keyword) if code)


def _positive(header: Header, keyword: str) -> float | None:
    number = header.number(keyword)
    return number if number is not None and number > 0 else None


def _pixel_spacing(header: Header) -> tuple[float, float] | None:
    spacing = header.vector("PixelSpacing", 2)
    return (spacing[0], spacing[1]) if spacing is not None and min(spacing) > 0 else None


def _is_philips_echo_planar(header: Header) -> bool:
    """Classic Philips headers call echo-planar imaging plain SE or GR; its EPI factor tells."""
    if not header.text("Manufacturer").casefold().startswith("philips"):
        return False
    factor = binary_number(header.private(*PHILIPS_EPI_FACTOR), "<i")
    return factor is not None and factor > 1


def _echo_train_length(header: Header) -> int | None:
    for keyword in ("EchoTrainLength", "RFEchoTrainLength"):
        length = header.integer(keyword)
        if length is not None and length > 0:
            return length
    return None


def _acquisition_matrix(header: Header) -> tuple[int, int, int, int] | None:
    """Acquisition Matrix; from the encoding steps of an enhanced frame placed by the phase encoding direction."""
    matrix = header.vector("AcquisitionMatrix", 4)
    if matrix is not None:
        frequency_rows, frequency_columns, phase_rows, phase_columns = (int(value) for value in matrix)
        return frequency_rows, frequency_columns, phase_rows, phase_columns
    frequency = header.integer("MRAcquisitionFrequencyEncodingSteps")
    phase = header.integer("MRAcquisitionPhaseEncodingStepsInPlane")
    direction = _phase_encoding_direction(header)
    if not frequency or not phase or direction is None:
        return None
    return (0, frequency, phase, 0) if direction == "ROW" else (frequency, 0, 0, phase)


def _phase_encoding_direction(header: Header) -> Literal["ROW", "COL"] | None:
    match header.text("InPlanePhaseEncodingDirection").upper():
        case "ROW":
            return "ROW"
        case "COL" | "COLUMN":
            return "COL"
    return None


def _time(header: Header, *keywords: str) -> str:
    """The first of these that is there, as TM; a DT is cut to its time (PS3.5 6.2)."""
    for keyword in keywords:
        text = header.text(keyword)
        if text:
            return text[8:].split("+")[0].split("-")[0] if keyword.endswith("DateTime") else text
    return ""


def _rescale_units(header: Header) -> str:
    """The unit code of the real world value mapping where there is one, else Rescale Type."""
    mapping = header.item("RealWorldValueMappingSequence")
    macro = header if mapping is None else Header((mapping, *header.layers))
    unit = macro.item("MeasurementUnitsCodeSequence")
    return (Header((unit,)).text("CodeValue") if unit is not None else "") or header.text("RescaleType")
