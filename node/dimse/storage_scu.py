"""Storage and Verification services as user (PS3.4 A, B): delivery of stored objects to a destination by C-STORE.

The bytes of a file travel as they are whenever the destination accepts their transfer syntax. Only uncompressed little
endian data sets are re-encoded, between explicit and implicit VR, when it accepts nothing else.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext

from node.dimse.contexts import verification_context
from node.dimse.requestor import TIMEOUT_S, DestinationUnavailable, association_with
from node.settings import Destination

__all__ = ["Destination", "DestinationUnavailable", "SendOutcome", "echo", "send"]

_log = structlog.get_logger(__name__)

MAXIMUM_CONTEXTS: Final = 128
"""Presentation contexts of one association request (PS3.8 9.3.2.2: odd identifiers from 1 to 255)."""
MAXIMUM_ASSOCIATIONS_OF_BATCH: Final = 4
"""A destination that ends one association after another is broken; the objects left wait for the next attempt."""
_MEDIUM_PRIORITY: Final = 0
_LITTLE_ENDIAN: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


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


@dataclass(frozen=True)
class _Object:
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

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

    def refused(self, error: str, status: int | None = None) -> SendOutcome:
        return SendOutcome(self.sop_instance_uid, status, error, delivered=False, path=self.path)


def echo(destination: Destination, calling_ae_title: str, timeout_s: float = TIMEOUT_S) -> None:
    """Verify the destination by C-ECHO (PS3.4 A).

    Raises
    ------
    DestinationUnavailable
        It cannot be reached, rejected the association, or did not answer with success.
    """
    with association_with(destination, [verification_context()], calling_ae_title, timeout_s) as association:
        if not association.accepted_contexts:
            raise DestinationUnavailable(f"{destination.label} does not offer the Verification service")
        status = association.send_c_echo().get("Status")
    if status != 0x0000:
        answer = "no answer" if status is None else f"status 0x{status:04X}"
        raise DestinationUnavailable(f"{destination.label} did not confirm the C-ECHO: {answer}")


def send(
    destination: Destination, files: Iterable[Path], calling_ae_title: str, timeout_s: float = TIMEOUT_S
) -> Iterator[SendOutcome]:
    """Send DICOM Part 10 files by C-STORE, over as many associations as their contexts need; yield each outcome.

    Nothing is raised over a destination that cannot be reached: the outcome of each file says it.
    """
    objects: list[_Object] = []
    for path in files:
        found = _read_meta(path)
        if isinstance(found, SendOutcome):
            yield found
        else:
            objects.append(found)
    for batch in _batches(objects):
        yield from _send_batch(destination, batch, calling_ae_title, timeout_s)


def _read_meta(path: Path) -> _Object | SendOutcome:
    try:
        meta = read_file_meta_info(path)
        uids = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        return SendOutcome("", None, f"not a DICOM Part 10 file: {error}", delivered=False, path=path)
    return _Object(path, *map(str, uids))


def _batches(objects: Sequence[_Object]) -> Iterator[list[_Object]]:
    """Group objects so that the contexts of each group fit into one association request."""
    batch: list[_Object] = []
    contexts: set[tuple[str, tuple[str, ...]]] = set()
    for item in objects:
        needed = set(_proposals(item))
        if len(contexts | needed) > MAXIMUM_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(item)
        contexts |= needed
    if batch:
        yield batch


def _proposals(item: _Object) -> list[tuple[str, tuple[str, ...]]]:
    """The contexts one object needs: its own syntax alone, so that the destination's choice cannot lose it."""
    own = (item.sop_class_uid, (item.transfer_syntax_uid,))
    if item.transfer_syntax_uid not in _LITTLE_ENDIAN:
        return [own]
    other = tuple(uid for uid in _LITTLE_ENDIAN if uid != item.transfer_syntax_uid)
    return [own, (item.sop_class_uid, other)]


def _send_batch(
    destination: Destination, batch: Sequence[_Object], calling_ae_title: str, timeout_s: float
) -> Iterator[SendOutcome]:
    """Send a batch, over a new association after one was lost: a single object must not hold up the others."""
    remaining = deque(batch)
    for _ in range(MAXIMUM_ASSOCIATIONS_OF_BATCH):
        if not remaining:
            return
        try:
            with association_with(destination, _contexts(remaining), calling_ae_title, timeout_s) as association:
                while remaining and association.is_established:
                    message_id = (len(batch) - len(remaining)) % 0xFFFF + 1
                    yield _logged(destination, _send_one(association, remaining.popleft(), message_id))
        except DestinationUnavailable as error:
            yield from (_logged(destination, item.refused(str(error))) for item in remaining)
            return
    lost = f"{destination.label} ended {MAXIMUM_ASSOCIATIONS_OF_BATCH} associations before this object"
    yield from (_logged(destination, item.refused(lost)) for item in remaining)


def _contexts(batch: Iterable[_Object]) -> list[PresentationContext]:
    proposals = dict.fromkeys(proposal for item in batch for proposal in _proposals(item))
    return [build_context(sop_class_uid, list(syntaxes)) for sop_class_uid, syntaxes in proposals]


def _send_one(association: Association, item: _Object, message_id: int) -> SendOutcome:
    accepted = {
        str(context.transfer_syntax[0])
        for context in association.accepted_contexts
        if context.abstract_syntax == item.sop_class_uid
    }
    convertible = item.transfer_syntax_uid in _LITTLE_ENDIAN and not accepted.isdisjoint(_LITTLE_ENDIAN)
    if item.transfer_syntax_uid not in accepted and not convertible:
        return item.refused(f"the destination refuses SOP class {item.sop_class_uid} in {item.transfer_syntax_uid}")
    try:
        # A path is sent as raw bytes; a data set is encoded anew, in the syntax that was accepted.
        as_it_is = item.transfer_syntax_uid in accepted and item.has_even_length()
        source: Path | Dataset = item.path if as_it_is else item.data_set()
        response = association.send_c_store(source, msg_id=message_id, priority=_MEDIUM_PRIORITY)
    except (ValueError, AttributeError, OSError) as error:
        association.abort()  # part of it may have been sent
        return item.refused(f"cannot be sent: {error}")
    return _outcome(association, item, response)


def _outcome(association: Association, item: _Object, response: Dataset) -> SendOutcome:
    status = response.get("Status")
    if status is None:
        # Says so to pynetdicom, too: the next request would wait for its full timeout.
        association.abort()
        return item.refused("no answer: the destination closed the association or did not respond in time")
    if status == 0x0000 or 0xB000 <= status <= 0xBFFF:
        return SendOutcome(item.sop_instance_uid, status, "", delivered=True, path=item.path)
    comment = str(response.get("ErrorComment", "") or "")
    return item.refused(f"status 0x{status:04X}" + (f": {comment}" if comment else ""), status)


def _logged(destination: Destination, outcome: SendOutcome) -> SendOutcome:
    facts = {"destination": destination.name, "sop_instance_uid": outcome.sop_instance_uid}
    if outcome.delivered:
        _log.info("object-delivered", status=f"0x{outcome.status or 0:04X}", **facts)
    else:
        _log.warning("object-not-delivered", error=outcome.error, **facts)
    return outcome
