"""Variants of due results for destinations that refuse LABELMAP: offered to the sender, made where needed."""

from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.uid import SegmentationStorage
from sqlalchemy import select

from node.dimse.outgoing import Variant, VariantFailed
from node.results.variants import (
    BINARY_SEGMENTATION,
    LABELMAP_SEGMENTATION_STORAGE,
    NoVariant,
    binary_segmentation,
    refer_to_binary_segmentation,
    refers_to,
)
from node.results.write import to_bytes
from node.workflow.context import NodeContext
from storage.deliveries import DueObject, NewResult, save_variant
from storage.models import ResultObject, Study, StudyRevision, utc_now


def variants_for(context: NodeContext, due: Iterable[DueObject]) -> dict[DueObject, Variant]:
    """The variant of each due result that is a LABELMAP segmentation or refers to one of its own revision."""
    results = [item for item in due if item.kind]
    labelmaps = _labelmaps(context, {item.study_instance_uid for item in results})
    variants = {}
    for item in results:
        labelmap_uid = labelmaps.get((item.study_instance_uid, item.revision))
        if labelmap_uid == item.sop_instance_uid:
            variants[item] = _variant(context, item, SegmentationStorage, binary_segmentation)
        elif labelmap_uid is not None and refers_to(_read(context, item), labelmap_uid):
            variants[item] = _variant(context, item, item.sop_class_uid, _redirection(labelmap_uid))
    return variants


def _labelmaps(context: NodeContext, studies: set[str]) -> dict[tuple[str, int], str]:
    """(study, revision) -> SOP Instance UID of its LABELMAP segmentation."""
    query = (
        select(Study.study_instance_uid, StudyRevision.number, ResultObject.sop_instance_uid)
        .select_from(ResultObject)
        .join(StudyRevision, StudyRevision.id == ResultObject.revision_id)
        .join(Study)
        .where(Study.study_instance_uid.in_(studies), ResultObject.sop_class_uid == LABELMAP_SEGMENTATION_STORAGE)
    )
    with context.database.read() as session:
        return {(study, number): uid for study, number, uid in session.execute(query)}


def _variant(
    context: NodeContext, due: DueObject, sop_class_uid: str, convert: Callable[[Dataset], Dataset]
) -> Variant:
    def make() -> Path:
        try:
            dataset = convert(_read(context, due))
        except NoVariant as error:
            raise VariantFailed(f"this one cannot be turned into a BINARY segmentation: {error}") from error
        return _store(context, due, dataset)

    return Variant(
        name=BINARY_SEGMENTATION,
        refused=LABELMAP_SEGMENTATION_STORAGE,
        needed=SegmentationStorage,
        sop_class_uid=sop_class_uid,
        make=make,
    )


def _redirection(labelmap_uid: str) -> Callable[[Dataset], Dataset]:
    return lambda dataset: refer_to_binary_segmentation(dataset, labelmap_uid)


def _read(context: NodeContext, due: DueObject) -> Dataset:
    return pydicom.dcmread(BytesIO(context.objects.read(due.object_digest)))


def _store(context: NodeContext, due: DueObject, dataset: Dataset) -> Path:
    """Keep the variant and know it as ours before it leaves: a PACS that sends it back must not open a revision."""
    stored = context.objects.put(to_bytes(dataset))
    variant = NewResult(
        kind=due.kind,
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        object_digest=stored.digest,
        size_bytes=stored.size_bytes,
        recipients=(),
    )
    with context.database.session() as session:
        save_variant(session, due.sop_instance_uid, variant, utc_now())
    return context.objects.verified_path(stored.digest)
