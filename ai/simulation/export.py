"""Write a simulated study as classic MR Image Storage (PS3.3 A.4), with the headers a scanner would give it."""

import uuid
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from ai.simulation.protocol import SeriesKind
from ai.simulation.study import SimulatedSeries, SimulatedStudy

MANUFACTURER = "pacsgate simulator"
NOT_A_PATIENT = "Simulated images of a parametric anatomy. Not a patient."
STUDY_START = datetime(2026, 1, 5, 9, 0, 0)
"""Every simulated examination takes place here, so that the same seed gives the same bytes."""

_UID_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://pacsgate.example/simulation")


def write_study(directory: Path, study: SimulatedStudy) -> list[Path]:
    """Write every instance below ``directory``, one folder per series, Explicit VR Little Endian.

    The same study gives the same bytes: UIDs are made from its identity (2.25, UUID version 5).

    Returns:
        The paths, in order of series and instance number.
    """
    paths = []
    start = STUDY_START
    for series in sorted(study.series, key=lambda one: one.protocol.series_number):
        folder = directory / f"{series.protocol.series_number:02d}_{series.protocol.series_description}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, dataset in enumerate(series_datasets(study, series, start), start=1):
            path = folder / f"{number:04d}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            paths.append(path)
        if series.kind != SeriesKind.ADC:
            start += timedelta(seconds=series.protocol.seconds + 20)
    return paths


def study_instance_uid(study: SimulatedStudy) -> str:
    """Study Instance UID that ``write_study`` gives."""
    return _uid(study, "study")


def series_instance_uid(study: SimulatedStudy, kind: SeriesKind) -> str:
    """Series Instance UID that ``write_study`` gives."""
    return _uid(study, "series", kind)


def series_datasets(study: SimulatedStudy, series: SimulatedSeries, start: datetime = STUDY_START) -> list[Dataset]:
    """All instances of a series, slices rising along the normal, volumes one after the other."""
    volumes, placements = series.pixels.shape[0], series.placements
    made = []
    for volume in range(volumes):
        for index, placement in enumerate(placements):
            if placement is None:
                continue
            number = volume * len(placements) + index + 1
            dataset = Dataset()
            _add_study(dataset, study)
            _add_series(dataset, study, series, start)
            _add_sequence(dataset, series, volume)
            _add_plane(dataset, series, placement.position)
            _add_pixels(dataset, series.pixels[volume, placement.image])
            dataset.InstanceNumber = number
            share = number / (volumes * len(placements))
            acquired = start + timedelta(seconds=round(series.protocol.seconds * share, 2))
            dataset.AcquisitionTime = dataset.ContentTime = _time(acquired)
            dataset.SOPInstanceUID = _uid(study, "instance", series.kind, number)
            _add_file_meta(dataset)
            made.append(dataset)
    return made


def _uid(study: SimulatedStudy, *parts: object) -> str:
    name = "/".join((study.identity, *(str(part) for part in parts)))
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, name).int}"


def _time(moment: datetime) -> str:
    return moment.strftime("%H%M%S.%f")


def _add_study(dataset: Dataset, study: SimulatedStudy) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = MRImageStorage
    dataset.PatientName = f"Simulated^Prostate {study.seed}"
    dataset.PatientID = f"SIM-{study.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "M"
    dataset.QualityControlSubject = "YES"
    dataset.PatientComments = NOT_A_PATIENT
    dataset.StudyInstanceUID = _uid(study, "study")
    dataset.StudyDate = STUDY_START.strftime("%Y%m%d")
    dataset.StudyTime = _time(STUDY_START)
    dataset.StudyID = str(study.seed)
    dataset.AccessionNumber = f"SIM{study.seed}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "MR prostate (simulated)"


def _add_series(dataset: Dataset, study: SimulatedStudy, series: SimulatedSeries, start: datetime) -> None:
    protocol = series.protocol
    day = STUDY_START.strftime("%Y%m%d")
    dataset.Modality = "MR"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "Simulator 3T"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.InstitutionName = MANUFACTURER
    dataset.SeriesInstanceUID = _uid(study, "series", series.kind)
    dataset.SeriesNumber = protocol.series_number
    dataset.AcquisitionNumber = 1
    dataset.SeriesDescription = protocol.series_description
    dataset.ProtocolName = protocol.series_description.removesuffix("_ADC")
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.SeriesTime = _time(start)
    dataset.BodyPartExamined = "PROSTATE"
    dataset.PatientPosition = "FFS"
    dataset.FrameOfReferenceUID = _uid(study, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.ImageComments = NOT_A_PATIENT


def _add_sequence(dataset: Dataset, series: SimulatedSeries, volume: int) -> None:
    protocol = series.protocol
    diffusion, dynamic = bool(series.b_values), series.kind == SeriesKind.DCE
    dataset.ImageType = _image_type(series.kind)
    dataset.ScanningSequence = "EP" if diffusion else "GR" if dynamic else "SE"
    dataset.SequenceVariant = ["SK", "SP", "OSP"]
    dataset.ScanOptions = ["PFP", "FS"] if diffusion or dynamic else ""
    dataset.MRAcquisitionType = "3D" if dynamic else "2D"
    dataset.SequenceName = _sequence_name(series, volume)
    dataset.AngioFlag = "N"
    dataset.RepetitionTime = protocol.repetition_time_ms
    dataset.EchoTime = protocol.echo_time_ms
    dataset.EchoTrainLength = protocol.echo_train_length
    dataset.EchoNumbers = 1
    dataset.FlipAngle = protocol.flip_angle_deg
    dataset.NumberOfAverages = protocol.averages[volume if series.kind == SeriesKind.DWI else 0]
    dataset.PixelBandwidth = protocol.pixel_bandwidth_hz
    dataset.MagneticFieldStrength = 3
    dataset.ImagingFrequency = 123.2
    dataset.ImagedNucleus = "1H"
    dataset.TransmitCoilName = "Body"
    dataset.ReceiveCoilName = "BO1,2;SP1,2"
    dataset.VariableFlipAngleFlag = "N"
    if series.kind == SeriesKind.DWI:
        dataset.DiffusionBValue = series.b_values[volume]
    if dynamic:
        dataset.TemporalPositionIdentifier = volume + 1
        dataset.NumberOfTemporalPositions = len(protocol.averages)
        dataset.TemporalResolution = protocol.frame_s * 1000.0
        dataset.ContrastBolusAgent = "Gadolinium (simulated)"
    _add_encoding(dataset, series)


def _add_encoding(dataset: Dataset, series: SimulatedSeries) -> None:
    """Acquired matrix: frequency rows, frequency columns, phase rows, phase columns (0018,1310).

    A series cut short along phase has fewer lines and a smaller phase field of view.
    """
    protocol = series.protocol
    along_row = protocol.phase_direction == "ROW"
    field_of_view = series.pixels.shape[3 if along_row else 2] / protocol.matrix
    frequency, phase = protocol.frequency_samples, round(protocol.phase_lines * field_of_view)
    dataset.AcquisitionMatrix = [0, frequency, phase, 0] if along_row else [frequency, 0, 0, phase]
    dataset.InPlanePhaseEncodingDirection = protocol.phase_direction
    dataset.PercentSampling = _decimal(100 * protocol.phase_lines / frequency)
    dataset.PercentPhaseFieldOfView = _decimal(100 * field_of_view)
    dataset.NumberOfPhaseEncodingSteps = phase


def _image_type(kind: SeriesKind) -> list[str]:
    if kind == SeriesKind.ADC:
        return ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "NORM", "DIS2D"]
    if kind == SeriesKind.DWI:
        return ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "NORM", "DIS2D"]
    return ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]


def _sequence_name(series: SimulatedSeries, volume: int) -> str:
    """Siemens' way: the b-value and t (trace) for a diffusion image, the range of b-values for a map."""
    name = series.protocol.sequence_name
    if series.kind == SeriesKind.ADC:
        return f"{name}{series.b_values[0]:.0f}_{series.b_values[-1]:.0f}"
    if series.kind == SeriesKind.DWI:
        return f"{name}{series.b_values[volume]:.0f}t"
    return name


def _add_plane(dataset: Dataset, series: SimulatedSeries, position: int) -> None:
    affine = series.geometry.affine_lps_mm
    row_direction, column_direction = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (2, 1))
    origin = affine[:3, 3] + position * affine[:3, 0]
    dataset.ImageOrientationPatient = [_decimal(value) for value in (*row_direction, *column_direction)]
    dataset.ImagePositionPatient = [_decimal(value) for value in origin]
    dataset.SliceLocation = _decimal(float(origin @ np.cross(row_direction, column_direction)))
    dataset.SliceThickness = series.protocol.slice_thickness_mm
    dataset.SpacingBetweenSlices = series.protocol.slice_thickness_mm
    dataset.PixelSpacing = [_decimal(series.protocol.pixel_spacing_mm)] * 2


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters (VR DS)."""
    return f"{value:.10f}"[:16]


def _add_pixels(dataset: Dataset, pixels: NDArray[np.uint16]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.SmallestImagePixelValue = int(pixels.min())
    dataset.LargestImagePixelValue = int(pixels.max())
    low, high = np.percentile(pixels, (1, 99.5))
    dataset.WindowCenter = round(float(low + high) / 2)
    dataset.WindowWidth = max(2, round(float(high - low)))
    dataset.LossyImageCompression = "00"
    dataset.PixelData = pixels.astype("<u2").tobytes()


def _add_file_meta(dataset: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
