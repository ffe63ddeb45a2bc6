"""Objects on their way out: the presentation contexts each needs, and how each may be changed for a destination.

An object travels as it is wherever its destination accepts that. Else, in this order: uncompressed data sets are
encoded anew between explicit and implicit VR little endian; compressed ones are decompressed; and an object of ours
whose SOP class is refused is replaced by its variant of another class, where it has one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from node.dimse.transcode import can_decompress

LITTLE_ENDIAN: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
MAXIMUM_CONTEXTS: Final = 128
"""Presentation contexts of one association request (PS3.8 9.3.2.2: odd identifiers from 1 to 255)."""

AS_IT_IS: Final = ""
RE_ENCODED: Final = "re-encoded"
DECOMPRESSED: Final = "decompressed"

HIGH, MEDIUM, LOW = 1, 0, 2
"""Priority (0000,0700) of a C-STORE request."""

Proposal = tuple[str, tuple[str, ...]]
"""A presentation context: SOP Class UID and transfer syntaxes."""


class VariantFailed(Exception):
    """The variant of an object cannot be made; the message says why."""


@dataclass(frozen=True)
class Variant:
    """What goes instead of an object where ``refused`` is not accepted and ``needed`` is (SOP Class UIDs).

    ``make`` gives the variant's file, of SOP class ``sop_class_uid``; it is called only if it is needed, and may raise
    `VariantFailed`.
    """

    name: str
    refused: str
    needed: str
    sop_class_uid: str
    make: Callable[[], Path]


@dataclass(frozen=True)
class Outgoing:
    """A file to be sent."""

    path: Path
    priority: int = MEDIUM
    variant: Variant | None = None


@dataclass(frozen=True)
class SendOutcome:
    """What became of one file.

    ``status`` is the C-STORE status, None if there was no answer. Warnings (0xB000 to 0xBFFF) count as delivered:
    the destination has the object (PS3.4 B.2.3).
    """

    sop_instance_uid: str
    status: int | None
    error: str
    delivered: bool
    path: Path
    sent_as: str = AS_IT_IS
    """How the object was changed: `RE_ENCODED`, `DECOMPRESSED`, the name of its variant, or not at all."""
    final: bool = False
    """The destination will never take it: trying again cannot help."""
    unavailable: bool = False
    """No association was made; this says nothing of the object."""


@dataclass(frozen=True)
class ReadObject:
    """A file with what its file meta information says of it."""

    outgoing: Outgoing
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    proposals: tuple[Proposal, ...] = field(default=())

    @property
    def path(self) -> Path:
        """The file."""
        return self.outgoing.path

    def has_even_length(self) -> bool:
        """Tell whether the data set may travel as it is: PS3.8 annex D.2 wants fragments of even length."""
        _, offset = split_dataset(self.path)
        return (self.path.stat().st_size - offset) % 2 == 0

    def data_set(self) -> Dataset:
        """The data set in memory, ready to be encoded anew."""
        data_set = dcmread(self.path)
        # pydicom pads to even length what it has decoded; elements nobody looked at it writes as they were.
        data_set.get("PixelData")
        return data_set

    def refused(
        self, error: str, status: int | None = None, *, final: bool = False, unavailable: bool = False
    ) -> SendOutcome:
        """The outcome of an object that was not delivered."""
        return SendOutcome(self.sop_instance_uid, status, error, False, self.path, final=final, unavailable=unavailable)


def read_object(outgoing: Outgoing) -> ReadObject | SendOutcome:
    """Read the file's meta information; the outcome, if it is no DICOM file."""
    path = outgoing.path
    try:
        meta = read_file_meta_info(path)
        uids = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        return SendOutcome("", None, f"not a DICOM Part 10 file: {error}", delivered=False, path=path, final=True)
    sop_class_uid, sop_instance_uid, transfer_syntax_uid = map(str, uids)
    proposals = tuple(_proposals(outgoing, sop_class_uid, transfer_syntax_uid))
    return ReadObject(outgoing, sop_class_uid, sop_instance_uid, transfer_syntax_uid, proposals)


def batches(objects: Sequence[ReadObject]) -> Iterator[list[ReadObject]]:
    """Group objects so that the contexts of each group fit into one association request."""
    batch: list[ReadObject] = []
    contexts: set[Proposal] = set()
    for item in objects:
        needed = set(item.proposals)
        if len(contexts | needed) > MAXIMUM_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(item)
        contexts |= needed
    if batch:
        yield batch


def _proposals(outgoing: Outgoing, sop_class_uid: str, transfer_syntax_uid: str) -> Iterator[Proposal]:
    """The contexts one object needs: its own syntax alone, so that the destination's choice cannot lose it."""
    yield sop_class_uid, (transfer_syntax_uid,)
    if transfer_syntax_uid in LITTLE_ENDIAN:
        yield sop_class_uid, tuple(uid for uid in LITTLE_ENDIAN if uid != transfer_syntax_uid)
    elif can_decompress(transfer_syntax_uid):
        yield sop_class_uid, LITTLE_ENDIAN
    variant = outgoing.variant
    if variant is not None:
        for variant_class in dict.fromkeys((variant.refused, variant.needed, variant.sop_class_uid)):
            for syntax in LITTLE_ENDIAN:
                yield variant_class, (syntax,)
