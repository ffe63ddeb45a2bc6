"""The TLS layer under an accepted association (PS3.15 B.12): the handshake with its deadline, and who the peer proved
to be."""

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pynetdicom.association import Association

from node import audit
from node.settings import ConfigurationError, TlsSettings
from node.tls import certificate_states, handshake_fault, server_context

_log = structlog.get_logger(__name__)

FILE_CHECK_S: Final = 10.0
"""A certificate or revocation list that was replaced is in use this much later."""
EXPIRY_CHECK_S: Final = 86_400.0

_NAME_TYPES: Final = frozenset({"DNS", "IP Address", "email", "URI"})


class ServerTls:
    """The TLS port's side of handshakes. Its files are read anew when they change: revocation lists live for days.

    Raises `ConfigurationError` when the files cannot be used at the start; later ones that cannot be used are reported
    and audited, and the former ones stay in use.
    """

    def __init__(self, tls: TlsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._tls = tls
        self._clock = clock
        self._lock = threading.Lock()
        self._stamps = self._look_at_files()
        self._context = server_context(tls)
        self._files_checked_at = self._expiry_checked_at = clock()
        self._warn_of_expiry()

    def context(self) -> ssl.SSLContext:
        """Return the context for the next handshake."""
        with self._lock:
            now = self._clock()
            if now - self._files_checked_at >= FILE_CHECK_S:
                self._files_checked_at = now
                self._reload_if_changed()
            if now - self._expiry_checked_at >= EXPIRY_CHECK_S:
                self._expiry_checked_at = now
                self._warn_of_expiry()
            return self._context

    def accept(self, connection: socket.socket, peer_address: str) -> ssl.SSLSocket | None:
        """Do the handshake within the settings' time; call it in the connection's own thread.

        Returns None when it fails: the connection is closed then, and the failure logged and audited.
        """
        connection.settimeout(self._tls.handshake_timeout_s)
        try:
            return self.context().wrap_socket(connection, server_side=True)
        except OSError as error:  # SSLError and TimeoutError are such
            reason = handshake_fault(error)
            _log.warning("tls-refused", peer_address=peer_address, reason=reason)
            if isinstance(error, ssl.SSLError):
                audit.trail().node_refused(audit.RemoteNode(peer_address), f"TLS port: {reason}")
            connection.close()
            return None

    def _reload_if_changed(self) -> None:
        stamps = self._look_at_files()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        what = "certificate files of the TLS port"
        try:
            self._context = server_context(self._tls)
        except ConfigurationError as error:
            _log.error("tls-files-refused", reason=str(error), in_use="those before")
            audit.trail().settings_reloaded(what, str(error))
        else:
            _log.info("tls-files-reloaded")
            audit.trail().settings_reloaded(what)
            self._warn_of_expiry()

    def _look_at_files(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells a replaced file from the one before; None for one that is not there."""
        tls = self._tls
        paths = [path for path in (tls.certificate, tls.key, tls.ca, tls.crl) if path is not None]
        found = [path.stat() if path.exists() else None for path in paths]
        return tuple((f.st_mtime_ns, f.st_size, f.st_ino) if f else None for f in found)

    def _warn_of_expiry(self) -> None:
        try:
            states = certificate_states(self._tls)
        except ConfigurationError as error:
            _log.error("tls-files-refused", reason=str(error), in_use="those before")
            return
        for state in states:
            fault = state.fault(self._tls.expiry_warning_days)
            if fault:
                _log.warning("tls-certificate-expiry", reason=fault)


@dataclass(frozen=True)
class PeerCertificate:
    """The certificate a peer proved to hold: SHA-256 of its DER bytes, common name and subject alternative names."""

    sha256: str
    names: frozenset[str]


def is_tls(association: Association) -> bool:
    """Tell whether an association runs over TLS."""
    return isinstance(_socket_of(association), ssl.SSLSocket)


def peer_certificate(association: Association) -> PeerCertificate | None:
    """Return the verified certificate of the other side; None without TLS, or where it sent none."""
    connection = _socket_of(association)
    if not isinstance(connection, ssl.SSLSocket):
        return None
    encoded = connection.getpeercert(binary_form=True)
    if not encoded:
        return None
    return PeerCertificate(hashlib.sha256(encoded).hexdigest(), _names(connection.getpeercert() or {}))


def _socket_of(association: Association) -> Any:
    transport = association.dul.socket
    return None if transport is None else transport.socket


def _names(certificate: dict[str, Any]) -> frozenset[str]:
    """The names in a certificate, as `ssl.SSLSocket.getpeercert` decodes it."""
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    common = {value for key, value in subject if key == "commonName"}
    return frozenset(common | {value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAME_TYPES})
