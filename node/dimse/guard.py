"""Bounds on what a peer can make us hold before it has proved anything (PS3.8 9.3: PDU structure and length fields).

pynetdicom believes the 32-bit length of a PDU, waits for its bytes without limit, and buffers command sets and data
sets of other services in memory. The two classes here bound sizes and times; they replace its socket and its DIMSE
provider in each association we accept.
"""

import shutil
import socket
import struct
import time
from pathlib import Path
from typing import Any, Final

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE, DimsePrimitiveType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from node import audit
from node.dimse.foreign import foreign_protocol

_log = structlog.get_logger(__name__)

PDU_HEADER_BYTES: Final = 6
"""Type, reserved byte and 32-bit length begin every PDU (PS3.8 9.3.1)."""

PDU_TYPES: Final = range(0x01, 0x08)
"""A-ASSOCIATE-RQ to A-ABORT (PS3.8 9.3.1)."""

MAXIMUM_BUFFERED_MESSAGE_BYTES: Final = 2 << 20
"""Command sets, and data sets of services other than Storage, in memory. Real ones stay below 64 KiB."""

MAXIMUM_PENDING_MESSAGES: Final = 16
"""Requests waiting for their answer. We negotiate no asynchronous operations, so an honest peer has one."""

DISK_CHECK_INTERVAL_BYTES: Final = 16 << 20
"""Free space is looked up again after so many bytes of one data set."""

_UNDECODABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, EOFError, struct.error)
"""What pynetdicom and pydicom raise over a message that is not DICOM."""


class GuardedSocket(AssociationSocket):
    """The socket of an accepted association: only PDUs of known type and bounded length, each within a deadline.

    A connection that breaks a bound is closed at once, without an answer: what speaks like that is not DICOM.
    """

    def __init__(
        self, association: Association, client_socket: socket.socket, maximum_pdu_bytes: int, pdu_timeout_s: float
    ) -> None:
        super().__init__(association, client_socket=client_socket)
        self._maximum_pdu_bytes = maximum_pdu_bytes
        self._pdu_timeout_s = pdu_timeout_s
        self._header_is_next = True
        # An answer waits for no more data; Nagle's algorithm with delayed acknowledgements costs 40 ms per object.
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that does not read its answers must not hold the sending thread either.
        client_socket.settimeout(pdu_timeout_s)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a PDU header or body; an empty result tells pynetdicom that the connection is gone."""
        is_header, self._header_is_next = self._header_is_next, not self._header_is_next
        received = self._receive(nr_bytes)
        if is_header and len(received) == PDU_HEADER_BYTES:
            fault = self._fault_of_header(received)
            if fault:
                address = self.assoc.requestor.address_info
                node = audit.RemoteNode(address.address if address else "", self.assoc.requestor.ae_title)
                audit.trail().node_refused(node, fault)
                return self._hang_up(fault)
        return received

    def _fault_of_header(self, header: bytearray) -> str:
        pdu_type, _, length = struct.unpack(">BBL", header)
        if pdu_type not in PDU_TYPES:
            return f"not DICOM: {foreign_protocol(header) or f'PDU type 0x{pdu_type:02X}'}"
        if length > self._maximum_pdu_bytes:
            return f"announced PDU length {length} exceeds {self._maximum_pdu_bytes} bytes"
        return ""

    def _receive(self, size: int) -> bytearray:
        """Read exactly ``size`` bytes unless the peer closes or the deadline passes."""
        connection = self.socket
        if connection is None:
            return bytearray()
        received = bytearray(size)
        view, filled = memoryview(received), 0
        deadline = time.monotonic() + self._pdu_timeout_s
        try:
            while filled < size:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return self._hang_up(f"PDU not complete within {self._pdu_timeout_s:g} s")
                connection.settimeout(remaining_s)
                count = connection.recv_into(view[filled:])
                if count == 0:
                    break
                filled += count
        except TimeoutError:
            return self._hang_up(f"PDU not complete within {self._pdu_timeout_s:g} s")
        except OSError as error:
            return self._hang_up(f"connection lost: {error}")
        view.release()
        del received[filled:]
        connection.settimeout(self._pdu_timeout_s)
        return received

    def _hang_up(self, reason: str) -> bytearray:
        address = self.assoc.requestor.address_info
        _log.warning("connection-dropped", peer_address=address.address if address else "", reason=reason)
        self._shutdown_socket()
        return bytearray()


class BoundedMessages(DIMSEServiceProvider):
    """The DIMSE provider of an accepted association: data sets stream to the spool, everything else stays small.

    A message beyond a bound ends the association with A-P-ABORT; its sender gets no success for it.
    """

    def __init__(
        self, association: Association, spool: Path, maximum_object_bytes: int, minimum_free_bytes: int
    ) -> None:
        super().__init__(association)
        self._spool = spool
        self._maximum_object_bytes = maximum_object_bytes
        self._minimum_free_bytes = minimum_free_bytes
        self._message_bytes = 0
        self._next_disk_check_bytes = 0
        self._refused = False
        self._served: Path | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in one P-DATA primitive, if it keeps within the bounds."""
        if self._refused:
            return
        self._message_bytes += sum(len(fragment) for _, fragment in primitive.presentation_data_value_list)
        fault = self._fault() or self._decode(primitive)
        if fault:
            self._refused = True
            _log.warning(
                "association-aborted",
                calling_ae_title=self.assoc.requestor.ae_title,
                peer_address=self.assoc.requestor.address_info.address,
                reason=fault,
            )
            # "Unrecognised or invalid PDU": the state machine answers with A-ABORT (PS3.8 table 9-10, AA-8).
            self.dul.event_queue.put("Evt19")

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message, unless the association was ended: the state machine has no answer to that."""
        if not self._refused:
            super().send_msg(primitive, context_id)

    def get_msg(self, block: bool = False) -> tuple[int | None, Any]:
        """Return the next message; by then the spooled data set of the one before has been dealt with."""
        context_id, message = super().get_msg(block)
        if isinstance(message, C_STORE):
            self._discard_served()
            self._served = message._dataset_path
        return context_id, message

    def remove_spooled(self) -> None:
        """Remove what the ended association left in the spool: data sets cut off and requests nobody answered."""
        self._discard_served()
        if self.message is not None and self.message._data_set_file is not None:
            self.message._data_set_file.close()
            Path(self.message._data_set_file.name).unlink(missing_ok=True)
        while not self.msg_queue.empty():
            self.get_msg()
        self._discard_served()

    def _discard_served(self) -> None:
        if self._served is not None:
            self._served.unlink(missing_ok=True)
            self._served = None

    def _decode(self, primitive: P_DATA) -> str:
        try:
            super().receive_primitive(primitive)
        except _UNDECODABLE as error:
            return f"message cannot be decoded: {type(error).__name__}: {error}"
        except OSError as error:
            return f"spool cannot be written: {error}"
        if self.message is None:
            self._message_bytes = self._next_disk_check_bytes = 0
        return ""

    def _fault(self) -> str:
        if self.msg_queue.qsize() > MAXIMUM_PENDING_MESSAGES:
            return f"more than {MAXIMUM_PENDING_MESSAGES} requests without waiting for an answer"
        if self.message is None or self.message._data_set_file is None:
            too_large = self._message_bytes > MAXIMUM_BUFFERED_MESSAGE_BYTES
            return f"message larger than {MAXIMUM_BUFFERED_MESSAGE_BYTES} bytes" if too_large else ""
        if self._message_bytes > self._maximum_object_bytes:
            return f"data set larger than {self._maximum_object_bytes} bytes"
        if self._message_bytes >= self._next_disk_check_bytes:
            self._next_disk_check_bytes = self._message_bytes + DISK_CHECK_INTERVAL_BYTES
            free_bytes = shutil.disk_usage(self._spool).free
            # Half of the reserve is for what is in flight, which then gets a proper answer; the rest stays.
            if free_bytes < self._minimum_free_bytes // 2:
                return f"{free_bytes} bytes free on the spool's disk, {self._minimum_free_bytes // 2} must stay"
        return ""
