"""Header reading: faithful where the bytes are sound, and each unsound element named."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from storage import dicom_json, part10
from storage.errors import UnreadableInstance
from storage.header import InstanceHeader, dataset_from_json, read_header
from tests.fixtures.instances import mr_data_set, mr_file
from tests.fixtures.instances import part10 as part10_bytes


def _read(tmp_path: Path, data_set: Dataset, **options: Any) -> InstanceHeader:
    path = tmp_path / "instance"
    path.write_bytes(part10_bytes(data_set, **options))
    return read_header(path)


def _assert_same(read: Dataset, rebuilt: Dataset) -> None:
    """Every element of ``read`` is in ``rebuilt``: same VR, same value; bulk data, group lengths, (0008,0005) aside."""
    for element in read:
        if element.tag.element == 0 or element.tag == 0x00080005:
            continue
        if isinstance(element.value, bytes) and len(element.value) > part10.MAX_INLINE_BYTES:
            assert element.tag not in rebuilt
            continue
        other = rebuilt[element.tag]
        assert element.VR == other.VR
        if element.VR == "SQ":
            assert len(element.value) == len(other.value)
            for item, other_item in zip(element.value, other.value, strict=True):
                _assert_same(item, other_item)
        else:
            assert element.value == other.value or (element.is_empty and other.is_empty), element.tag


def test_attributes_of_the_index(tmp_path: Path) -> None:
    header = read_header(mr_file(tmp_path, NumberOfFrames=3, StationName="MR1"))
    assert (header.study_instance_uid, header.series_instance_uid) == ("1.2.3", "1.2.3.4")
    assert (header.sop_instance_uid, header.sop_class_uid) == ("1.2.3.4.5", "1.2.840.10008.5.1.4.1.1.4")
    assert header.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert header.patient == {
        "patient_id": "P1",
        "issuer_of_patient_id": "",
        "patient_name": "Doe^Jane",
        "patient_birth_date": "19600102",
        "patient_sex": "M",
    }
    assert header.study["study_date"] == "20110707"
    assert header.study["accession_number"] == "A1"
    assert header.series["modality"] == "MR"
    assert header.series["station_name"] == "MR1"
    assert (header.series_number, header.instance_number, header.number_of_frames) == (4, 7, 3)
    assert header.faults == []
    assert "7FE00010" not in header.json


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_reads_alike(tmp_path: Path, syntax: str) -> None:
    data_set = mr_data_set(EchoTime=1.5, ImagePositionPatient=[1, 2.5, -3])
    assert _read(tmp_path, data_set, transfer_syntax_uid=syntax).json == _read(tmp_path, data_set).json


@pytest.mark.parametrize(("pixel_representation", "vr", "first"), [(0, "US", 65_436), (1, "SS", -100)])
def test_a_vr_that_depends_on_the_enclosing_data_set(
    tmp_path: Path, pixel_representation: int, vr: str, first: int
) -> None:
    lut = Dataset()
    lut.add_new("LUTDescriptor", vr, [256, first, 16])
    data_set = mr_data_set(PixelRepresentation=pixel_representation, ModalityLUTSequence=Sequence([lut]))
    (item,) = _read(tmp_path, data_set, transfer_syntax_uid=ImplicitVRLittleEndian).json["00283000"]["Value"]
    assert item["00283002"] == {"vr": vr, "Value": [256, first, 16]}


@pytest.mark.parametrize("creator", ["UNKNOWN MAKER", "SIEMENS MR HEADER"])
def test_private_bytes_come_back(tmp_path: Path, creator: str) -> None:
    """Also where the creator's element should be an IS (Siemens' b-value) and the bytes are none."""
    data_set = mr_data_set()
    data_set.private_block(0x0019, creator, create=True).add_new(0x0C, "UN", b"1400\x00\xff")
    header = _read(tmp_path, data_set)
    rebuilt = dataset_from_json(json.loads(json.dumps(header.json)))
    assert rebuilt.get_private_item(0x0019, 0x0C, creator).value == b"1400\x00\xff"
    assert header.faults == []


def test_a_private_value_sent_as_unknown_is_read_where_its_vr_is_known(tmp_path: Path) -> None:
    data_set = mr_data_set()
    data_set.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "UN", b"1400")
    assert _read(tmp_path, data_set).json["0019100C"] == {"vr": "IS", "Value": [1400]}


def test_bulk_data_stay_out_and_are_named_by_a_uri(tmp_path: Path) -> None:
    data_set = mr_data_set()
    data_set.add_new(0x60003000, "OW", bytes(part10.MAX_INLINE_BYTES + 2))
    header = _read(tmp_path, data_set)
    assert header.json["60003000"] == {"vr": "OW", "BulkDataURI": "60003000"}
    assert header.faults == []
    assert 0x60003000 not in dataset_from_json(header.json)


@pytest.mark.parametrize("undefined_length", [True, False])
def test_functional_groups_are_kept_however_long(tmp_path: Path, undefined_length: bool) -> None:
    def frame(number: int) -> Dataset:
        position = Dataset()
        position.ImagePositionPatient = [0.5, number, number / 3]
        item = Dataset()
        item.PlanePositionSequence = Sequence([position])
        return item

    data_set = mr_data_set(PerFrameFunctionalGroupsSequence=Sequence([frame(n) for n in range(1000)]))
    data_set["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined_length
    header = _read(tmp_path, data_set)
    frames = dataset_from_json(header.json).PerFrameFunctionalGroupsSequence
    positions = [item.PlanePositionSequence[0].ImagePositionPatient for item in frames]
    np.testing.assert_allclose(positions, [[0.5, n, n / 3] for n in range(1000)], rtol=1e-9)
    assert header.faults == []


def test_text_that_postgresql_cannot_store_is_cleaned(tmp_path: Path) -> None:
    header = read_header(mr_file(tmp_path, StudyDescription="a\x00b"))
    assert header.study["study_description"] == "ab"
    assert header.json["00081030"]["Value"] == ["ab"]


def test_text_beyond_the_declared_character_set_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "instance"
    encoded = part10_bytes(mr_data_set(SpecificCharacterSet="ISO_IR 192", PatientName="Müller"))
    path.write_bytes(encoded.replace("ü".encode(), b"\xff\xfe"))
    header = read_header(path)
    assert header.patient["patient_name"].startswith("M\ufffd")
    assert [fault.split(":")[0] for fault in header.faults] == ["(0010,0010) PatientName"]


def test_a_bad_element_is_named_without_its_value_and_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "instance"
    encoded = part10_bytes(mr_data_set(EchoTime="1.5", RepetitionTime="4000"))
    path.write_bytes(encoded.replace(b"4000", b"4x00"))
    header = read_header(path)
    assert header.faults == ["(0018,0080) RepetitionTime: its value does not fit its VR (ValueError)"]
    assert header.json["00180081"]["Value"] == [1.5]
    assert "00180080" not in header.json


def test_what_json_has_no_number_for_is_a_fault(tmp_path: Path) -> None:
    data_set = mr_data_set(DiffusionBValue=float("nan"))
    assert _read(tmp_path, data_set).faults == ["(0018,9087) DiffusionBValue: not a finite number"]


def test_cut_short_pixel_data_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "instance"
    path.write_bytes(part10_bytes(mr_data_set())[:-3])
    (fault,) = read_header(path).faults
    assert "cut short, 5 of 8 bytes" in fault


def test_overlong_identifiers_are_cut_for_the_index_and_said_so(tmp_path: Path) -> None:
    header = read_header(mr_file(tmp_path, PatientID="9" * 500))
    assert header.patient["patient_id"] == "9" * 192
    assert header.json["00100020"]["Value"] == ["9" * 500]
    assert [fault.split(":")[0] for fault in header.faults] == ["patient_id"]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize(
    "uid", [None, "", "../../etc/passwd", "1.2..3", ".", "..", "1.2.", "1" * 65, "1.2\\1.3", "1.2.3/4", "1.\u0663.4"]
)
def test_instances_without_valid_uids_are_refused(tmp_path: Path, keyword: str, uid: str | None) -> None:
    data_set = mr_data_set(**{keyword: "PLACEHOLDER"})
    path = tmp_path / "instance"
    encoded = (uid or "").encode()
    padded = encoded + bytes(len(encoded) % 2)
    before, after = part10_bytes(data_set).rsplit(b"UI\x0c\x00PLACEHOLDER\x00", 1)
    if uid is None:
        path.write_bytes(before[:-4] + after)
    else:
        path.write_bytes(before + b"UI" + len(padded).to_bytes(2, "little") + padded + after)
    with pytest.raises(UnreadableInstance, match="UID"):
        read_header(path)


def test_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_json, "MAX_JSON_BYTES", 2000)
    header = read_header(mr_file(tmp_path, ImageComments="x" * 3000))
    assert len(json.dumps(header.json)) < 3000
    assert any("JSON is full" in fault for fault in header.faults)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "folder",
    ["prostate_prostatex_skyra/ProstateX-0001", "mr_siemens_xa_enhanced", "mr_philips", "mr_ge_dwi", "mr_canon_dwi",
     "mr_uih_dwi", "xray_us", "transfer_syntax", "derived_objects"],
)  # fmt: skip
def test_real_headers_come_back_from_json(shared_data: Path, folder: str) -> None:
    with (shared_data / "manifest.csv").open() as manifest:
        rows = csv.DictReader(manifest)
        names = [row["file"] for row in rows if row["file"].startswith(folder) and row["series_uid"]]
    assert names
    for path in (shared_data / name for name in names[:: max(1, len(names) // 12)]):
        header = read_header(path)
        read = dcmread(path, stop_before_pixels=True)
        if header.faults:
            assert header.faults == ["(0043,1080): its value does not fit its VR (ValueError)"]
            del read[0x00431080]  # GE wrote text into a DS
        _assert_same(read, dataset_from_json(json.loads(json.dumps(header.json))))


@pytest.mark.real_data
def test_names_of_every_character_set_are_unchanged(shared_data: Path) -> None:
    names = {}
    for path in sorted((shared_data / "charsets").glob("*.dcm")):
        expected = str(dcmread(path).get("PatientName", ""))
        if path.stem.startswith("chrSQEncoding"):  # names in sequences only, and no study
            continue
        header = read_header(path)
        assert header.patient["patient_name"] == expected
        assert str(dataset_from_json(header.json).PatientName) == expected
        assert "\ufffd" not in expected
        names[path.stem] = expected
    # Known by sight, so that a decoding error shared with pydicom would not pass.
    assert names["chrRuss"] == "Люкceмбypг"
    assert names["chrH31"] == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert names["chrArab"] == "قباني^لنزار"
