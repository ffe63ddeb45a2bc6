"""The headers of a source study, made fit for highdicom: the elements our objects need, decoded, checked and complete.

highdicom copies patient and study from its evidence and raises where a type 2 element is absent or a date is malformed.
Scanners leave such elements out, so the headers are rebuilt here, on copies, before any object is made from them.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

from highdicom._standard_utils import get_sop_class_iod_map
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.errors import BytesLengthException
from pydicom.valuerep import DA, TM

from node.results.identity import derived_uid
from node.results.verbatim import verbatim

# Written into every object even when empty (type 2 in PS3.3 C.7.1.1 and C.7.2.1).
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
# Copied where present. A closed list: nothing else of a patient's data finds its way into a result.
_PATIENT_AND_STUDY = (
    *_TYPE_2,
    "IssuerOfPatientID",
    "StudyDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_INSTANCE = (
    *_IDENTIFIERS,
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "SeriesDescription",
    "BodyPartExamined",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "InstitutionName",
    "StationName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_SEXES = ("M", "F", "O")

_PROSTATE_BODY_PARTS = ("", "PROSTATE", "PELVIS")


class SourceError(ValueError):
    """The source study does not hold what a result object needs; the message says which object lacks what."""


class SourceStudy:
    """The source study's headers by SOP Instance UID, reduced to the elements our objects need.

    Patient and study are taken from one header (the first image by series and instance number) for every object, so
    that all results agree. Names of any character set are decoded; results are written in ISO_IR 192 (UTF-8).
    The given headers are not changed.
    """

    def __init__(self, headers: Mapping[str, Dataset]) -> None:
        """Normalise ``headers``, which need no pixel data.

        Raises:
            SourceError: no image, an instance without identifying UIDs, or instances of several studies.
        """
        instances = [_instance(uid, header) for uid, header in headers.items()]
        self._instances = {str(instance.SOPInstanceUID): instance for instance in sorted(instances, key=_order)}
        images = [instance for instance in self._instances.values() if is_image(instance)]
        if not images:
            raise SourceError("the study holds no image a report could refer to")
        studies = {str(instance.StudyInstanceUID) for instance in instances}
        if len(studies) > 1:
            raise SourceError(f"instances of {len(studies)} studies given as one: {', '.join(sorted(studies))}")
        self.study_instance_uid = studies.pop()
        patient_and_study = _patient_and_study(headers[str(images[0].SOPInstanceUID)])
        self._series: dict[str, list[Dataset]] = defaultdict(list)
        for image in images:
            image.update(patient_and_study)
            self._series[str(image.SeriesInstanceUID)].append(image)

    def __getitem__(self, sop_instance_uid: str) -> Dataset:
        """The header of an image. Raises SourceError where the study has no such image."""
        instance = self._instances.get(sop_instance_uid)
        if instance is None or not is_image(instance):
            raise SourceError(f"image {sop_instance_uid} is not in study {self.study_instance_uid}")
        return instance

    def series(self, series_instance_uid: str) -> Sequence[Dataset]:
        """The images of a series by instance number; empty where the study has no such image series."""
        return tuple(self._series.get(series_instance_uid, ()))

    @property
    def image_series_uids(self) -> tuple[str, ...]:
        """Every series with images, by series number."""
        return tuple(self._series)


def is_image(instance: Dataset) -> bool:
    """Whether the instance is an image of a SOP class highdicom knows (it looks the modules up to copy)."""
    return bool(instance.get("Rows") and instance.get("Columns")) and instance.SOPClassUID in get_sop_class_iod_map()


def may_show_prostate(image: Dataset) -> bool:
    """Whether the image is MR of the prostate or pelvis, or MR whose header names no body part."""
    return image.Modality == "MR" and str(image.get("BodyPartExamined") or "").upper() in _PROSTATE_BODY_PARTS


def _instance(sop_instance_uid: str, header: Dataset) -> Dataset:
    """One instance's own elements, with the gaps highdicom trips over filled."""
    with verbatim():
        instance = _picked(header, _INSTANCE)
    missing = [keyword for keyword in _IDENTIFIERS if not instance.get(keyword)]
    if missing:
        raise SourceError(f"instance {sop_instance_uid} has no {', '.join(missing)}")
    if instance.SOPInstanceUID != sop_instance_uid:
        raise SourceError(f"header of instance {instance.SOPInstanceUID} given as {sop_instance_uid}")
    instance.SpecificCharacterSet = "ISO_IR 192"
    if not instance.get("Modality"):
        instance.Modality = "OT"
    if not instance.get("FrameOfReferenceUID"):
        # Required by SEG. Derived from the series, whose slices are its only common frame then.
        instance.FrameOfReferenceUID = derived_uid("frame-of-reference", instance.SeriesInstanceUID)
    if not instance.get("SliceThickness"):
        instance.pop("SliceThickness", None)
    return instance


def _patient_and_study(header: Dataset) -> Dataset:
    """Patient and study elements. Identity is kept to the letter; dates, times and sex are emptied where malformed."""
    with verbatim():
        elements = _as_unicode(_picked(header, _PATIENT_AND_STUDY))
    for element in [element for element in elements if element.is_empty]:
        del elements[element.tag]  # legal in type 2 elements alone, which come back below
    if "DeidentificationMethod" not in elements and "DeidentificationMethodCodeSequence" not in elements:
        elements.pop("PatientIdentityRemoved", None)  # "YES" without a method is not allowed (type 1C)
    with verbatim():
        for keyword in _TYPE_2:
            if keyword not in elements:
                setattr(elements, keyword, "")
        if elements.PatientSex not in _SEXES:
            elements.PatientSex = ""
        for keyword, parse in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
            if not _is_readable(parse, elements.get(keyword)):
                setattr(elements, keyword, "")
    return elements


def _picked(header: Dataset, keywords: Sequence[str]) -> Dataset:
    """Copy the named elements.

    An element that cannot be decoded, or has another VR or more values than PS3.6 gives it, holds something else than
    its name says and counts as absent.
    """
    picked = Dataset()
    for keyword in keywords:
        element = _readable_element(header, keyword)
        if element is not None:
            picked[keyword] = copy.copy(element)
    return picked


def _as_unicode(elements: Dataset) -> Dataset:
    """Decode person names and sequences too: the DICOM JSON model (PS3.18 F) is Unicode throughout."""
    decoded = Dataset.from_json(elements.to_json_dict(suppress_invalid_tags=True))
    for element in elements:
        if element.VR in ("DS", "IS"):  # as the scanner wrote it; a JSON number makes "77" "77.0"
            decoded[element.tag] = element
    return decoded


def _readable_element(header: Dataset, keyword: str) -> DataElement | None:
    if keyword not in header:
        return None
    try:
        element = header[keyword]
    except (BytesLengthException, NotImplementedError, ValueError):
        return None
    if dictionary_VR(element.tag) != element.VR:
        return None
    if element.VR == "SQ":
        return element
    values = element.value if element.VM > 1 else [element.value]
    no_number = element.VR in ("DS", "IS") and any(isinstance(value, str) for value in values)
    too_many = element.VM > 1 and dictionary_VM(element.tag) == "1"
    return None if no_number or too_many else element


def _is_readable(parse: type[DA] | type[TM], value: object) -> bool:
    try:
        parse(str(value or ""))
    except ValueError:
        return False
    return True


def _order(instance: Dataset) -> tuple[float, float, str]:
    """Sort key: series number, instance number (absent ones last), SOP Instance UID."""
    numbers = (instance.get("SeriesNumber"), instance.get("InstanceNumber"))
    series, number = (float("inf") if value in (None, "") else float(value) for value in numbers)
    return series, number, str(instance.SOPInstanceUID)
