"""The TLS layer under an accepted association (PS3.15 B.12): the handshake with its deadline, and who the peer proved
to be."""

import hashlib
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pynetdicom.association import Association

from node import audit
from node.tls import handshake_fault

_log = structlog.get_logger(__name__)

_NAME_TYPES: Final = frozenset({"DNS", "IP Address", "email", "URI"})


@dataclass(frozen=True)
class PeerCertificate:
    """The certificate a peer proved to hold: SHA-256 of its DER bytes, common name and subject alternative names."""

    sha256: str
    names: frozenset[str]


def accept_tls(
    connection: socket.socket, context: ssl.SSLContext, peer_address: str, timeout_s: float
) -> ssl.SSLSocket | None:
    """Do the server's side of the handshake within ``timeout_s``; call it in the connection's own thread.

    Returns None when it fails: the connection is closed then, and the failure logged and audited.
    """
    connection.settimeout(timeout_s)
    try:
        return context.wrap_socket(connection, server_side=True)
    except OSError as error:  # SSLError and TimeoutError are such
        reason = handshake_fault(error)
        _log.warning("tls-refused", peer_address=peer_address, reason=reason)
        if isinstance(error, ssl.SSLError):
            audit.trail().node_refused(audit.RemoteNode(peer_address), f"TLS port: {reason}")
        connection.close()
        return None


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
