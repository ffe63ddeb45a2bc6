"""Simulated DICOM: valid for the standard's validator, deterministic, in one frame of reference."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ai.simulation.export import series_instance_uid, study_instance_uid, write_study
from ai.simulation.protocol import Protocol, SeriesKind
from ai.simulation.study import SimulatedStudy, simulate_study

COARSE_MM = (2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def written(clean_study: SimulatedStudy, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_study(tmp_path_factory.mktemp("study"), clean_study)


def datasets(paths: list[Path], kind: SeriesKind, study: SimulatedStudy) -> list[pydicom.Dataset]:
    read = [pydicom.dcmread(path) for path in paths]
    return [one for one in read if one.SeriesInstanceUID == series_instance_uid(study, kind)]


@pytest.mark.peers
def test_dciodvfy_finds_no_error(written: list[Path], clean_study: SimulatedStudy) -> None:
    validator = shutil.which("dciodvfy")
    assert validator is not None, "dciodvfy (Debian package dicom3tools) is needed for this test"
    by_series = {path.parent: path for path in written}
    assert len(by_series) == len(clean_study.series)
    for path in by_series.values():
        answer = subprocess.run([validator, str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], path


def test_the_same_seed_gives_the_same_bytes(
    written: list[Path], protocols: tuple[Protocol, ...], tmp_path: Path
) -> None:
    again = write_study(tmp_path, simulate_study(3, protocols=protocols, spacing_mm=COARSE_MM))
    digest = [[hashlib.sha256(path.read_bytes()).digest() for path in paths] for paths in (written, again)]
    assert digest[0] == digest[1]


def test_a_ruined_study_is_another_study_of_the_same_patient(
    clean_study: SimulatedStudy, protocols: tuple[Protocol, ...]
) -> None:
    ruined = simulate_study(3, "motion", 5, protocols=protocols, spacing_mm=COARSE_MM)
    assert study_instance_uid(ruined) != study_instance_uid(clean_study)
    assert ruined.truth.lesions == clean_study.truth.lesions


def test_uids_are_unique_and_the_frame_of_reference_is_shared(written: list[Path]) -> None:
    read = [pydicom.dcmread(path, stop_before_pixels=True) for path in written]
    assert len({one.SOPInstanceUID for one in read}) == len(read)
    assert len({one.FrameOfReferenceUID for one in read}) == 1
    assert len({one.StudyInstanceUID for one in read}) == 1
    assert all(one.SOPInstanceUID.startswith("2.25.") and one.SOPInstanceUID.is_valid for one in read)
    assert all(one.PatientID == "SIM-3" and str(one.PatientName).startswith("Simulated^") for one in read)


def test_positions_are_regular_and_oblique(written: list[Path], clean_study: SimulatedStudy) -> None:
    axial = datasets(written, SeriesKind.T2_AXIAL, clean_study)
    orientation = np.array(axial[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    assert 0.9 < normal[2] < 0.99, "axial, tilted by 10 to 20 degrees"
    positions = np.array([one.ImagePositionPatient for one in axial], float)
    steps = np.diff(positions, axis=0)
    np.testing.assert_allclose(steps, np.tile(6.0 * normal, (len(steps), 1)), atol=1e-6)


def test_every_b_value_is_a_volume_and_adc_carries_none(written: list[Path], clean_study: SimulatedStudy) -> None:
    dwi = datasets(written, SeriesKind.DWI, clean_study)
    per_b = {b: sum(one.DiffusionBValue == b for one in dwi) for b in (50, 400, 800, 1400)}
    assert per_b == dict.fromkeys(per_b, 10)
    adc = datasets(written, SeriesKind.ADC, clean_study)
    assert all("ADC" in one.ImageType and "DiffusionBValue" not in one for one in adc)
    assert adc[0].ImagePositionPatient == dwi[0].ImagePositionPatient


def test_pixels_survive_writing(written: list[Path], clean_study: SimulatedStudy) -> None:
    axial = datasets(written, SeriesKind.T2_AXIAL, clean_study)
    stored = np.stack([one.pixel_array for one in axial])
    np.testing.assert_array_equal(stored, clean_study.of(SeriesKind.T2_AXIAL).pixels[0])
    assert stored.max() < 4096
