"""BINARY variants of LABELMAP segmentations: the same voxels at the same places, and reports that refer to them."""

from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from node.deliveries import list_deliveries
from node.results.lesion_report import lesion_report
from node.results.segmentation import lesion_segmentation
from node.results.source import SourceStudy
from node.results.variants import (
    LABELMAP_SEGMENTATION_STORAGE,
    NoVariant,
    binary_segmentation,
    refer_to_binary_segmentation,
    refers_to,
    variant_uid,
)
from node.results.write import to_bytes
from node.settings import load_settings
from node.studies import show_study
from node.workflow.context import NodeContext
from node.workflow.deliver import deliver_step
from storage.deliveries import NewResult, Recipient, save_results
from storage.ingest import Reception, ingest
from storage.models import utc_now
from storage.revisions import find_revision
from tests.fixtures.dcmtk import storescp
from tests.fixtures.instances import mr_file


def written(dataset: Dataset) -> Dataset:
    """As a receiver reads it."""
    return pydicom.dcmread(BytesIO(to_bytes(dataset)))


@pytest.fixture(params=[(31, 23), (15, 17)])
def lesions(make: Any, request: pytest.FixtureRequest) -> tuple[Dataset, Dataset]:
    """A LABELMAP segmentation on an odd matrix, and the report on it."""
    rows, columns = request.param
    headers = make.headers(rows=rows, columns=columns)
    source, stack, identity = SourceStudy(headers), make.stack(headers.values()), make.identity(headers)
    labels = np.zeros((6, rows, columns), np.uint8)
    labels[1:4, 3:9, 2:7] = 1
    labels[2:5, 10:14, columns - 3 :] = 2
    detection = make.detection(stack, above=(True, True), labels=labels)
    segmentation = lesion_segmentation(source, detection, identity)
    assert segmentation.SOPClassUID == LABELMAP_SEGMENTATION_STORAGE
    return written(segmentation), written(lesion_report(source, detection, segmentation, identity))


def voxels(segmentation: Dataset, number: int) -> set[tuple[float, ...]]:
    """Positions of a segment's voxels in the patient, as highdicom reads the file."""
    seg = hd.seg.segread(BytesIO(to_bytes(segmentation)))
    volume = seg.get_volume(combine_segments=True)
    indices = np.argwhere(volume.array == number)
    points = indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return {tuple(float(x) for x in np.round(point, 4)) for point in points}


def test_every_voxel_stays_where_it_is(lesions: tuple[Dataset, Dataset]) -> None:
    labelmap, _ = lesions
    binary = written(binary_segmentation(labelmap))
    assert (binary.SOPClassUID, binary.SegmentationType) == (SegmentationStorage, "BINARY")
    assert binary.Rows * binary.Columns % 8 == 0
    for number in (1, 2):
        assert voxels(binary, number) == voxels(labelmap, number)
        assert len(voxels(binary, number)) > 10


def test_the_segments_are_described_as_before(lesions: tuple[Dataset, Dataset]) -> None:
    labelmap, _ = lesions
    binary = binary_segmentation(labelmap)
    assert list(binary.SegmentSequence) == [s for s in labelmap.SegmentSequence if s.SegmentNumber != 0]
    assert binary.SeriesInstanceUID == labelmap.SeriesInstanceUID
    for frame in binary.PerFrameFunctionalGroupsSequence:
        assert len(frame.FrameContentSequence[0].DimensionIndexValues) == len(binary.DimensionIndexSequence)


def test_a_variant_is_always_the_same_object_and_never_its_original(lesions: tuple[Dataset, Dataset]) -> None:
    labelmap, _ = lesions
    first, second = binary_segmentation(labelmap), binary_segmentation(labelmap)
    assert to_bytes(first) == to_bytes(second)
    assert first.SOPInstanceUID == variant_uid(labelmap.SOPInstanceUID) != labelmap.SOPInstanceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID


def test_the_report_refers_to_what_the_destination_has(lesions: tuple[Dataset, Dataset]) -> None:
    labelmap, report = lesions
    assert refers_to(report, labelmap.SOPInstanceUID)
    changed = written(refer_to_binary_segmentation(report, labelmap.SOPInstanceUID))
    assert not refers_to(changed, labelmap.SOPInstanceUID)
    references = [
        item for item in _items(changed) if item.get("ReferencedSOPInstanceUID") == variant_uid(labelmap.SOPInstanceUID)
    ]
    assert len(references) >= 3, "one per lesion, and the evidence"
    assert {item.ReferencedSOPClassUID for item in references} == {SegmentationStorage}
    assert changed.SOPInstanceUID == variant_uid(report.SOPInstanceUID)


def _items(node: Dataset) -> list[Dataset]:
    found = [node]
    for element in node:
        if element.VR == "SQ":
            found += [deeper for item in element.value for deeper in _items(item)]
    return found


def test_what_is_no_label_map_has_no_variant(make: Any) -> None:
    headers = make.headers(rows=32, columns=24)
    source, stack = SourceStudy(headers), make.stack(headers.values())
    binary = lesion_segmentation(source, make.detection(stack), make.identity(headers))
    with pytest.raises(NoVariant):
        binary_segmentation(binary)


def test_dciodvfy_finds_no_error(lesions: tuple[Dataset, Dataset], dciodvfy: Any, tmp_path: Any) -> None:
    labelmap, _ = lesions
    path = tmp_path / "variant.dcm"
    path.write_bytes(to_bytes(binary_segmentation(labelmap)))
    assert dciodvfy(path) == []


@pytest.mark.peers
@pytest.mark.parametrize("takes_labelmap", [True, False])
def test_each_pacs_gets_a_segmentation_and_a_report_that_fit(
    lesions: tuple[Dataset, Dataset], takes_labelmap: bool, database_url: str, tmp_path: Path
) -> None:
    """DCMTK's storescp knows no LABELMAP unless it is told to take everything."""
    labelmap, report = lesions
    options = ("--accept-all", "--promiscuous") if takes_labelmap else ("--prefer-uncompr",)
    with storescp(tmp_path / "pacs", *options) as pacs:
        place = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port}
        storage = {"data_dir": tmp_path / "data", "database_url": database_url}
        context = NodeContext(load_settings(storage=storage, destinations=[place]))
        study_uid = str(labelmap.StudyInstanceUID)
        image = mr_file(tmp_path, StudyInstanceUID=study_uid)
        ingest(context.database, context.objects, image, Reception("MR1", "10.0.0.1", utc_now()))
        results = [
            _result(context, kind, made) for kind, made in (("segmentation", labelmap), ("lesion-report", report))
        ]
        with context.database.session() as session:
            save_results(session, find_revision(session, study_uid, 1), results, utc_now())
        deliver_step(context, "pacs", 0)
        arrived = {str(d.SOPClassUID): d for d in map(pydicom.dcmread, pacs.files())}
        returned = [
            ingest(context.database, context.objects, path, Reception("PACS", "127.0.0.1", utc_now())).outcome
            for path in pacs.files()
        ]
    assert returned == ["own-result", "own-result"], "the variants are known as ours: their return opens no revision"
    document = show_study(context.database, study_uid)
    assert [row["state"] for row in list_deliveries(context.database)] == ["delivered", "delivered"]
    segmentation = arrived[LABELMAP_SEGMENTATION_STORAGE if takes_labelmap else SegmentationStorage]
    lesion = arrived[str(report.SOPClassUID)]
    assert refers_to(lesion, segmentation.SOPInstanceUID)
    assert (segmentation.SOPInstanceUID == labelmap.SOPInstanceUID) is takes_labelmap
    assert (lesion.SOPInstanceUID == report.SOPInstanceUID) is takes_labelmap
    told = [entry["message"] for entry in document["journal"] if entry["event"] == "delivered"]
    assert [" as binary-segmentation:" in message for message in told] == 2 * [not takes_labelmap]


def _result(context: NodeContext, kind: str, made: Dataset) -> NewResult:
    stored = context.objects.put(to_bytes(made))
    return NewResult(
        kind,
        str(made.SOPInstanceUID),
        str(made.SOPClassUID),
        str(made.SeriesInstanceUID),
        stored.digest,
        stored.size_bytes,
        (Recipient("pacs"),),
    )
