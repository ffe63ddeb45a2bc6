"""The upper layer of an accepted association (PS3.8 9) in one thread that waits for its peer instead of polling.

pynetdicom gives each association two threads that look for work every millisecond: 3 ms per message, and one per cent
of a core for an association that is idle. Here its state machine runs in the association's own thread: what is sent
goes out at once, and whoever waits for the peer waits in the socket. Bytes are read only when somebody wants them, so a
peer can make us hold one PDU, of a type and length that are checked before anything is allocated.
"""

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import _PDUPrimitiveType
from pynetdicom.transport import AssociationSocket

from node import audit, telemetry
from node.dimse.foreign import foreign_protocol
from node.dimse.messages import UNDECODABLE, IncomingMessages, MessageRefused

_log = structlog.get_logger(__name__)

PDU_HEADER_BYTES: Final = 6
"""Type, reserved byte and 32-bit length begin every PDU (PS3.8 9.3.1)."""
PDU_TYPES: Final = range(0x01, 0x08)
"""A-ASSOCIATE-RQ to A-ABORT (PS3.8 9.3.1)."""
P_DATA_TF: Final = 0x04
MAXIMUM_CONTROL_PDU_BYTES: Final = 1 << 10
"""Of A-ASSOCIATE-RJ, A-RELEASE and A-ABORT, which have four bytes (PS3.8 9.3.4 to 9.3.8)."""
CLOSING_S: Final = 2.0
"""For a peer to close its end, at most: closing ours before it has read our last PDU could lose that."""
_ASSOCIATED, _AWAITING_CLOSE = "Sta6", "Sta13"
_CONNECTION_CLOSED, _ARTIM_EXPIRED, _INVALID_PDU = "Evt17", "Evt18", "Evt19"
_header = struct.Struct(">BBL")
_response_header = struct.Struct(">BBLLBB")
_TIMED_OUT = (BlockingIOError, TimeoutError, ssl.SSLWantReadError)


@dataclass(frozen=True)
class UpperLayerLimits:
    """Bounds of one connection. Sizes in bytes, times in seconds."""

    maximum_associate_bytes: int
    """A longer association request is not read."""
    maximum_pdu_bytes: int
    """What we offered in negotiation: a longer P-DATA-TF is not read."""
    silence_s: float
    """Nothing from the peer for so long in the middle of a message ends the association; a PDU may not take longer."""
    idle_s: float
    """Nothing from the peer for so long between messages ends it as well."""


class _PduIncomplete(Exception):
    """A PDU has begun and does not go on."""


class WaitingUpperLayer(DULServiceProvider):
    """Replaces pynetdicom's upper layer in an association that was accepted. Its ``start`` starts no thread.

    Parameters
    ----------
    association
        The association; its thread is the only one that may call this, except for `abort_soon`.
    connection
        Its connected socket, with TLS or without.
    count_bytes
        Counts received bytes; False when they are more than the association may bring.
    """

    def __init__(
        self,
        association: Association,
        connection: socket.socket,
        limits: UpperLayerLimits,
        count_bytes: Callable[[int], bool] = lambda _: True,
    ) -> None:
        super().__init__(association)
        self._kill_thread: bool = False
        self._limits = limits
        self._count_bytes = count_bytes
        self._abort_asked = False
        self._is_silent = False
        self._heard_at = time.monotonic()
        self._header = bytearray(PDU_HEADER_BYTES)
        self._body = bytearray()
        _prepare(connection, limits.silence_s)
        self._connection = connection
        # Announces the connection to the state machine (Evt5).
        association.dul = self
        association.set_socket(AssociationSocket(association, client_socket=connection))

    # What pynetdicom calls.

    def start(self) -> None:
        """Let pynetdicom believe that a thread has started."""
        self.assoc._dul_ready.set()

    def is_alive(self) -> bool:
        """Whether the state machine still runs."""
        return not self._kill_thread

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> object:
        """The next primitive from the peer; waits for it if asked, None if there is none in time."""
        if wait:
            self.wait_until(lambda: not self.to_user_queue.empty(), timeout)
        return super().receive_pdu(wait=False)

    def send_pdu(self, primitive: _PDUPrimitiveType) -> None:
        """Send a primitive: it is on its way when this returns."""
        super().send_pdu(primitive)
        self._work()

    def stop_dul(self) -> bool:
        """End the state machine; a peer that was told to close the connection gets a moment for it."""
        if not self._kill_thread and self.state_machine.current_state == _AWAITING_CLOSE:
            if self._half_close():
                self.wait_until(lambda: False, min(CLOSING_S, self.artim_timer.remaining))
            if self.socket is not None:
                self.socket._shutdown_socket()
        self._kill_thread = True
        return True

    # What the association's thread calls.

    def serve(self, messages: IncomingMessages) -> None:
        """Serve requests until the association has ended; takes the place of ``Association._run_reactor``."""
        association = self.assoc
        while not association._kill:
            context_id, message = messages.get_msg()
            if message is not None and context_id is not None:
                association._serve_request(message, context_id)
            elif self._abort_asked:
                association.abort()
            elif association.acse.is_release_requested():
                self._release()
            elif association.acse.is_aborted():
                self.receive_pdu()
                self._end_as_aborted()
            elif not self.is_alive():
                association.kill()
            elif self._is_silent:
                _log.warning("association-silent", calling_ae_title=association.requestor.ae_title)
                association.abort()
            else:
                self._receive()
                self._work()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        """Read from the peer until ``condition`` holds, the time is over or the connection has ended."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._work()
        while not self._kill_thread and not condition():
            if deadline is not None and not self._is_readable(deadline - time.monotonic()):
                return
            self._receive()
            self._work()

    def send_command(self, context_id: int, command: bytes) -> None:
        """Send the command set of a message without data set, in one P-DATA-TF (PS3.8 9.3.5)."""
        if self.state_machine.current_state != _ASSOCIATED or self.socket is None:
            return
        size = len(command)
        self.socket.send(_response_header.pack(P_DATA_TF, 0, size + 6, size + 2, context_id, 3) + command)

    def abort_soon(self) -> None:
        """Have the association's thread abort it before it reads anything more. Any thread may call this."""
        self._abort_asked = True
        try:
            # Wakes a thread that waits for the peer. Not by SSLSocket's own method: that ends TLS, and what was left to
            # be said would go out in the clear.
            socket.socket.shutdown(self._connection, socket.SHUT_RD)
        except OSError as error:
            _log.debug("connection-already-closed", error=str(error))

    # The work itself.

    def _work(self) -> None:
        """Let the state machine deal with all there is, without waiting for more."""
        while not self._kill_thread:
            if self.event_queue.empty() and not self._process_recv_primitive():
                return
            try:
                self.state_machine.do_action(self.event_queue.get_nowait())
            except InvalidEventError:  # a peer out of step with the protocol, or an answer to one that has gone
                self._drop("it is out of step with the upper layer protocol")
            except UNDECODABLE as error:  # decoded as a PDU, but with a value that pynetdicom takes into no primitive
                self._drop(f"a PDU has a value that DICOM does not know ({type(error).__name__}: {error})")

    def _receive(self) -> None:
        """Wait for one PDU and deal with it; silence and the end of the connection become events too."""
        try:
            received = self._fill(memoryview(self._header), may_wait=True)
        except _PduIncomplete as error:
            self._drop(str(error))
            return
        except TimeoutError:
            self._on_silence()
            return
        if received < PDU_HEADER_BYTES:
            self._on_end_of_stream()
            return
        pdu_type, _, length = _header.unpack(self._header)
        if fault := self._fault_of_header(pdu_type, length):
            telemetry.connection_refused("not-dicom")
            audit.trail().node_refused(self._peer(), fault)
            self._drop(fault)
            return
        if len(self._body) < length:
            self._body = bytearray(length)
        body = memoryview(self._body)[:length]
        try:
            received = self._fill(body, may_wait=False)
        except _PduIncomplete as error:
            self._drop(str(error))
            return
        if received < length:
            self._on_end_of_stream()
            return
        self._heard_at = time.monotonic()
        if pdu_type == P_DATA_TF and self.state_machine.current_state == _ASSOCIATED:
            self._receive_data(body)
        else:
            self._decode(body)

    def _fault_of_header(self, pdu_type: int, length: int) -> str:
        if pdu_type not in PDU_TYPES:
            return f"not DICOM: {foreign_protocol(self._header) or f'PDU type 0x{pdu_type:02X}'}"
        if pdu_type == P_DATA_TF:
            limit = self._limits.maximum_pdu_bytes
        elif pdu_type in (0x01, 0x02):
            limit = self._limits.maximum_associate_bytes
        else:
            limit = MAXIMUM_CONTROL_PDU_BYTES
        return f"announced PDU length {length} exceeds {limit} bytes" if length > limit else ""

    def _fill(self, view: memoryview, *, may_wait: bool) -> int:
        """Read until ``view`` is full or the peer closes; returns how many bytes there are.

        ``may_wait``: the clock starts with the first byte. Raises TimeoutError if not even that has come, and
        `_PduIncomplete` if the PDU's time is over.
        """
        filled, deadline = 0, 0.0 if may_wait else time.monotonic() + self._limits.silence_s
        while filled < len(view):
            try:
                count = self._connection.recv_into(view[filled:])
            except _TIMED_OUT as error:
                if may_wait and not filled:
                    raise TimeoutError from error
                raise self._incomplete() from error
            except OSError as error:
                _log.info("connection-lost", error=str(error))
                return filled
            if count == 0:
                return filled
            filled += count
            if filled < len(view):
                deadline = deadline or time.monotonic() + self._limits.silence_s
                if time.monotonic() > deadline:
                    raise self._incomplete()
        return filled

    def _incomplete(self) -> "_PduIncomplete":
        return _PduIncomplete(f"PDU not complete within {self._limits.silence_s:g} s")

    def _receive_data(self, body: memoryview) -> None:
        messages: IncomingMessages = self.assoc.dimse
        try:
            if not self._count_bytes(len(body)):
                raise MessageRefused("it has brought more bytes than one association may")
            messages.receive_values(body)
        except MessageRefused as refusal:
            audit.trail().restricted_use(self._peer(), str(refusal))
            _log.warning(
                "association-aborted",
                calling_ae_title=self.assoc.requestor.ae_title,
                peer_address=self.assoc.requestor.address_info.address,
                reason=str(refusal),
            )
            # "Unrecognised or invalid PDU": the state machine answers with A-ABORT (PS3.8 table 9-10, AA-8).
            self.event_queue.put(_INVALID_PDU)

    def _decode(self, body: memoryview) -> None:
        """Have pynetdicom decode an association's, release's or abort's PDU."""
        try:
            pdu, event = self._decode_pdu(bytearray(bytes(self._header) + bytes(body)))
        except UNDECODABLE as error:
            _log.warning("pdu-undecodable", error=f"{type(error).__name__}: {error}")
            self.event_queue.put(_INVALID_PDU)
            return
        self.event_queue.put(event)
        self._recv_pdu.put(pdu)

    def _on_silence(self) -> None:
        if self.state_machine.current_state == _ASSOCIATED:
            waited_s = time.monotonic() - self._heard_at
            self._is_silent = self._messages_are_pending() or waited_s >= self._limits.idle_s
        else:
            self.event_queue.put(_ARTIM_EXPIRED)

    def _messages_are_pending(self) -> bool:
        messages: IncomingMessages = self.assoc.dimse
        return messages.is_amid_message

    def _on_end_of_stream(self) -> None:
        """The peer has closed; or we have stopped listening to it, to abort it in order."""
        if not (self._abort_asked and self.state_machine.current_state == _ASSOCIATED):
            self.event_queue.put(_CONNECTION_CLOSED)

    def _drop(self, reason: str) -> None:
        """Close the connection at once, without an answer: what speaks like that is not DICOM."""
        address = self.assoc.requestor.address_info
        _log.warning("connection-dropped", peer_address=address.address if address else "", reason=reason)
        if self.socket is not None:
            self.socket._shutdown_socket()
        self.event_queue.put(_CONNECTION_CLOSED)

    def _peer(self) -> audit.RemoteNode:
        requestor = self.assoc.requestor
        return audit.RemoteNode(requestor.address_info.address if requestor.address_info else "", requestor.ae_title)

    def _release(self) -> None:
        association = self.assoc
        association.acse.send_release(is_response=True)
        association.is_released, association.is_established = True, False
        evt.trigger(association, evt.EVT_RELEASED, {})
        association.kill()

    def _end_as_aborted(self) -> None:
        association = self.assoc
        association.is_aborted, association.is_established = True, False
        evt.trigger(association, evt.EVT_ABORTED, {})
        association.kill()

    def _half_close(self) -> bool:
        """Send nothing more, and let the peer see that; False where the connection has gone."""
        try:
            socket.socket.shutdown(self._connection, socket.SHUT_WR)  # below TLS, if there is TLS
        except OSError:
            return False
        return True

    def _is_readable(self, timeout_s: float) -> bool:
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        poll = select.poll()
        try:
            poll.register(self._connection, select.POLLIN)
        except ValueError:  # closed meanwhile: reading says so
            return True
        return bool(poll.poll(max(0.0, timeout_s) * 1000))


def _prepare(connection: socket.socket, silence_s: float) -> None:
    """Have every read and write end after ``silence_s``; a peer that does not read its answers ends, too."""
    # An answer waits for no more data; Nagle's algorithm with delayed acknowledgements costs 40 ms per object.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer whose machine or cable has gone says nothing: the kernel asks it, and ends the connection in two minutes.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(silence_s)
        return
    # Blocking calls that the kernel ends: one system call each, where Python's own timeouts need two.
    connection.settimeout(None)
    interval = struct.pack("@ll", int(silence_s), int(silence_s % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
