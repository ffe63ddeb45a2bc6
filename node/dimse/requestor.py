"""Requesting an association as a service user (PS3.7 D, PS3.8 7.1), and saying plainly why there is none."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from node.dimse.pynetdicom_options import application_entity
from node.settings import ConfigurationError, Destination
from node.tls import client_context, handshake_fault

MAXIMUM_PDU_BYTES: Final = 128 << 10
TIMEOUT_S: Final = 60.0
"""For the connection, the association, each response, and silence: a C-STORE of a large object is answered late."""
_PARKING_S: Final = 5.0
_SERVING_S: Final = 0.1


class DestinationUnavailable(Exception):
    """The destination did not let us in; the message says how it failed and what to check."""


class NothingAccepted(DestinationUnavailable):
    """The destination let us in and accepted none of the presentation contexts."""


class _ParkingCheckpoint(threading.Event):
    """Keeps pynetdicom's reactor thread parked while a service user has the association.

    pynetdicom asks its thread to pause for each request, but one that has just passed the checkpoint may go on and
    take the response for itself: seen on a busy machine, where an object stored was reported as unanswered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parked = threading.Event()
        self._gate = threading.Lock()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until let go; a thread that is parked again before it has left stays."""
        while True:
            self.parked.set()
            super().wait(timeout)
            with self._gate:
                if self.is_set():
                    self.parked.clear()
                    return True
            if timeout is not None:
                return False

    def set(self) -> None:
        """Do nothing: pynetdicom lets its thread go after each request."""

    def let_go(self) -> None:
        """Let the thread go, which then sees that the association has ended."""
        super().set()

    def park(self) -> bool:
        """Have the thread wait again; False where it is busy for too long."""
        with self._gate:
            self.clear()
        return self.parked.wait(_PARKING_S)


@contextmanager
def association_with(
    destination: Destination,
    contexts: list[PresentationContext],
    calling_ae_title: str,
    timeout_s: float = TIMEOUT_S,
    *,
    extended_negotiation: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """An established association, released at the end; abort it inside the block if it is lost.

    ``extended_negotiation`` proposes roles. ``handlers`` are pynetdicom's (event, function) pairs for requests of the
    other side; they are served by `serve_requests`.

    Raises
    ------
    DestinationUnavailable
        It cannot be reached, or rejected the association.
    NothingAccepted
        It accepts none of ``contexts``.
    """
    association = _associate(destination, contexts, calling_ae_title, timeout_s, extended_negotiation, handlers)
    checkpoint = _ParkingCheckpoint()
    association._reactor_checkpoint = checkpoint
    checkpoint.park()
    try:
        yield association
    finally:
        if association.is_established:
            _release(association, checkpoint)
        checkpoint.let_go()


def _release(association: Association, checkpoint: _ParkingCheckpoint) -> None:
    """Release the association; abort it where its thread is still serving a request."""
    if not checkpoint.park():
        association.abort()
        return
    # pynetdicom spins until this flag of its thread is up, for ever if it misses that: seen on a busy machine.
    association._is_paused = True
    association.release()


def serve_requests(association: Association, until: threading.Event, timeout_s: float) -> bool:
    """Let the other side of an association ask us for something, until ``until`` is set; False after the timeout.

    Nothing can be asked of the other side afterwards.
    """
    association._reactor_checkpoint.let_go()
    deadline = time.monotonic() + timeout_s
    while association.is_established and time.monotonic() < deadline:
        if until.wait(_SERVING_S):
            return True
    return until.is_set()


def _associate(
    destination: Destination,
    contexts: list[PresentationContext],
    calling_ae_title: str,
    timeout_s: float,
    extended_negotiation: Sequence[SCP_SCU_RoleSelectionNegotiation],
    handlers: Sequence[Any],
) -> Association:
    """Return an established association, or raise `DestinationUnavailable`."""
    context = _tls_context(destination)
    ae = application_entity(calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    connected: list[Association] = []

    def on_connected(event: Event) -> None:
        # Without it Nagle's algorithm holds back the end of each object until the peer's delayed acknowledgement.
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.append(event.assoc)

    association = ae.associate(
        _resolve(destination),
        destination.port,
        contexts,
        destination.ae_title,
        MAXIMUM_PDU_BYTES,
        ext_neg=list(extended_negotiation),
        evt_handlers=[(evt.EVT_CONN_OPEN, on_connected), *handlers],
        tls_args=(context, _server_name(destination)) if context else None,
    )
    if association.is_established:
        return association
    if not connected:
        raise DestinationUnavailable(
            f"cannot connect to {destination.label}: {_connection_fault(destination, context)}"
        )
    if association.is_rejected:
        answer = association.acceptor.primitive
        raise DestinationUnavailable(
            f"{destination.label} rejected the association ({answer.result_str}): {answer.reason_str}; "
            f"we call as {calling_ae_title!r}"
        )
    if association.rejected_contexts:
        services = sorted({str(context.abstract_syntax.name) for context in contexts})
        raise NothingAccepted(f"{destination.label} does not offer the {', '.join(services)} service")
    # With TLS 1.3 a server judges our certificate only after the handshake has ended for us.
    hint = "; it may not accept our certificate" if context else ""
    raise DestinationUnavailable(
        f"{destination.label} closed the connection or did not answer the association request{hint}"
    )


def _resolve(destination: Destination) -> str:
    """The IP address of the destination; pynetdicom tells addresses apart by their dots and takes no plain names."""
    try:
        entries = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DestinationUnavailable(f"{destination.label}: the host name cannot be resolved ({error})") from error
    return str(entries[0][4][0])


def _tls_context(destination: Destination) -> ssl.SSLContext | None:
    """The context to call the destination with, None where it is called without TLS."""
    if not destination.tls:
        return None
    if destination.credentials is None:
        raise DestinationUnavailable(f"{destination.label} is called by TLS: set up [tls] first")
    try:
        return client_context(destination.credentials)
    except ConfigurationError as error:
        raise DestinationUnavailable(f"{destination.label} cannot be called by TLS: {error}") from error


def _server_name(destination: Destination) -> str:
    return destination.tls_server_name or destination.host


def _connection_fault(destination: Destination, context: ssl.SSLContext | None) -> str:
    """Name the reason of a failed connection, which pynetdicom keeps to itself, by connecting once more."""
    try:
        connection = socket.create_connection((destination.host, destination.port), timeout=5)
    except OSError as error:
        return str(error.strerror or error)
    with connection:
        if context is not None:
            try:
                context.wrap_socket(connection, server_hostname=_server_name(destination)).close()
            except OSError as error:
                return handshake_fault(error)
    return "the first attempt failed"
