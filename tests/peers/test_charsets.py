"""Patient names of every character set survive receive, index, SR and ``studies show`` unchanged."""

from pathlib import Path

import pydicom
import pytest

from tests.fixtures.dcmtk import storescp, storescu
from tests.fixtures.running_node import make_node, running_node

pytestmark = [pytest.mark.real_data, pytest.mark.peers, pytest.mark.slow]


def test_names_survive(shared_data: Path, tmp_path: Path) -> None:
    """The files share UIDs, so each is sent as a study of its own; the name's bytes stay the original ones."""
    expected: dict[str, str] = {}
    sent = []
    for number, path in enumerate(sorted((shared_data / "charsets").glob("chr*.dcm"))):
        dataset = pydicom.dcmread(path)
        if "PatientName" not in dataset or "PixelData" not in dataset:
            continue
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"1.2.826.0.1.3680043.10.99.{number}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        expected[dataset.StudyInstanceUID] = str(dataset.PatientName)
        dataset.save_as(tmp_path / path.name)
        sent.append(tmp_path / path.name)
    assert len(set(expected.values())) >= 11
    with storescp(tmp_path / "pacs") as pacs, running_node(make_node(tmp_path / "node", {"PACS": pacs.port})) as node:
        assert storescu(node.dicom_port, sent).returncode == 0
        for uid, name in expected.items():
            assert node.wait_delivered(uid)["patient_name"] == name
        reports = [pydicom.dcmread(path) for path in pacs.files()]
        log = node.log.read_text()
    assert {report.StudyInstanceUID: str(report.PatientName) for report in reports} == expected
    for name in expected.values():
        assert name not in log
