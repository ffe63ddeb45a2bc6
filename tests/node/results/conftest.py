"""Source studies (real and generated) and made-up opinions about them."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import MRImageStorage, generate_uid

from ai.detection.types import Algorithm, Candidate, DetectionResult, DetectionState
from ai.quality.types import (
    Code,
    Finding,
    GateDecision,
    Metric,
    SeriesAssessment,
    Severity,
    SliceScore,
    StudyAssessment,
)
from ai.quality.types import Verdict as V
from ai.volumes.types import Acquisition, Geometry, SliceReference, Stack
from node.results.identity import ResultIdentity

Headers = dict[str, Dataset]
ADC_CODE = Code("130585", "DCM", "Expected ADC map is missing")
MOTION = Code("RID11423", "RADLEX", "Motion related artifact")


def read_headers(folder: Path) -> Headers:
    """Headers without pixels of every DICOM file below ``folder``."""
    headers = (pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm")))
    return {str(header.SOPInstanceUID): header for header in headers}


@pytest.fixture(scope="session")
def skyra(shared_data: Path) -> Headers:
    """A complete prostate study of a Siemens Skyra."""
    return read_headers(shared_data / "prostate_prostatex_skyra" / "ProstateX-0000")


def generate_headers(rows: int = 32, columns: int = 24, slices: int = 6, **elements: object) -> Headers:
    """A generated axial MR series with the least a scanner writes; ``elements`` override or, if None, remove."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    headers = {}
    for index in range(slices):
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, frame
        header.Modality, header.SeriesNumber, header.InstanceNumber = "MR", 4, index + 1
        header.PatientID, header.PatientName = "P1", "Doe^Jane"
        header.Rows, header.Columns = rows, columns
        header.PixelSpacing, header.SliceThickness = [0.5, 0.75], 3.0
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-10.0, 5.0, 3.6 * index]
        for keyword, value in elements.items():
            if value is None:
                header.pop(keyword, None)
            else:
                setattr(header, keyword, value)
        headers[str(header.SOPInstanceUID)] = header
    return headers


def stack_of(headers: Iterable[Dataset]) -> Stack:
    """The stack of one classic axial-ish series, sorted along its normal."""
    series = list(headers)
    row_axis, column_axis = np.array(series[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row_axis, column_axis)
    series.sort(key=lambda h: float(np.dot(np.array(h.ImagePositionPatient, float), normal)))
    positions = np.array([h.ImagePositionPatient for h in series], float)
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(series) - 1)
    affine[:3, 1] = column_axis * float(series[0].PixelSpacing[0])
    affine[:3, 2] = row_axis * float(series[0].PixelSpacing[1])
    affine[:3, 3] = positions[0]
    rows, columns = int(series[0].Rows), int(series[0].Columns)
    return Stack(
        volume_id=series[0].SeriesInstanceUID,
        study_instance_uid=series[0].StudyInstanceUID,
        series_instance_uid=series[0].SeriesInstanceUID,
        frame_of_reference_uid=series[0].get("FrameOfReferenceUID", ""),
        acquisition=Acquisition(modality="MR"),
        rows=rows,
        columns=columns,
        slices=tuple(
            SliceReference(h.SOPInstanceUID, h.SOPClassUID, None, tuple(map(float, h.ImagePositionPatient)))
            for h in series
        ),
        slice_indices=tuple(range(len(series))),
        geometry=Geometry(affine, (len(series), rows, columns)),
        plane="axial",
    )


def detection_on(
    stack: Stack,
    above: Sequence[bool] = (True, False, True),
    other_series: Sequence[str] = (),
    labels: NDArray[np.uint8] | None = None,
) -> DetectionResult:
    """Candidates as boxes of growing size on the stack's grid, labels 1..n."""
    assert stack.geometry is not None
    if labels is None:
        labels = np.zeros(stack.geometry.shape, np.uint8)
        for label in range(1, len(above) + 1):
            labels[label : label + 2, 3 * label : 3 * label + 2, 2 : 4 + label] = label
    candidates = tuple(
        Candidate(
            label=label,
            probability=0.9 / label,
            above_operating_point=is_above,
            volume_ml=0.1,
            centroid_lps_mm=(0.0, 0.0, 0.0),
            long_axis_mm=6.5,
            adc_mean_um2_per_s=712.5 if label == 1 else None,
            sector="Left posterolateral middle peripheral zone of prostate" if label == 1 else "somewhere",
        )
        for label, is_above in enumerate(above, start=1)
    )
    return DetectionResult(
        state=DetectionState.SUCCEEDED,
        reason="Looked at T2, ADC and b 1400.",
        algorithm=Algorithm("baseline", "1.2", ("threshold=0.5",)),
        candidates=candidates,
        t2w=stack,
        labels=labels,
        source_series_uids=tuple(other_series),
        operating_point=0.5,
    )


def assessment_of(headers: Headers, gate_open: bool = True) -> StudyAssessment:
    """An assessment of every series: the first limited with findings and metrics, the others in turn."""
    by_series: dict[str, list[Dataset]] = {}
    for header in headers.values():
        by_series.setdefault(str(header.SeriesInstanceUID), []).append(header)
    series = []
    for ordinal, (uid, members) in enumerate(by_series.items()):
        verdict = (V.LIMITED, V.DIAGNOSTIC, V.NON_DIAGNOSTIC, V.NOT_ASSESSED)[ordinal % 4]
        assessed = verdict is not V.NOT_ASSESSED
        series.append(
            SeriesAssessment(
                series_instance_uid=uid,
                series_number=ordinal + 1,
                series_description="désc",
                role="t2w-axial" if ordinal % 2 == 0 else "dwi",
                b_value=None if ordinal % 2 == 0 else 800.0,
                b_values=() if ordinal % 2 == 0 else (50.0, 800.0),
                verdict=verdict,
                score=0.1 * ordinal if assessed else None,
                reason="Blurred in the middle of the gland.",
                slices=tuple(SliceScore(str(m.SOPInstanceUID), None, 1.0 / (i + 1)) for i, m in enumerate(members)),
                findings=(Finding(MOTION, Severity.LIMITING, "Ghosts 4 %.", "4 %", (str(members[0].SOPInstanceUID),)),),
                metrics=(
                    Metric("snr", 21.5, "1", "Signal to noise ratio"),
                    Metric("no-such-metric", 3.25, "mm", "Made-up length"),
                    Metric("cnr", None, "1", "Contrast to noise ratio", "no gland found"),
                ),
                meets_standard=None if ordinal % 2 else False,
                role_reasons=("axial", "long echo time"),
            )
        )
    return StudyAssessment(
        study_instance_uid=str(next(iter(headers.values())).StudyInstanceUID),
        verdict=V.LIMITED if gate_open else V.NON_DIAGNOSTIC,
        reason="One series is limited.",
        series=tuple(series),
        gate=GateDecision(gate_open, () if gate_open else ("The diffusion series is ruined by motion.",)),
        findings=(Finding(ADC_CODE, Severity.ADVISORY, "No ADC map."),),
    )


def identity_of(headers: Headers, **changes: object) -> ResultIdentity:
    """Revision 1 of the study, made at a fixed time."""
    fields = {
        "study_instance_uid": str(next(iter(headers.values())).StudyInstanceUID),
        "revision": 1,
        "pipeline_version": "0.1.0",
        "created_at": datetime(2026, 5, 17, 12, 34, 56, tzinfo=UTC),
    }
    return ResultIdentity(**(fields | changes))  # type: ignore[arg-type]


class Make:
    """The factories above as one fixture (importlib mode lets test files import nothing from each other)."""

    headers = staticmethod(generate_headers)
    read = staticmethod(read_headers)
    stack = staticmethod(stack_of)
    detection = staticmethod(detection_on)
    assessment = staticmethod(assessment_of)
    identity = staticmethod(identity_of)


@pytest.fixture(scope="session")
def make() -> type[Make]:
    """Factories of headers, stacks and opinions."""
    return Make


def _complaints(path: Path, allowed: Sequence[str]) -> list[str]:
    """Errors of dciodvfy, dcentvfy is separate. dciodvfy writes to both streams."""
    done = subprocess.run(
        ["/usr/bin/dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error") and not any(phrase in line for phrase in allowed)]


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[..., list[str]]:
    """Error lines of dicom3tools' IOD validator, less the ``allowed`` ones."""
    return lambda path, allowed=(): _complaints(path, allowed)
