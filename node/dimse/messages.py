"""Messages arriving over an accepted association (PS3.8 annex E, PS3.7 6.3): data sets to the spool, the rest bounded.

A C-STORE data set goes from the socket's buffer to the spool file, fragment by fragment, and is answered from here.
Every other message is small; it is put together and served by pynetdicom.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, DimsePrimitiveType
from pynetdicom.pdu_primitives import P_DATA

from node import telemetry
from node.dimse.command_set import (
    C_STORE_RQ,
    MalformedCommand,
    StoreRequest,
    command_field,
    elements_of,
    store_request,
    store_response,
)
from storage.spool import SpooledFile

_log = structlog.get_logger(__name__)

MAXIMUM_COMMAND_BYTES: Final = 64 << 10
"""Of a command set. Real ones stay below 1 KiB."""
MAXIMUM_BUFFERED_MESSAGE_BYTES: Final = 2 << 20
"""Data sets of services other than Storage, in memory: a request for commitment of 10,000 instances has 1.3 MiB."""
MAXIMUM_CANCELS: Final = 10
"""C-CANCEL requests kept while a request is served."""
DISK_CHECK_INTERVAL_BYTES: Final = 16 << 20
"""Free space is looked up again after so many bytes of one data set."""
_COMMAND, _LAST = 1, 2
_value_header = struct.Struct(">LBB")

UNDECODABLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError),
    *(TypeError, ValueError, struct.error),
)
"""What pynetdicom and pydicom raise over a PDU or message that is not DICOM, as found by mutating good ones."""


class MessageRefused(Exception):
    """The association must end here with A-P-ABORT: what was sent breaks the protocol or a bound. Nothing is stored."""


@dataclass(frozen=True)
class StoreAnswer:
    """What a C-STORE request is answered with. ``comment`` is an LO, empty for success."""

    status: int
    comment: str = ""


class StoreService(Protocol):
    """What takes in data sets: `node.dimse.storage_scp.StorageScp`."""

    def refusal(self, association: Association, *, now: bool = False) -> StoreAnswer | None:
        """Why nothing of this association can be stored at present; None when it can."""

    def open(self, association: Association, request: StoreRequest, transfer_syntax_uid: str) -> SpooledFile:
        """Begin a data set. Raises OSError where the spool refuses."""

    def store(self, association: Association, request: StoreRequest, file: SpooledFile) -> StoreAnswer:
        """Take in a whole data set; the answer says what became of it."""


@dataclass
class _Arriving:
    """A data set on its way: to ``file``, or nowhere when it has been refused already with ``refusal``."""

    request: StoreRequest
    context_id: int
    file: SpooledFile | None
    refusal: StoreAnswer | None
    next_check_bytes: int = DISK_CHECK_INTERVAL_BYTES
    size_bytes: int = 0


class IncomingMessages(DIMSEServiceProvider):
    """The DIMSE provider of an accepted association. Not thread-safe: the association's one thread calls it."""

    def __init__(
        self,
        association: Association,
        service: StoreService,
        maximum_object_bytes: int,
        send: Callable[[int, bytes], None],
    ) -> None:
        """Make a provider.

        Parameters
        ----------
        maximum_object_bytes
            A longer data set ends the association.
        send
            Sends the command set of a response in a presentation context.
        """
        super().__init__(association)
        self._service = service
        self._maximum_object_bytes = maximum_object_bytes
        self._send = send
        self.message: DIMSEMessage | None = None
        self._command = bytearray()
        self._arriving: _Arriving | None = None
        self._buffered_bytes = 0

    def receive_values(self, body: memoryview) -> None:
        """Take in the presentation data values of one P-DATA-TF (PS3.8 9.3.5). Raises `MessageRefused`."""
        at, end = 0, len(body)
        while at < end:
            if end - at < _value_header.size:
                raise MessageRefused("a presentation data value ends within its header")
            length, context_id, control = _value_header.unpack_from(body, at)
            if length < 2 or length > end - at - 4:
                raise MessageRefused(f"a presentation data value of {length} bytes in a PDU of {end}")
            fragment = body[at + _value_header.size : at + 4 + length]
            at += 4 + length
            if control & _COMMAND:
                self._receive_command(context_id, fragment, is_last=bool(control & _LAST))
            else:
                self._receive_data(context_id, fragment, is_last=bool(control & _LAST))

    def get_msg(self, block: bool = False) -> tuple[int | None, Any]:
        """The next message; waits for it if asked, for the answer to a request that we made."""
        if block:
            self.dul.wait_until(lambda: not self.msg_queue.empty(), self.dimse_timeout)
        return super().get_msg(block=False)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Put a message together. As pynetdicom's, but for N-EVENT-REPORT, which it serves in a second thread."""
        self.message = self.message or DIMSEMessage()
        if not self.message.decode_msg(primitive, self.assoc):
            return
        evt.trigger(self.assoc, evt.EVT_DIMSE_RECV, {"message": self.message})
        context_id, message = self.message.context_id, self.message.message_to_primitive()
        self.message = None
        if not isinstance(message, C_CANCEL):
            self.msg_queue.put((context_id, message))
        elif len(self.cancel_req) < MAXIMUM_CANCELS:
            self.cancel_req[message.MessageIDBeingRespondedTo] = message

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message, unless the association has ended meanwhile."""
        if self.assoc.is_established:
            super().send_msg(primitive, context_id)

    @property
    def is_amid_message(self) -> bool:
        """Whether a part of a message is here and the rest is not."""
        return bool(self._command) or self._arriving is not None or self.message is not None

    def discard(self) -> None:
        """Forget what has not arrived whole: the association has ended."""
        if self._arriving is not None and self._arriving.file is not None:
            self._arriving.file.discard()
        self._arriving = None

    def _receive_command(self, context_id: int, fragment: memoryview, *, is_last: bool) -> None:
        if self._arriving is not None or self.message is not None:
            raise MessageRefused("a command in the middle of a data set")
        if len(self._command) + len(fragment) > MAXIMUM_COMMAND_BYTES:
            raise MessageRefused(f"a command set larger than {MAXIMUM_COMMAND_BYTES} bytes")
        self._command += fragment
        if not is_last:
            return
        command = bytes(self._command)
        self._command.clear()
        try:
            elements = elements_of(command)
            if command_field(elements) == C_STORE_RQ:
                self._begin_store(context_id, store_request(elements))
                return
        except MalformedCommand as error:
            raise MessageRefused(str(error)) from error
        self._buffered_bytes = 0
        self._hand_over(context_id, command, _COMMAND | _LAST)

    def _receive_data(self, context_id: int, fragment: memoryview, *, is_last: bool) -> None:
        if self._arriving is not None:
            if context_id != self._arriving.context_id:
                raise MessageRefused("a data set in another presentation context than its command")
            self._append(self._arriving, fragment)
            if is_last:
                self._finish_store(self._arriving)
            return
        if self.message is None:
            raise MessageRefused("a data set without a command")
        self._buffered_bytes += len(fragment)
        if self._buffered_bytes > MAXIMUM_BUFFERED_MESSAGE_BYTES:
            raise MessageRefused(f"a message larger than {MAXIMUM_BUFFERED_MESSAGE_BYTES} bytes")
        self._hand_over(context_id, bytes(fragment), _LAST if is_last else 0)

    def _hand_over(self, context_id: int, fragment: bytes, control: int) -> None:
        """Give one data value to pynetdicom, which puts the message together."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append([context_id, bytes((control,)) + fragment])
        try:
            self.receive_primitive(primitive)
        except UNDECODABLE as error:
            raise MessageRefused(f"message cannot be decoded: {type(error).__name__}: {error}") from error

    def _begin_store(self, context_id: int, request: StoreRequest) -> None:
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise MessageRefused(f"a C-STORE request in presentation context {context_id}, which was not accepted")
        refusal = self._service.refusal(self.assoc)
        file = None
        if refusal is None:
            try:
                file = self._service.open(self.assoc, request, str(context.transfer_syntax[0]))
            except OSError as error:
                refusal = self._full(error)
        self._arriving = _Arriving(request, context_id, file, refusal)

    def _append(self, arriving: _Arriving, fragment: memoryview) -> None:
        arriving.size_bytes += len(fragment)
        if arriving.size_bytes > self._maximum_object_bytes:
            raise MessageRefused(f"a data set larger than {self._maximum_object_bytes} bytes")
        if arriving.file is None:
            return
        try:
            arriving.file.write(fragment)
        except OSError as error:
            self._give_up(arriving, self._full(error))
            return
        if arriving.size_bytes >= arriving.next_check_bytes:
            arriving.next_check_bytes = arriving.size_bytes + DISK_CHECK_INTERVAL_BYTES
            refusal = self._service.refusal(self.assoc, now=True)
            if refusal is not None:
                self._give_up(arriving, refusal)

    def _give_up(self, arriving: _Arriving, refusal: StoreAnswer) -> None:
        """Store no more of it; the rest is read and dropped, so that its sender gets an answer and not an abort."""
        if arriving.file is not None:
            arriving.file.discard()
        arriving.file, arriving.refusal = None, refusal

    def _full(self, error: OSError) -> StoreAnswer:
        _log.error("spool-cannot-be-written", error=str(error.strerror or error))
        return StoreAnswer(0xA700, "the spool cannot be written")

    def _finish_store(self, arriving: _Arriving) -> None:
        self._arriving = None
        if arriving.file is None:
            answer = arriving.refusal or StoreAnswer(0x0110)
        else:
            with arriving.file:
                arriving.file.close()
                answer = self._service.store(self.assoc, arriving.request, arriving.file)
        if answer.status in telemetry.REFUSAL_STATUSES:
            telemetry.instance_refused(self.assoc.requestor.ae_title, answer.status)
        self._send(arriving.context_id, store_response(arriving.request, answer.status, answer.comment))
