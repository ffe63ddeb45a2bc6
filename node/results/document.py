"""The parts our Structured Reports share: document, observer, image library, root evaluations, stamps (PS3.3 A.35.13).

highdicom has no class for TID 1500's root Qualitative Evaluations container, and its image library reads elements that
enhanced and projection images do not have; both are put together here from its content items.
"""

from collections.abc import Iterable, Sequence

import highdicom as hd
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from node.results.codes import (
    COMMENT,
    IMAGING_PROCEDURE,
    MODALITIES,
    MULTIPARAMETRIC_MRI,
    PRIVATE_SCHEME,
    PROCEDURES,
    QUALITATIVE_EVALUATIONS,
    RESEARCH_USE,
    private_scheme,
)
from node.results.identity import MANUFACTURER, MODEL_NAME, ResultIdentity
from node.results.source import SourceError, SourceStudy, may_show_prostate
from node.results.verbatim import verbatim
from node.settings import ObjectKind

CONTAINS = sr.RelationshipTypeValues.CONTAINS


def comment(text: str) -> sr.TextContentItem:
    """A sentence for people: (121106, DCM, "Comment") TEXT. Machines read the codes beside it."""
    return sr.TextContentItem(name=COMMENT, value=text, relationship_type=CONTAINS)


def evaluation(name: Code, value: Code) -> sr.CodeContentItem:
    """A coded evaluation contained by the root's Qualitative Evaluations."""
    return sr.CodeContentItem(name=name, value=value, relationship_type=CONTAINS)


def append_to_group(group: sr.MeasurementsAndQualitativeEvaluations, items: Iterable[sr.ContentItem]) -> None:
    """Append content items to the container of a measurement group."""
    group[0].ContentSequence.extend(list(items))


def report(
    source: SourceStudy,
    identity: ResultIdentity,
    kind: ObjectKind,
    description: str,
    groups: Sequence[sr.MeasurementsAndQualitativeEvaluations],
    evaluations: Sequence[sr.ContentItem],
    library: Sequence[Dataset],
    evidence: Sequence[Dataset],
) -> Dataset:
    """Assemble a Comprehensive 3D SR with TID 1500 at its root.

    ``library`` images are listed in the Image Library, ``evidence`` in Current Requested Procedure Evidence. The first
    evidence gives patient and study. ``evaluations`` go into the root's Qualitative Evaluations container.
    """
    check_study(source, identity)
    content = sr.MeasurementReport(
        observation_context=_observation_context(identity),
        procedure_reported=_procedure(library),
        imaging_measurements=groups,
    )
    root = content[0].ContentSequence
    root.insert(len(root) - 1, _image_library(library))
    root.append(_qualitative_evaluations([*evaluations, comment(RESEARCH_USE)]))
    with verbatim():
        document = sr.Comprehensive3DSR(
            evidence=evidence,
            content=content[0],
            series_instance_uid=identity.series_instance_uid(kind),
            series_number=identity.series_number(kind),
            sop_instance_uid=identity.sop_instance_uid(kind),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=identity.pipeline_version,
            device_serial_number=str(identity.device_uid),
            series_description=description,
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
        stamp(document, identity)
    return document


def check_study(source: SourceStudy, identity: ResultIdentity) -> None:
    """Raise SourceError unless the identity is for this study."""
    if source.study_instance_uid != identity.study_instance_uid:
        raise SourceError(f"result of {identity.study_instance_uid} asked for study {source.study_instance_uid}")


def stamp(dataset: Dataset, identity: ResultIdentity) -> None:
    """Replace highdicom's clock readings by the identity's, and declare the private code scheme where it is used."""
    created = identity.created_utc
    dataset.InstanceCreationDate = dataset.ContentDate = f"{created:%Y%m%d}"
    dataset.InstanceCreationTime = dataset.ContentTime = f"{created:%H%M%S}"
    for equipment in dataset.ContributingEquipmentSequence:
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = f"{created:%Y%m%d%H%M%S+0000}"
    for element in dataset:
        if element.VR in ("DA", "TM"):  # highdicom's date objects have no DICOM JSON
            element.value = str(element.value or "")
    if _uses_private_scheme(dataset):
        dataset.CodingSchemeIdentificationSequence = [private_scheme()]


def _uses_private_scheme(dataset: Dataset) -> bool:
    designator = "CodingSchemeDesignator"
    return any(element.keyword == designator and element.value == PRIVATE_SCHEME for element in dataset.iterall())


def _procedure(images: Sequence[Dataset]) -> Code:
    """Procedure reported (CID 100): multiparametric MRI where there is MR of the prostate, else what the images are."""
    if any(may_show_prostate(image) for image in images):
        return MULTIPARAMETRIC_MRI
    modalities = {image.Modality for image in images}
    return PROCEDURES.get(modalities.pop(), IMAGING_PROCEDURE) if len(modalities) == 1 else IMAGING_PROCEDURE


def _observation_context(identity: ResultIdentity) -> sr.ObservationContext:
    """The observer is this device (TID 1004), never a person."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=identity.device_uid,
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=identity.pipeline_version,
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _image_library(images: Sequence[Dataset]) -> sr.ContainerContentItem:
    """TID 1600 with one group; a full library of every image makes documents of megabytes, so callers give few."""
    library = sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=CONTAINS, template_id="1600")
    group = sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    group.ContentSequence = sr.ContentSequence([_library_entry(image) for image in images])
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _library_entry(image: Dataset) -> sr.ImageContentItem:
    """TID 1601 with the descriptors of TID 1602 that every image has."""
    acquisition_context = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    pixels = Code("{pixels}", "UCUM", "Pixels")
    entry = sr.ImageContentItem(
        name=Code("260753009", "SCT", "Source"),
        referenced_sop_class_uid=image.SOPClassUID,
        referenced_sop_instance_uid=image.SOPInstanceUID,
        relationship_type=CONTAINS,
    )
    descriptors = sr.ContentSequence()
    if (modality := MODALITIES.get(image.Modality)) is not None:
        descriptors.append(sr.CodeContentItem(codes.DCM.Modality, modality, relationship_type=acquisition_context))
    descriptors.append(
        sr.UIDRefContentItem(
            codes.DCM.FrameOfReferenceUID, image.FrameOfReferenceUID, relationship_type=acquisition_context
        )
    )
    for name, size in ((codes.DCM.PixelDataRows, image.Rows), (codes.DCM.PixelDataColumns, image.Columns)):
        descriptors.append(sr.NumContentItem(name, value=int(size), unit=pixels, relationship_type=acquisition_context))
    entry.ContentSequence = descriptors
    return entry


def _qualitative_evaluations(items: Sequence[sr.ContentItem]) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name=QUALITATIVE_EVALUATIONS, relationship_type=CONTAINS)
    container.ContentSequence = sr.ContentSequence(items)
    return container


def algorithm_identification(
    name: str, version: str, parameters: Sequence[str], family: Code
) -> hd.sr.AlgorithmIdentification:
    """TID 4019 Algorithm Identification."""
    return sr.AlgorithmIdentification(name=name, version=version, parameters=list(parameters) or None, family=family)
