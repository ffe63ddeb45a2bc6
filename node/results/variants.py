"""Variants of our results for destinations that refuse LABELMAP segmentations (PS3.3 A.51, Label Map Segmentation).

A destination that takes Segmentation Storage only gets the same segments as a BINARY segmentation, and with it a lesion
report whose references name that one: every reference in what a destination holds is true there. Both have SOP Instance
UIDs of their own, derived from those of the objects they stand for, so that a repeat gives the same object.

Frames of BINARY segmentations that do not end on a byte boundary are misread by common viewers, shifted by pixels
without a message: the reason why they are LABELMAP in the first place. The variant's frames are therefore widened with
empty columns on their right to a multiple of eight pixels. Positions stay true, since a frame's position is that of its
first pixel; a viewer that insists on the matrix of the source image refuses the variant instead of misplacing a lesion.
"""

import copy

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from node.results.identity import derived_uid
from node.results.verbatim import verbatim

LABELMAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
BINARY_SEGMENTATION = "binary-segmentation"
"""Name of the variant, part of the UIDs derived for it."""
_BITS_PER_BYTE = 8
_REFERENCED_SEGMENT_NUMBER = Tag(0x0062, 0x000B)
_SEGMENT_IDENTIFICATION_SEQUENCE = Tag(0x0062, 0x000A)


class NoVariant(Exception):
    """The object cannot be turned into a variant; the message says why."""


def variant_uid(sop_instance_uid: str) -> str:
    """SOP Instance UID of the variant that stands for this object."""
    return str(derived_uid(sop_instance_uid, BINARY_SEGMENTATION))


def refers_to(report: Dataset, sop_instance_uid: str) -> bool:
    """Whether the document refers to that object anywhere."""
    return any(
        element.keyword == "ReferencedSOPInstanceUID" and element.value == sop_instance_uid
        for element in report.iterall()
    )


def binary_segmentation(labelmap: Dataset) -> Dataset:
    """The segments of a LABELMAP segmentation of ours (8 bits, uncompressed) as a BINARY one.

    Raises:
        NoVariant: it is no such segmentation, or has no segment with a voxel.
    """
    if labelmap.SOPClassUID != LABELMAP_SEGMENTATION_STORAGE or labelmap.BitsAllocated != _BITS_PER_BYTE:
        raise NoVariant("not a LABELMAP segmentation of 8 bits")
    planes = _planes(labelmap)
    numbers = [int(segment.SegmentNumber) for segment in labelmap.SegmentSequence if segment.SegmentNumber != 0]
    masks: list[NDArray[np.uint8]] = []
    frames: list[Dataset] = []
    for number in numbers:
        for plane, item in zip(planes, labelmap.PerFrameFunctionalGroupsSequence, strict=True):
            mask = (plane == number).astype(np.uint8)
            if mask.any():
                masks.append(mask)
                frames.append(_frame(item, number))
    if not masks:
        raise NoVariant("no segment has a voxel")
    with verbatim():
        binary = copy.deepcopy(labelmap)
        _make_binary(binary, planes.shape[2])
        binary.SegmentSequence = Sequence([s for s in binary.SegmentSequence if s.SegmentNumber != 0])
        binary.PerFrameFunctionalGroupsSequence = Sequence(frames)
        binary.NumberOfFrames = len(frames)
        binary.PixelData = pack_bits(np.stack(masks))
        binary["PixelData"].VR = "OB"
        _rename(binary)
    return binary


def refer_to_binary_segmentation(report: Dataset, labelmap_uid: str) -> Dataset:
    """A lesion report (or other object of ours) with its references to the LABELMAP turned to the BINARY variant."""
    with verbatim():
        changed = copy.deepcopy(report)
        _redirect(changed, labelmap_uid, variant_uid(labelmap_uid))
        _rename(changed)
    return changed


def _planes(labelmap: Dataset) -> NDArray[np.uint8]:
    """Labels ``[frame, row, column]``, widened to whole bytes per frame."""
    shape = (int(labelmap.NumberOfFrames), int(labelmap.Rows), int(labelmap.Columns))
    if len(labelmap.PixelData) < np.prod(shape):
        raise NoVariant("its pixel data are shorter than its header says, or compressed")
    planes = np.frombuffer(labelmap.PixelData, np.uint8, int(np.prod(shape))).reshape(shape)
    missing = 0 if shape[1] * shape[2] % _BITS_PER_BYTE == 0 else -shape[2] % _BITS_PER_BYTE
    return np.pad(planes, ((0, 0), (0, 0), (0, missing)))


def _frame(item: Dataset, number: int) -> Dataset:
    """Functional groups of the frame of one segment at one plane."""
    frame = copy.deepcopy(item)
    identification = Dataset()
    identification.ReferencedSegmentNumber = number
    frame.SegmentIdentificationSequence = Sequence([identification])
    values = frame.FrameContentSequence[0].DimensionIndexValues
    plane = [values] if isinstance(values, int) else list(values)
    frame.FrameContentSequence[0].DimensionIndexValues = [number, *plane]
    return frame


def _make_binary(segmentation: Dataset, columns: int) -> None:
    segmentation.SOPClassUID = SegmentationStorage
    segmentation.SegmentationType = "BINARY"
    segmentation.Columns = columns
    segmentation.BitsAllocated = segmentation.BitsStored = 1
    segmentation.HighBit = 0
    for keyword in ("PixelPaddingValue", "PresentationLUTShape"):  # of the Label Map Segmentation IOD alone
        segmentation.pop(keyword, None)
    index = Dataset()
    index.DimensionOrganizationUID = segmentation.DimensionIndexSequence[0].DimensionOrganizationUID
    index.DimensionIndexPointer = _REFERENCED_SEGMENT_NUMBER
    index.FunctionalGroupPointer = _SEGMENT_IDENTIFICATION_SEQUENCE
    index.DimensionDescriptionLabel = "Referenced Segment Number"
    segmentation.DimensionIndexSequence.insert(0, index)
    segmentation.pop("DimensionOrganizationType", None)  # "3D" holds of one frame per plane


def _rename(variant: Dataset) -> None:
    variant.SOPInstanceUID = variant_uid(variant.SOPInstanceUID)
    variant.file_meta.MediaStorageSOPClassUID = variant.SOPClassUID
    variant.file_meta.MediaStorageSOPInstanceUID = variant.SOPInstanceUID


def _redirect(node: Dataset, old_uid: str, new_uid: str) -> None:
    """Turn every reference to ``old_uid``, at any depth, to the BINARY segmentation ``new_uid``."""
    if node.get("ReferencedSOPInstanceUID") == old_uid:
        node.ReferencedSOPInstanceUID = new_uid
        node.ReferencedSOPClassUID = SegmentationStorage
    for element in node:
        if element.VR == "SQ":
            for item in element.value:
                _redirect(item, old_uid, new_uid)
