"""An association over TLS is ended like any other: what is said last is said over TLS."""

import socket
import ssl
import struct
import threading
import time
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from structlog.testing import capture_logs

from node.dimse.server import Receiver, ReceiverOptions
from node.settings import TlsSettings
from node.tls import client_context
from storage.objects import ObjectStore
from tests.fixtures.certificates import Authority
from tests.fixtures.dcmtk import free_port
from tests.fixtures.raw_dimse import A_ABORT, A_ASSOCIATE_AC, associate_request
from tests.fixtures.receiver_process import NodeFolder


def read_pdu(connection: ssl.SSLSocket) -> int:
    """Read one PDU; its type, 0 at the end of the connection."""
    header = connection.recv(6)
    if len(header) < 6:
        return 0
    kind, _, length = struct.unpack(">BBL", header)
    while length:
        length -= len(connection.recv(length))
    return int(kind)


def test_a_draining_receiver_aborts_over_tls_and_leaves_nothing_open(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    identity = authority.issue("node.hospital.test", "127.0.0.1")
    tls = TlsSettings(certificate=identity.certificate, key=identity.key, ca=authority.certificate, port=free_port())  # type: ignore[call-arg]
    node = NodeFolder.create(tmp_path / "node")
    database = node.database()
    options = ReceiverOptions(port=0, tls=tls, drain_grace_s=0.2)
    receiver = Receiver(options, database, ObjectStore(tmp_path / "objects"), tmp_path / "spool")
    with capture_logs():
        receiver.start()
        with (
            socket.create_connection(("127.0.0.1", tls.port), timeout=20) as plain,
            client_context(tls).wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(associate_request([(MRImageStorage, ExplicitVRLittleEndian)]))
            assert read_pdu(connection) == A_ASSOCIATE_AC
            stopping = threading.Thread(target=receiver.stop)
            began = time.monotonic()
            stopping.start()
            assert read_pdu(connection) == A_ABORT
            assert read_pdu(connection) == 0
            stopping.join(timeout=20)
            assert time.monotonic() - began < 10
    database.dispose()
    assert [bool(association.released_at) for association in node.associations()] == [True]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", tls.port)) != 0
