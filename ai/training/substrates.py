"""Clean series to degrade: real ones from DICOM folders, simulated ones from seeds, and variants of both.

Vendors differ in contrast, coil bias, matrix and interpolation more than in anatomy. A series is therefore also offered
in variants that another scanner could have made of it (domain randomisation, Tobin et al. 2017, arXiv 1703.06907).
Every variant is clean by definition: damage is always measured against the variant itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import structlog
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.evaluation.simulated import Simulator
from ai.simulation.protocol import DWI, T2_AXIAL, Protocol
from ai.training.quality_cases import SIMULATED
from ai.volumes.assemble import assemble_studies
from ai.volumes.load import UNREADABLE_FILE, DicomFileSource, load_volume
from ai.volumes.types import PixelSource, PixelsUnavailable, Role, RoledStack, Volume

log = structlog.get_logger(__name__)

TRAINED_ROLES = (Role.T2W_AXIAL, Role.T2W_SAGITTAL, Role.T2W_CORONAL, Role.DWI)
"""Roles whose raw data the simulator can go back to. ADC maps follow from their DWI."""

MINIMUM_SLICES = 9
"""A stack with fewer is no prostate series."""

SIMULATED_SPACING_MM = (1.5, 0.5, 0.5)
"""Grid of simulated anatomy along z, y, x: coarser than what is exported, and four times faster to draw."""

GAMMA = (0.75, 1.35)
"""Exponents of the contrast of a variant."""
BIAS_OF_VARIANT = 0.5
"""Largest logarithm of the smooth gain of a variant from the middle to the edge."""
MATRIX_OF_VARIANT = (0.8, 1.0)
"""Share of the acquired lines a variant keeps."""


@dataclass(frozen=True)
class CleanSeries:
    """A series that counts as clean. ``vendor`` is the first word of Manufacturer, or ``SIMULATED``."""

    entry: RoledStack
    volume: Volume
    name: str
    patient: str
    vendor: str

    @property
    def family(self) -> str:
        """The kind of sequence figures are given for: t2w or dwi."""
        return "dwi" if self.entry.role == Role.DWI else "t2w"


def real_series(folders: Sequence[Path]) -> Iterator[CleanSeries]:
    """The prostate series below the folders, one per stack that can be judged; repeats of an instance are used once.

    What cannot be read or has no grid is left out with a log line.
    """
    headers, paths = _read(folders)
    for study in assemble_studies(headers.values()):
        source = DicomFileSource(paths)
        for entry in study.stacks:
            if entry.role not in TRAINED_ROLES or entry.stack.geometry is None:
                continue
            if len(entry.stack.slices) < MINIMUM_SLICES or entry.stack.missing_slice_indices:
                continue
            first = headers[entry.stack.slices[0].sop_instance_uid]
            series = _loaded(entry, source, str(first.PatientID), _vendor(entry))
            if series is not None:
                yield series


def _read(folders: Sequence[Path]) -> tuple[dict[str, Dataset], dict[str, Path]]:
    """Headers and files by SOP Instance UID."""
    headers: dict[str, Dataset] = {}
    paths: dict[str, Path] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            uid = str(header.SOPInstanceUID)
        except (*UNREADABLE_FILE, AttributeError) as error:
            log.info("file not used", path=path.name, reason=str(error))
            continue
        headers.setdefault(uid, header)
        paths.setdefault(uid, path)
    return headers, paths


def _loaded(entry: RoledStack, source: PixelSource, patient: str, vendor: str) -> CleanSeries | None:
    try:
        volume = load_volume(entry.stack, source)
    except PixelsUnavailable as unavailable:
        log.info("series not used", series_instance_uid=entry.stack.series_instance_uid, reason=str(unavailable))
        return None
    return CleanSeries(entry, volume, f"{patient}/{entry.stack.volume_id}", patient, vendor)


def _vendor(entry: RoledStack) -> str:
    words = entry.stack.acquisition.manufacturer.split()
    return words[0].capitalize() if words else "unknown"


def simulated_series(seeds: Sequence[int]) -> Iterator[CleanSeries]:
    """Axial T2 and DWI of simulated patients, each scanned by a protocol of its own."""
    for seed in seeds:
        simulator = Simulator(random_protocols(seed), SIMULATED_SPACING_MM)
        case = simulator.case(seed, with_lesion=seed % 2 == 0)
        for entry in case.assembly.stacks:
            if entry.role in TRAINED_ROLES:
                series = _loaded(entry, case.source, f"simulated-{seed}", SIMULATED)
                if series is not None:
                    yield series


def random_protocols(seed: int) -> tuple[Protocol, Protocol]:
    """An axial T2 and a DWI protocol within what sites really use (references: PI-RADS v2.1 and its adherence)."""
    rng = np.random.default_rng([seed, 7])
    return _random_t2(rng), _random_dwi(rng)


def _random_t2(rng: np.random.Generator) -> Protocol:
    fov_mm = float(rng.choice([140.0, 160.0, 180.0, 200.0]))
    frequency = round(fov_mm / rng.uniform(0.45, 0.75))
    matrix = int(rng.choice([frequency, 384, 512])) // 2 * 2
    return replace(
        T2_AXIAL,
        field_of_view_mm=fov_mm,
        slices=20,
        slice_thickness_mm=float(rng.choice([3.0, 3.5, 4.0])),
        frequency_samples=frequency,
        phase_lines=round(frequency * rng.uniform(0.65, 1.0)),
        matrix=max(matrix, frequency),
        phase_direction="ROW" if rng.random() < 0.7 else "COL",
        echo_time_ms=float(rng.uniform(85.0, 130.0)),
        repetition_time_ms=float(rng.uniform(3500.0, 7000.0)),
        echo_train_length=int(rng.integers(14, 28)),
        averages=(int(rng.integers(1, 4)),),
        noise_sd=float(T2_AXIAL.noise_sd * rng.uniform(0.6, 1.3)),
    )


def _random_dwi(rng: np.random.Generator) -> Protocol:
    fov_mm = float(rng.choice([180.0, 200.0, 240.0]))
    samples = round(fov_mm / rng.uniform(1.6, 2.4))
    return replace(
        DWI,
        field_of_view_mm=fov_mm,
        slices=16,
        slice_thickness_mm=float(rng.choice([3.0, 3.6, 4.0])),
        averages=(3, int(rng.integers(6, 16))),
        b_values=(float(rng.choice([0.0, 50.0, 100.0])), float(rng.choice([800.0, 1000.0, 1400.0]))),
        frequency_samples=samples,
        phase_lines=samples,
        echo_train_length=samples // 2,
        matrix=samples if rng.random() < 0.5 else 2 * samples,
        phase_direction="ROW" if rng.random() < 0.5 else "COL",
        echo_time_ms=float(rng.uniform(55.0, 85.0)),
        noise_sd=float(DWI.noise_sd * rng.uniform(0.6, 1.2)),
    )


def variant(series: CleanSeries, seed: int) -> CleanSeries:
    """The series as another scanner could have shown it: other contrast, coil bias and number of acquired lines."""
    rng = np.random.default_rng([seed, 11])
    pixels = np.nan_to_num(series.volume.pixels)
    top = float(np.percentile(pixels, 99.5)) or 1.0
    pixels = top * (np.clip(pixels, 0, None) / top) ** np.float32(rng.uniform(*GAMMA))
    pixels = pixels * _smooth_gain((pixels.shape[1], pixels.shape[2]), rng)
    stack = series.entry.stack
    matrix = stack.acquisition.acquisition_matrix
    if matrix is not None:
        kept = rng.uniform(*MATRIX_OF_VARIANT)
        fewer = tuple(round(lines * kept) for lines in matrix)
        acquisition = replace(stack.acquisition, acquisition_matrix=(fewer[0], fewer[1], fewer[2], fewer[3]))
        stack = replace(stack, acquisition=acquisition)
    volume = replace(series.volume, stack=stack, pixels=pixels.astype(np.float32))
    return replace(series, entry=replace(series.entry, stack=stack), volume=volume, name=f"{series.name}#{seed}")


def _smooth_gain(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """A second-order polynomial gain, 1 in the middle."""
    row = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    column = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    a, b, c, d, e = rng.uniform(-1, 1, 5).astype(np.float32)
    field = a * row + b * column + c * row * column + d * row**2 + e * column**2
    return np.asarray(np.exp(BIAS_OF_VARIANT * field / max(float(np.abs(field).max()), 1e-6)), np.float32)
