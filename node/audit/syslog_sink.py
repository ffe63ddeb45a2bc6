"""Audit messages to a syslog receiver, an audit record repository (PS3.15 A.6): RFC 5424 messages over UDP (RFC 5426),
TCP (RFC 6587 octet counting) or TLS (RFC 5425)."""

import os
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC
from typing import Final

from node.audit.message import AuditMessage
from node.settings import SyslogTransport

PRIORITY: Final = 10 * 8 + 5
"""Facility 10 (security), severity 5 (normal but significant)."""
MESSAGE_ID: Final = "DICOM+RFC3881"
APPLICATION_NAME: Final = "pacsgate"
TIMEOUT_S: Final = 10.0
_BOM: Final = b"\xef\xbb\xbf"


class SyslogSink:
    """Sends each message to ``host``:``port``. ``context`` verifies the receiver of a TLS connection."""

    name = "syslog"

    def __init__(self, transport: SyslogTransport, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._transport = transport
        self._host = host
        self._port = port
        self._context = context
        self._socket: socket.socket | None = None

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Send the messages. Raises OSError; UDP gives no sign of most losses (RFC 5426 4.1)."""
        try:
            connection = self._connection()
            for message in messages:
                frame = syslog_message(message)
                if self._transport is SyslogTransport.UDP:
                    connection.send(frame)
                else:
                    connection.sendall(b"%d %b" % (len(frame), frame))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connection(self) -> socket.socket:
        if self._socket is not None and _is_closed_by_receiver(self._socket):
            self.close()
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> socket.socket:
        if self._transport is SyslogTransport.UDP:
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            datagrams = socket.socket(family, kind, protocol)
            datagrams.connect(address)
            return datagrams
        connection = socket.create_connection((self._host, self._port), timeout=TIMEOUT_S)
        if self._context is None:
            return connection
        try:
            return self._context.wrap_socket(connection, server_hostname=self._host)
        except OSError:
            connection.close()
            raise


def syslog_message(message: AuditMessage) -> bytes:
    """The message in the frame of RFC 5424: header without structured data, then the XML in UTF-8."""
    at = message.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    host = "".join(c for c in socket.gethostname() if "!" <= c <= "~")[:255] or "-"
    header = f"<{PRIORITY}>1 {at} {host} {APPLICATION_NAME} {os.getpid()} {MESSAGE_ID} - "
    return header.encode("ascii") + _BOM + message.xml


def _is_closed_by_receiver(connection: socket.socket) -> bool:
    """Tell whether the receiver has gone. The first write to a closed connection would vanish without an error."""
    if connection.type == socket.SOCK_DGRAM:
        return False
    connection.settimeout(0)
    try:
        return not connection.recv(1024)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(TIMEOUT_S)
