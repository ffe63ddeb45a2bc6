"""The whole way with other people's programs: storescu is the scanner, storescp the PACS, dicom3tools the judge."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from tests.fixtures.dcmtk import storescp, storescu, tool
from tests.fixtures.running_node import RunningNode, make_node, running_node

pytestmark = [pytest.mark.real_data, pytest.mark.peers, pytest.mark.slow]

STUDIES = ("ProstateX-0000", "ProstateX-0001")


@dataclass(frozen=True)
class Result:
    """What came back for one study."""

    sent: list[Dataset]
    shown: dict[str, Any]
    files: list[Path]

    def objects(self, sop_class: str, title: str | None = None) -> list[Dataset]:
        found = [pydicom.dcmread(path) for path in self.files]
        return [
            ds
            for ds in found
            if ds.SOPClassUID == sop_class and (title is None or title.lower() in ds.SeriesDescription.lower())
        ]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningNode, Path]]:
    folder = tmp_path_factory.mktemp("node")
    with storescp(folder / "pacs") as pacs, running_node(make_node(folder, {"PACS": pacs.port})) as node:
        yield node, pacs.folder


@pytest.fixture(scope="module")
def results(node: tuple[RunningNode, Path], shared_data: Path) -> dict[str, Result]:
    running, pacs = node
    sent = {}
    for name in STUDIES:
        folder = shared_data / "prostate_prostatex_skyra" / name
        run = storescu(running.dicom_port, [folder], "--scan-directories", "--recurse")
        assert run.returncode == 0, run.stderr
        sent[name] = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))]
    results = {}
    for name in STUDIES:
        uid = sent[name][0].StudyInstanceUID
        shown = running.wait_delivered(uid)
        files = [
            path for path in pacs.iterdir() if pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID == uid
        ]
        results[name] = Result(sent[name], shown, files)
    return results


def references(dataset: Dataset) -> set[str]:
    """Every SOP Instance UID a dataset refers to."""
    return {str(element.value) for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


def content(dataset: Dataset, meaning: str) -> list[Dataset]:
    """Every content item of that concept name."""
    found = []

    def visit(item: Dataset) -> None:
        name = item.get("ConceptNameCodeSequence")
        if name and name[0].CodeMeaning == meaning:
            found.append(item)
        for child in item.get("ContentSequence", []):
            visit(child)

    visit(dataset)
    return found


@pytest.mark.parametrize("name", STUDIES)
def test_every_instance_was_received(results: dict[str, Result], name: str) -> None:
    assert results[name].shown["instances"] == len(results[name].sent)


@pytest.mark.parametrize("name", STUDIES)
def test_the_gate_opens_and_all_three_objects_arrive(results: dict[str, Result], name: str) -> None:
    result = results[name]
    assert result.shown["gate_open"] is True
    assert len(result.objects(Comprehensive3DSRStorage)) == 2
    expected = {"quality-report", "lesion-report"}
    if any(c["above_operating_point"] for c in result.shown["detection"]["candidates"]):
        expected.add("segmentation")
        assert len(result.objects(SegmentationStorage)) == 1
    assert {item["kind"] for item in result.shown["objects"]} == expected


@pytest.mark.parametrize("name", STUDIES)
def test_dsrdump_reads_the_reports(results: dict[str, Result], name: str) -> None:
    for path in results[name].files:
        if pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID != Comprehensive3DSRStorage:
            continue
        run = subprocess.run([tool("dsrdump"), path], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert "E:" not in run.stderr
        assert "Imaging Measurement Report" in run.stdout
        assert "Research use" in run.stdout


@pytest.mark.parametrize("name", STUDIES)
def test_dciodvfy_finds_no_error(results: dict[str, Result], name: str) -> None:
    for path in results[name].files:
        run = subprocess.run(["/usr/bin/dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        errors = [line for line in run.stderr.splitlines() + run.stdout.splitlines() if line.startswith("Error")]
        assert not errors, (path, errors)
        assert run.returncode == 0


@pytest.mark.parametrize("name", STUDIES)
def test_every_referenced_uid_exists(results: dict[str, Result], name: str) -> None:
    result = results[name]
    received = [pydicom.dcmread(path) for path in result.files]
    known = {ds.SOPInstanceUID for ds in result.sent} | {ds.SOPInstanceUID for ds in received}
    for dataset in received:
        referenced = references(dataset)
        assert referenced
        assert referenced <= known


@pytest.mark.parametrize("name", STUDIES)
def test_reported_volume_is_the_segmented_volume(results: dict[str, Result], name: str) -> None:
    result = results[name]
    segmentations = result.objects(SegmentationStorage)
    if not segmentations:
        assert not any(c["above_operating_point"] for c in result.shown["detection"]["candidates"])
        return
    seg = hd.seg.Segmentation.from_dataset(segmentations[0])
    report = next(ds for ds in result.objects(Comprehensive3DSRStorage) if content(ds, "Volume"))
    reported = sorted(float(item.MeasuredValueSequence[0].NumericValue) for item in content(report, "Volume"))
    shared = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    voxel_ml = float(np.prod([*shared.PixelSpacing, shared.SpacingBetweenSlices])) / 1000
    counts = [int(seg.get_volume(segment_numbers=[n]).array.sum()) for n in seg.segment_numbers]
    assert reported == pytest.approx(sorted(count * voxel_ml for count in counts), rel=1e-6)
    tracking = {description.tracking_uid for description in seg.SegmentSequence}
    assert {item.UID for item in content(report, "Tracking Unique Identifier")} == tracking


def test_the_segmentation_of_0000_lies_in_the_gland(results: dict[str, Result], shared_data: Path) -> None:
    seg = hd.seg.Segmentation.from_dataset(results["ProstateX-0000"].objects(SegmentationStorage)[0])
    folder = shared_data / "labels_picai_nc" / "ProstateX-0000"
    gland = nibabel.load(next(folder.glob("*whole_gland__AI__Bosma22b*")))
    volume = seg.get_volume(combine_segments=True)
    voxels = np.argwhere(volume.array > 0)
    points_lps = voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    points_ras = points_lps * (-1, -1, 1)
    indices = np.rint(nibabel.affines.apply_affine(np.linalg.inv(gland.affine), points_ras)).astype(int)
    inside = np.asarray(gland.dataobj)[tuple(indices.T)] > 0
    assert len(voxels) > 10
    assert inside.mean() >= 0.9


def test_two_axial_t2_are_kept_and_the_choice_explained(results: dict[str, Result]) -> None:
    shown = results["ProstateX-0001"].shown
    axial = [s for s in shown["assessment"]["series"] if s["role"] == "t2w-axial"]
    assert len(axial) == 2
    assembled = next(entry for entry in shown["journal"] if entry["event"] == "assembled")
    choice = next(c for c in assembled["detail"]["choices"] if c["purpose"] == "t2w")
    assert choice["volume"]
    assert len(choice["reason"]) > 20


def test_a_result_that_comes_back_opens_no_revision(node: tuple[RunningNode, Path], results: dict[str, Result]) -> None:
    running, _ = node
    result = results["ProstateX-0000"]
    assert storescu(running.dicom_port, result.files).returncode == 0
    shown = running.show(result.shown["study_instance_uid"])
    assert shown is not None
    assert shown["revision"] == 1


def test_a_late_series_opens_the_next_revision(
    node: tuple[RunningNode, Path], results: dict[str, Result], shared_data: Path, tmp_path: Path
) -> None:
    """One more instance of the study, as a scanner would send it later: a copy under new series and instance UIDs."""
    running, _ = node
    uid = results["ProstateX-0000"].shown["study_instance_uid"]
    folder = shared_data / "prostate_prostatex_skyra" / "ProstateX-0000"
    late = pydicom.dcmread(min(folder.rglob("9.*/*.dcm")))
    late.SeriesInstanceUID = pydicom.uid.generate_uid()
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    late.save_as(tmp_path / "late.dcm")
    assert storescu(running.dicom_port, [tmp_path / "late.dcm"]).returncode == 0
    shown = running.wait_delivered(uid, revision=2)
    first = {item["sop_instance_uid"] for item in results["ProstateX-0000"].shown["objects"]}
    assert first.isdisjoint(item["sop_instance_uid"] for item in shown["objects"])
    assert any(entry["event"] == "revision-opened" for entry in shown["journal"])
    assessed = [entry["message"] for entry in shown["journal"] if entry["event"] == "assessed"]
    assert assessed == [
        "7 series, 0 of them unchanged since the revision before",
        "8 series, 7 of them unchanged since the revision before",
    ]
