"""Storage and Verification services as user (PS3.4 A, B): delivery of stored objects to a destination by C-STORE.

Which form of an object a destination gets is negotiated per object; `node.dimse.outgoing` says which forms there are.
"""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node.dimse.contexts import verification_context
from node.dimse.outgoing import (
    AS_IT_IS,
    DECOMPRESSED,
    LITTLE_ENDIAN,
    MAXIMUM_CONTEXTS,
    RE_ENCODED,
    Outgoing,
    ReadObject,
    SendOutcome,
    VariantFailed,
    batches,
    read_object,
)
from node.dimse.requestor import TIMEOUT_S, DestinationUnavailable, NothingAccepted, association_with
from node.dimse.transcode import Transcoder, TranscodingFailed, can_decompress
from node.settings import Destination

__all__ = [
    "MAXIMUM_CONTEXTS",
    "Destination",
    "DestinationUnavailable",
    "Outgoing",
    "SendOptions",
    "SendOutcome",
    "echo",
    "send",
]

_log = structlog.get_logger(__name__)

MAXIMUM_ASSOCIATIONS_OF_BATCH: Final = 4
"""A destination that ends one association after another is broken; the objects left wait for the next attempt."""
_SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_DATA_SET_DOES_NOT_MATCH: Final = range(0xA900, 0xAA00)
"""PS3.4 B.2.3: data set does not match SOP class. The same object will not match it tomorrow."""


@dataclass(frozen=True)
class SendOptions:
    """Bounds of sending, and where decompressed objects are written meanwhile (None: a folder of the system)."""

    timeout_s: float = TIMEOUT_S
    maximum_decompressed_bytes: int = 2_000_000_000
    decompression_timeout_s: float = 120.0
    scratch: Path | None = None


def echo(destination: Destination, calling_ae_title: str, timeout_s: float = TIMEOUT_S) -> None:
    """Verify the destination by C-ECHO (PS3.4 A).

    Raises
    ------
    DestinationUnavailable
        It cannot be reached, rejected the association, or did not answer with success.
    """
    with association_with(destination, [verification_context()], calling_ae_title, timeout_s) as association:
        status = association.send_c_echo().get("Status")
    if status != 0x0000:
        answer = "no answer" if status is None else f"status 0x{status:04X}"
        raise DestinationUnavailable(f"{destination.label} did not confirm the C-ECHO: {answer}")


def send(
    destination: Destination,
    files: Iterable[Path | Outgoing],
    calling_ae_title: str,
    timeout_s: float | None = None,
    options: SendOptions | None = None,
) -> Iterator[SendOutcome]:
    """Send DICOM Part 10 files by C-STORE, over as many associations as their contexts need; yield each outcome.

    Nothing is raised over a destination that cannot be reached: the outcome of each file says it.
    """
    options = options or SendOptions()
    if timeout_s is not None:
        options = replace(options, timeout_s=timeout_s)
    objects: list[ReadObject] = []
    for file in files:
        found = read_object(file if isinstance(file, Outgoing) else Outgoing(file))
        if isinstance(found, SendOutcome):
            yield found
        else:
            objects.append(found)
    with _Sender(destination, calling_ae_title, options) as sender:
        for batch in batches(objects):
            yield from sender.send(batch)


class _Sender:
    """What sending to one destination needs: its name, bounds, and the decoder for what it does not take as it is."""

    def __init__(self, destination: Destination, calling_ae_title: str, options: SendOptions) -> None:
        self._destination = destination
        self._calling_ae_title = calling_ae_title
        self._options = options
        self._transcoder = Transcoder(options.maximum_decompressed_bytes, options.decompression_timeout_s)

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self._transcoder.end()

    def send(self, batch: Sequence[ReadObject]) -> Iterator[SendOutcome]:
        """Send a batch, over a new association after one was lost: a single object must not hold up the others."""
        remaining = deque(batch)
        for _ in range(MAXIMUM_ASSOCIATIONS_OF_BATCH):
            if not remaining:
                return
            try:
                with association_with(
                    self._destination, _contexts(remaining), self._calling_ae_title, self._options.timeout_s
                ) as association:
                    while remaining and association.is_established:
                        message_id = (len(batch) - len(remaining)) % 0xFFFF + 1
                        yield self._logged(self._send_one(association, remaining.popleft(), message_id))
            except NothingAccepted:
                yield from (self._logged(_not_accepted(item, frozenset())) for item in remaining)
                return
            except DestinationUnavailable as error:
                yield from (self._logged(item.refused(str(error), unavailable=True)) for item in remaining)
                return
        lost = f"{self._destination.label} ended {MAXIMUM_ASSOCIATIONS_OF_BATCH} associations before this object"
        yield from (self._logged(item.refused(lost)) for item in remaining)

    def _send_one(self, association: Association, item: ReadObject, message_id: int) -> SendOutcome:
        variant = item.outgoing.variant
        if variant is None or _accepted(association, variant.refused) or not _accepted(association, variant.needed):
            return self._send_form(association, item, message_id)
        try:
            stand_in = read_object(Outgoing(variant.make(), item.outgoing.priority))
        except VariantFailed as error:
            return item.refused(f"the destination refuses SOP class {variant.refused}, and {error}", final=True)
        if isinstance(stand_in, SendOutcome):
            return item.refused(stand_in.error, final=True)
        outcome = self._send_form(association, stand_in, message_id)
        sent_as = ", ".join(filter(None, (variant.name, outcome.sent_as)))
        return replace(outcome, sop_instance_uid=item.sop_instance_uid, path=item.path, sent_as=sent_as)

    def _send_form(self, association: Association, item: ReadObject, message_id: int) -> SendOutcome:
        """Send the object in the form that comes first among those the destination accepts."""
        accepted = _accepted(association, item.sop_class_uid)
        uncompressed = [uid for uid in LITTLE_ENDIAN if uid in accepted]
        try:
            if item.transfer_syntax_uid in accepted and item.has_even_length():
                return _store(association, item, item.path, message_id, AS_IT_IS)
            if item.transfer_syntax_uid in accepted or (item.transfer_syntax_uid in LITTLE_ENDIAN and uncompressed):
                return _store(association, item, item.data_set(), message_id, RE_ENCODED)
            if uncompressed and can_decompress(item.transfer_syntax_uid):
                return self._send_decompressed(association, item, uncompressed[0], message_id)
        except (ValueError, AttributeError, OSError) as error:
            association.abort()  # part of it may have been sent
            return item.refused(f"cannot be sent: {error}")
        return _not_accepted(item, accepted)

    def _send_decompressed(
        self, association: Association, item: ReadObject, transfer_syntax_uid: str, message_id: int
    ) -> SendOutcome:
        scratch = self._options.scratch
        if scratch is not None:
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="decompressed-", dir=scratch) as folder:
            target = Path(folder) / "object.dcm"
            try:
                self._transcoder.decompress(item.path, target, transfer_syntax_uid)
            except TranscodingFailed as error:
                return item.refused(
                    f"the destination takes it uncompressed only, and it cannot be decompressed: {error}", final=True
                )
            return _store(association, item, target, message_id, DECOMPRESSED)

    def _logged(self, outcome: SendOutcome) -> SendOutcome:
        facts = {"destination": self._destination.name, "sop_instance_uid": outcome.sop_instance_uid}
        if outcome.delivered:
            _log.info("object-delivered", status=f"0x{outcome.status or 0:04X}", sent_as=outcome.sent_as, **facts)
        else:
            _log.warning("object-not-delivered", error=outcome.error, **facts)
        return outcome


def _contexts(batch: Iterable[ReadObject]) -> list[PresentationContext]:
    proposals = dict.fromkeys(proposal for item in batch for proposal in item.proposals)
    return [build_context(sop_class_uid, list(syntaxes)) for sop_class_uid, syntaxes in proposals]


def _accepted(association: Association, sop_class_uid: str) -> frozenset[str]:
    """The transfer syntaxes in which the destination takes objects of that SOP class."""
    return frozenset(
        str(context.transfer_syntax[0])
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class_uid
    )


def _not_accepted(item: ReadObject, accepted: frozenset[str]) -> SendOutcome:
    reason = f"the destination refuses SOP class {item.sop_class_uid} in {item.transfer_syntax_uid}"
    if not accepted.isdisjoint(LITTLE_ENDIAN):
        reason += "; it takes it uncompressed, but there is no decoder for this compression here"
    return item.refused(reason, final=True)


def _store(
    association: Association, item: ReadObject, source: Path | Dataset, message_id: int, sent_as: str
) -> SendOutcome:
    """Send a C-STORE request: a path as raw bytes, a data set encoded anew in the syntax that was accepted."""
    response = association.send_c_store(source, msg_id=message_id, priority=item.outgoing.priority)
    status = response.get("Status")
    if status is None:
        # Says so to pynetdicom, too: the next request would wait for its full timeout.
        association.abort()
        return item.refused("no answer: the destination closed the association or did not respond in time")
    if status == 0x0000 or 0xB000 <= status <= 0xBFFF:
        return SendOutcome(item.sop_instance_uid, status, "", delivered=True, path=item.path, sent_as=sent_as)
    comment = str(response.get("ErrorComment", "") or "")
    final = status == _SOP_CLASS_NOT_SUPPORTED or status in _DATA_SET_DOES_NOT_MATCH
    return item.refused(f"status 0x{status:04X}" + (f": {comment}" if comment else ""), status, final=final)
