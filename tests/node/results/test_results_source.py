"""Source studies: what scanners leave out or get wrong is mended on copies, identity is kept to the letter."""

import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from ai.quality.types import GateDecision, StudyAssessment, Verdict
from node.results.quality_report import quality_report
from node.results.source import SourceError, SourceStudy
from node.results.write import to_bytes

CHARSETS = (
    "chrArab chrFren chrFrenMulti chrGerm chrGreek chrH31 chrH32 chrHbrw chrI2 chrJapMulti chrJapMultiExplicitIR6"
)
CHARSETS += " chrKoreanMulti chrRuss chrX1 chrX2"


def empty_assessment(headers: dict[str, Dataset]) -> StudyAssessment:
    study = str(next(iter(headers.values())).StudyInstanceUID)
    return StudyAssessment(study, Verdict.NOT_ASSESSED, "No MR.", (), GateDecision(False, ("No MR.",)))


def first_image(source: SourceStudy) -> Dataset:
    return source.series(source.image_series_uids[0])[0]


def dumped(path: Path, tag: str) -> str:
    """What DCMTK reads, converted to UTF-8 by its own tables."""
    command = ["/usr/bin/dcmdump", "+U8", "-q", "+L", "+P", tag, str(path)]
    lines = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8").splitlines()
    return lines[0].split("[", 1)[1].rsplit("]", 1)[0]


def test_absent_type_2_elements_become_empty_and_the_input_is_untouched(make: Any) -> None:
    headers = make.headers(FrameOfReferenceUID=None, SliceThickness=None, PatientID=None, Modality=None)
    before = {uid: header.to_json() for uid, header in headers.items()}
    image = first_image(SourceStudy(headers))
    assert (image.PatientID, image.StudyID, image.AccessionNumber, image.PatientSex) == ("", "", "", "")
    assert image.FrameOfReferenceUID.startswith("2.25.")
    assert image.Modality == "OT"
    assert {uid: header.to_json() for uid, header in headers.items()} == before


def test_malformed_dates_and_sex_are_emptied_but_identity_is_kept(make: Any) -> None:
    headers = make.headers()
    with pydicom.config.disable_value_validation():
        for header in headers.values():
            header.PatientBirthDate, header.StudyDate, header.StudyTime = "yesterday", "20260230", "99"
            header.PatientSex, header.PatientID = "female", "X" * 80
            header.PatientName = "Nobody^" + "x" * 70
    source = SourceStudy(headers)
    image = first_image(source)
    assert (image.PatientBirthDate, image.StudyDate, image.StudyTime, image.PatientSex) == ("", "", "", "")
    assert image.PatientID == "X" * 80
    report = pydicom.dcmread(
        _file(to_bytes(quality_report(source, empty_assessment(headers), None, make.identity(headers))))
    )
    assert (report.PatientID, str(report.PatientName)) == ("X" * 80, "Nobody^" + "x" * 70)


def _file(data: bytes) -> Any:
    return pydicom.filebase.DicomBytesIO(data)


def test_a_study_without_an_image_is_refused(make: Any) -> None:
    headers = make.headers(slices=1, SOPClassUID=EncapsulatedPDFStorage, Rows=None)
    with pytest.raises(SourceError, match="no image"):
        SourceStudy(headers)


def test_documents_in_the_study_are_no_images(make: Any) -> None:
    headers = make.headers(slices=2)
    document = make.headers(slices=1, SOPClassUID=EncapsulatedPDFStorage, Rows=None)
    study = next(iter(headers.values())).StudyInstanceUID
    for header in document.values():
        header.StudyInstanceUID = study
    source = SourceStudy(headers | document)
    assert len(source.image_series_uids) == 1
    with pytest.raises(SourceError, match="is not in study"):
        source[next(iter(document))]


def test_two_studies_missing_uids_and_swapped_keys_are_refused(make: Any) -> None:
    with pytest.raises(SourceError, match="2 studies"):
        SourceStudy(make.headers(slices=1) | make.headers(slices=1))
    with pytest.raises(SourceError, match="SeriesInstanceUID"):
        SourceStudy(make.headers(slices=1, SeriesInstanceUID=None))
    with pytest.raises(SourceError, match="given as"):
        SourceStudy({"1.2": next(iter(make.headers(slices=1).values()))})


def test_images_come_by_instance_number(make: Any) -> None:
    headers = make.headers(slices=5)
    shuffled = dict(sorted(headers.items(), key=lambda item: -item[1].InstanceNumber))
    source = SourceStudy(shuffled)
    assert [image.InstanceNumber for image in source.series(source.image_series_uids[0])] == [1, 2, 3, 4, 5]


@pytest.mark.real_data
@pytest.mark.peers
@pytest.mark.parametrize("name", CHARSETS.split())
def test_names_of_every_character_set_reach_the_report(make: Any, shared_data: Path, tmp_path: Path, name: str) -> None:
    original = shared_data / "charsets" / f"{name}.dcm"
    header = pydicom.dcmread(original, stop_before_pixels=True)
    headers = {str(header.SOPInstanceUID): header}
    report = quality_report(SourceStudy(headers), empty_assessment(headers), None, make.identity(headers))
    path = tmp_path / "report.dcm"
    path.write_bytes(to_bytes(report))
    assert report.SpecificCharacterSet == "ISO_IR 192"
    # Debian's DCMTK converts no ISO 2022 Japanese; there the original is read by pydicom alone.
    japanese = "ISO 2022 IR 87" in header.SpecificCharacterSet
    name_sent = str(header.PatientName) if japanese else dumped(original, "PatientName")
    assert dumped(path, "PatientName") == name_sent.rstrip("=") != ""


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["malformed", pytest.param("fuzz", marks=pytest.mark.slow)])
def test_broken_headers_give_a_report_or_a_refusal(make: Any, shared_data: Path, folder: str) -> None:
    outcomes = set()
    for path in sorted((shared_data / folder).rglob("*")):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True) if path.is_file() else Dataset()
            uid, study = str(header.get("SOPInstanceUID", "")), str(header.get("StudyInstanceUID", ""))
        except (pydicom.errors.BytesLengthException, EOFError, ValueError, NotImplementedError, TypeError, OSError):
            continue  # the receiver never gets a header out of such a file
        headers = {uid: header}
        try:
            source = SourceStudy(headers)
        except SourceError:
            outcomes.add("refused")
            continue
        assert to_bytes(quality_report(source, empty_assessment(headers), None, make.identity(headers)))
        assert source.study_instance_uid == study
        outcomes.add("reported")
    assert outcomes == {"refused", "reported"}
