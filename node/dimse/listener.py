"""The TCP listener of the receiver: its socket options, one guarded association per connection, and their end."""

import errno
import socket
import threading
from collections.abc import Sequence
from functools import partial
from socketserver import BaseServer
from typing import Any, Self

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node import telemetry
from node.dimse.association import AssociationLimits, AssociationRegister
from node.dimse.messages import IncomingMessages, StoreService
from node.dimse.tls import ServerTls
from node.dimse.upper_layer import UpperLayerLimits, WaitingUpperLayer

_log = structlog.get_logger(__name__)

CONNECTIONS_PER_ASSOCIATION = 2
"""Connections accepted per association allowed: room to answer those turned away, and a bound on threads."""


class PortUnavailable(Exception):
    """The listener cannot bind its port, or has lost it; the message says why and what to change."""


class SharedContexts(list[PresentationContext]):
    """Supported contexts that all associations read. pynetdicom copies the list deeply for each: 30 ms (measured)."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class GuardedRequestHandler(RequestHandler):
    """Serves one connection from its first byte until its association has ended, however it ends, in one thread."""

    server: "Listener"
    request: socket.socket

    def handle(self) -> None:
        """Run the association, then clean up after it."""
        if self.server.tls is not None:
            secured = self.server.tls.accept(self.request, self.client_address[0])
            if secured is None:
                telemetry.connection_refused("tls")
                return
            self.request = secured
        association = self._create_association()
        self.server.associations.add(association)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        try:
            association.run()
        finally:
            association.dimse.discard()
            self.server.associations.discard(association)
            self.server.register.ended(association)
            self.request.close()  # with TLS it is a socket of its own, which the server does not know

    def _create_association(self) -> Association:
        association = super()._create_association()
        limits = self.server.limits
        upper_layer = WaitingUpperLayer(
            association,
            self.request,
            UpperLayerLimits(
                maximum_associate_bytes=limits.maximum_announced_pdu_bytes,
                maximum_pdu_bytes=limits.maximum_pdu_bytes,
                silence_s=min(limits.acse_timeout_s, limits.network_timeout_s),
                idle_s=limits.idle_timeout_s,
            ),
            partial(self.server.register.count_bytes, association),
        )
        # They set the timers of the upper layer as well.
        association.acse_timeout, association.network_timeout = limits.acse_timeout_s, limits.network_timeout_s
        messages = IncomingMessages(
            association, self.server.storage, limits.maximum_object_bytes, upper_layer.send_command
        )
        association.dimse = messages
        association._run_reactor = lambda: upper_layer.serve(messages)
        return association


class Listener(ThreadedAssociationServer):
    """A listening socket and the associations it accepted.

    Raises `PortUnavailable` when the port cannot be bound. With ``reuse_port`` several processes share the port and
    the kernel spreads connections over them (SO_REUSEPORT); without it the port is ours alone. With ``tls`` nothing
    is read before the handshake, which each connection does in its own thread.
    """

    request_queue_size = 128
    # A thread that serves an association never holds up the end of the process; `Receiver.stop` waits for them.
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        contexts: Sequence[PresentationContext],
        handlers: Sequence[Any],
        register: AssociationRegister,
        limits: AssociationLimits,
        storage: StoreService,
        reuse_port: bool,
        tls: ServerTls | None = None,
    ) -> None:
        self.tls = tls
        self.register = register
        self.limits = limits
        self.storage = storage
        self.associations: set[Association] = set()
        self._reuse_port = reuse_port
        self._connections = threading.BoundedSemaphore(limits.maximum_associations * CONNECTIONS_PER_ASSOCIATION)
        try:
            super().__init__(
                ae,
                address,
                ae.ae_title,
                SharedContexts(contexts),
                evt_handlers=list(handlers),
                request_handler=GuardedRequestHandler,
            )
        except OSError as error:
            raise PortUnavailable(_bind_fault(address, error)) from error

    def server_bind(self) -> None:
        """Bind the socket, shared or exclusively."""
        if self._reuse_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Accept the connection unless too many are open; the refused one is closed at once."""
        if self._connections.acquire(blocking=False):
            return True
        telemetry.connection_refused("limit")
        _log.warning("connection-refused", peer_address=client_address[0], reason="too many connections")
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.shutdown_request(request)
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what an association's thread did not expect; it has ended, the others go on."""
        _log.exception("association-failed", peer_address=client_address[0])

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; open associations go on."""
        BaseServer.shutdown(self)
        self.server_close()


def _bind_fault(address: tuple[str, int], error: OSError) -> str:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        return f"DICOM port {port} on {host} is in use by another program: stop it, or change [dicom] port"
    if error.errno == errno.EACCES:
        return f"DICOM port {port} on {host} needs privileges: take a port above 1023 in [dicom] port"
    return f"cannot listen on {host}, DICOM port {port}: {error.strerror or error}"
