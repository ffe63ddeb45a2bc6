"""Result objects judged by other people's programs: dicom3tools' dciodvfy and dcentvfy, DCMTK's dsrdump."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from ai.quality.types import GateDecision, Metric, StudyAssessment, Verdict
from node.results import codes
from node.results.lesion_report import lesion_report
from node.results.quality_report import quality_report
from node.results.segmentation import lesion_segmentation
from node.results.source import SourceStudy
from node.results.write import to_bytes
from tests.fixtures.calibrations import calibration_of_t2w

pytestmark = pytest.mark.peers

# dicom3tools of 2022 predates Label Map Segmentation and takes it for something else.
LABELMAP_UNKNOWN = ("Information Object Not found", "not monotonically increasing", "Shall not be present")


@dataclass(frozen=True)
class Written:
    """Result objects on disk."""

    folder: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.dcm"))


def write(folder: Path, **objects: Dataset | None) -> Written:
    for name, dataset in objects.items():
        if dataset is not None:
            (folder / f"{name}.dcm").write_bytes(to_bytes(dataset))
    return Written(folder)


def dumped(path: Path, *options: str) -> str:
    """dsrdump's view, long values whole, with codes; it must read the document."""
    command = ["/usr/bin/dsrdump", "+Pc", "+Pl", "+U8", *options, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    text = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == 0, text
    return text


def entity_errors(files: list[Path]) -> list[str]:
    """dcentvfy's complaints about objects that disagree on patient, study or series."""
    done = subprocess.run(["/usr/bin/dcentvfy", *map(str, files)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    # It takes Accession Number for a series attribute in one IOD and a study attribute in another, equal as they are;
    # and these sources leave the type 2 Referring Physician's Name out, which a result may not.
    allowed = ("Different information entities", "Element=<ReferringPhysicianName>")
    return [line for line in lines if line and not any(phrase in line for phrase in allowed)]


@pytest.fixture(scope="module")
def of_skyra(make: Any, skyra: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """All three objects of a real study, every code of the book used in the quality report."""
    source, identity = SourceStudy(skyra), make.identity(skyra)
    stack = make.stack(header for header in skyra.values() if header.SeriesDescription == "t2_tse_tra")
    detection = make.detection(stack, other_series=source.image_series_uids[-2:])
    assessment = make.assessment(skyra)
    metrics = tuple(Metric(name, 1.5, "[arb'U]", name) for name in codes.METRICS)
    object.__setattr__(assessment.series[0], "metrics", metrics)
    segmentation = lesion_segmentation(source, detection, identity)
    return write(
        tmp_path_factory.mktemp("skyra"),
        quality=quality_report(source, assessment, detection, identity),
        segmentation=segmentation,
        lesions=lesion_report(source, detection, segmentation, identity),
    )


@pytest.mark.real_data
def test_dciodvfy_finds_no_error_in_the_objects_of_a_real_study(
    of_skyra: Written, dciodvfy: Callable[..., Any]
) -> None:
    assert len(of_skyra.files) == 3
    assert {path.name: dciodvfy(path) for path in of_skyra.files if dciodvfy(path)} == {}


@pytest.mark.real_data
def test_dcentvfy_finds_results_and_sources_consistent(of_skyra: Written, skyra: dict[str, Dataset]) -> None:
    sources = [Path(header.filename) for header in list(skyra.values())[::20]]
    assert entity_errors(of_skyra.files) == []
    assert entity_errors([*of_skyra.files, *sources]) == []


@pytest.mark.real_data
def test_dsrdump_reads_what_we_said(of_skyra: Written) -> None:
    quality = dumped(of_skyra.folder / "quality.dcm")
    assert quality.count('"Imaging Series Quality"') == 7
    assert '(RID13,RADLEX,"Limited quality")' in quality
    assert "Blurred in the middle of the gland." in quality
    assert codes.RESEARCH_USE in quality
    lesions = dumped(of_skyra.folder / "lesions.dcm")
    assert lesions.count("Lesion candidate") == 2
    assert '(111242,DCM,"All algorithms succeeded; with findings")' in lesions


def test_absent_form_and_shut_gate_pass(make: Any, tmp_path: Path, dciodvfy: Callable[..., Any]) -> None:
    headers = make.headers(PatientSex="M", StudyID="1")
    source, identity = SourceStudy(headers), make.identity(headers)
    clear = make.detection(make.stack(headers.values()), above=(False,))
    calibrated = make.assessment(headers)
    series = tuple(replace(one, calibration=calibration_of_t2w().stamp) for one in calibrated.series)
    written = write(
        tmp_path,
        calibrated=quality_report(source, replace(calibrated, series=series), None, identity),
        shut=quality_report(source, make.assessment(headers, gate_open=False), None, identity),
        clear=lesion_report(source, clear, None, identity),
    )
    assert [dciodvfy(path) for path in written.files] == [[], [], []]
    assert "Skyra, room 2" in dumped(tmp_path / "calibrated.dcm")
    assert "Not Attempted" in dumped(tmp_path / "shut.dcm")
    assert "Absent" in dumped(tmp_path / "clear.dcm")


def test_odd_matrices_pass_but_for_the_unknown_sop_class(
    make: Any, tmp_path: Path, dciodvfy: Callable[..., Any]
) -> None:
    headers = make.headers(rows=33, columns=27)
    source, identity = SourceStudy(headers), make.identity(headers)
    detection = make.detection(make.stack(headers.values()))
    segmentation = lesion_segmentation(source, detection, identity)
    written = write(
        tmp_path, segmentation=segmentation, lesions=lesion_report(source, detection, segmentation, identity)
    )
    assert {path.name: dciodvfy(path, LABELMAP_UNKNOWN) for path in written.files} == {
        "segmentation.dcm": [],
        "lesions.dcm": [],
    }
    # DCMTK 3.6.7 refuses references to SOP classes younger than itself unless told to pass over them.
    assert dumped(tmp_path / "lesions.dcm", "-Ei").count('"Lesion candidate') == 2


@pytest.mark.real_data
@pytest.mark.parametrize(
    "folder", ["xray_us", "ct_ge_head", "mr_siemens_xa_enhanced", "derived_objects", "transfer_syntax"]
)
def test_quality_reports_of_whatever_else_arrives(
    make: Any, shared_data: Path, tmp_path: Path, folder: str, dciodvfy: Callable[..., Any]
) -> None:
    studies: dict[str, dict[str, Dataset]] = {}
    for path in sorted(
        path for path in (shared_data / folder).rglob("*") if path.is_file() and pydicom.misc.is_dicom(path)
    ):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if "StudyInstanceUID" in header and "Rows" in header:
            studies.setdefault(str(header.StudyInstanceUID), {})[str(header.SOPInstanceUID)] = header
    assert studies
    for number, (study, headers) in enumerate(list(studies.items())[:8]):
        assessment = StudyAssessment(study, Verdict.NOT_ASSESSED, "Not MR.", (), GateDecision(False, ("Not MR.",)))
        for detail in (assessment, make.assessment(headers)):
            report = quality_report(SourceStudy(headers), detail, None, make.identity(headers))
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(to_bytes(report))
            assert dciodvfy(path) == [], study
            dumped(path)


@pytest.mark.real_data
def test_segmentation_of_a_real_volume_keeps_every_label_through_dcmtk_free_reading(of_skyra: Written) -> None:
    segmentation = pydicom.dcmread(of_skyra.folder / "segmentation.dcm")
    assert segmentation.BitsAllocated == 1
    assert int(np.count_nonzero(segmentation.pixel_array)) == 2 * 2 * 3 + 2 * 2 * 5  # two boxes, 3 and 5 columns wide
