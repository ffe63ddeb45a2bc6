"""Scripted bytes on the DICOM port: what is not DICOM is dropped, what is too large refused, nothing stays behind."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from node.dimse.association import AssociationLimits
from node.dimse.messages import MAXIMUM_BUFFERED_MESSAGE_BYTES
from tests.fixtures.instances import sized_mr_bytes
from tests.fixtures.raw_dimse import (
    A_ABORT,
    P_DATA_TF,
    AssociationEnded,
    RawAssociation,
    associate_request,
    data_value,
    encode_command,
    pdu,
    store_command,
)
from tests.fixtures.receiver_process import NodeFolder, RunningReceiver, running_receiver

TIMEOUT_S = 2.0
CONTEXTS = [(MRImageStorage, ExplicitVRLittleEndian)]
LIMITS = AssociationLimits(
    maximum_associations=3, acse_timeout_s=TIMEOUT_S, network_timeout_s=TIMEOUT_S, maximum_object_bytes=4 << 20
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> NodeFolder:
    return NodeFolder.create(tmp_path_factory.mktemp("hostile") / "node")


@pytest.fixture(scope="module")
def one_receiver(node: NodeFolder) -> Iterator[RunningReceiver]:
    with running_receiver(node, limits=LIMITS) as running:
        yield running
        assert running.terminate() == 0
        assert all(association.released_at for association in node.associations())


@pytest.fixture
def receiver(one_receiver: RunningReceiver, node: NodeFolder) -> Iterator[RunningReceiver]:
    """The receiver, which after whatever a test did still takes a good instance and has nothing left in its spool."""
    one_receiver.reset_peak()
    said_before = len(one_receiver.log())
    yield one_receiver
    assert one_receiver.process.poll() is None, one_receiver.log()
    eventually(lambda: store_good(one_receiver.port) == 0x0000)
    eventually(lambda: not node.spooled())
    assert "Traceback" not in one_receiver.log()[said_before:]


def store_good(port: int) -> int | None:
    """Send a good instance; its status, None if the association was refused."""
    uid = generate_uid()
    try:
        with RawAssociation(port, CONTEXTS) as association:
            status = association.store(MRImageStorage, uid, sized_mr_bytes(uid)).Status
            association.release()
            return int(status)
    except AssociationEnded:
        return None


def eventually(condition: object, timeout_s: float = 10) -> None:
    """Wait until ``condition()`` holds."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)


def seconds_until_closed(connection: socket.socket) -> float:
    """How long the receiver keeps a connection open."""
    start = time.monotonic()
    connection.settimeout(20)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - start


NOT_DICOM = {
    "http": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
    "huge length": struct.pack(">BBL", 0x01, 0, 0xFFFFFFFF),
    "2 MiB length": struct.pack(">BBL", 0x04, 0, 2 << 20),
}


@pytest.mark.parametrize("greeting", NOT_DICOM.values(), ids=NOT_DICOM.keys())
def test_what_is_not_dicom_is_closed_at_once(receiver: RunningReceiver, greeting: bytes) -> None:
    before = receiver.rss_mib()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(greeting)
        assert seconds_until_closed(connection) < TIMEOUT_S / 2
    assert receiver.rss_mib(peak=True) - before < 16
    assert "connection-dropped" in receiver.log()


def test_port_scans_take_no_association_slots(receiver: RunningReceiver) -> None:
    """Connections that ask for nothing do not keep scanners out, nor stay once closed."""
    for _ in range(20):
        socket.create_connection(("127.0.0.1", receiver.port)).close()
    eventually(lambda: store_good(receiver.port) == 0x0000, TIMEOUT_S / 2)


def test_a_silent_connection_is_closed_at_the_timeout(receiver: RunningReceiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        assert TIMEOUT_S / 2 < seconds_until_closed(connection) < 8 * TIMEOUT_S


@pytest.mark.parametrize("pause_s", [0.1, 60], ids=["drip", "stall"])
def test_a_slow_association_request_is_closed_at_the_timeout(receiver: RunningReceiver, pause_s: float) -> None:
    """One byte at a time, or a few and then none: the deadline is for the whole PDU."""
    request = iter(associate_request(CONTEXTS))
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        start = time.monotonic()
        connection.sendall(bytes([next(request), next(request)]))
        connection.settimeout(min(pause_s, 20))
        closed = False
        while not closed and time.monotonic() - start < 20:
            try:
                closed = not connection.recv(1)
            except TimeoutError:
                connection.sendall(bytes([next(request)]))
            except ConnectionError:
                closed = True
        assert closed
        assert TIMEOUT_S / 2 < time.monotonic() - start < 8 * TIMEOUT_S


def test_one_association_more_than_allowed_is_rejected_for_now(receiver: RunningReceiver) -> None:
    opened = [RawAssociation(receiver.port, CONTEXTS) for _ in range(LIMITS.maximum_associations)]
    with pytest.raises(AssociationEnded) as rejection:
        RawAssociation(receiver.port, CONTEXTS)
    # Rejected transient, by the presentation related provider function, local limit exceeded (PS3.8 table 9-21).
    assert "PDU type 3" in str(rejection.value)
    assert repr(bytes([0, 2, 3, 2])) in str(rejection.value)
    for association in opened:
        association.connection.close()


def test_an_abort_in_mid_transfer_leaves_nothing(receiver: RunningReceiver, node: NodeFolder) -> None:
    uid = generate_uid()
    association = RawAssociation(receiver.port, CONTEXTS)
    association.begin_store(MRImageStorage, uid)
    association.send(data_value(1, sized_mr_bytes(uid)[:2000], command=False, last=False))
    eventually(node.spooled)
    association.abort()
    eventually(lambda: not node.spooled())
    eventually(lambda: all(row.released_at for row in node.associations()))
    assert uid not in node.instances()


def test_a_connection_lost_in_mid_transfer_leaves_nothing(receiver: RunningReceiver, node: NodeFolder) -> None:
    uid = generate_uid()
    with RawAssociation(receiver.port, CONTEXTS) as association:
        association.begin_store(MRImageStorage, uid)
        association.send(data_value(1, sized_mr_bytes(uid)[:2000], command=False, last=False))
        eventually(node.spooled)
    eventually(lambda: not node.spooled())
    assert uid not in node.instances()


def test_a_transfer_that_stalls_is_aborted_at_the_timeout(receiver: RunningReceiver, node: NodeFolder) -> None:
    uid = generate_uid()
    with RawAssociation(receiver.port, CONTEXTS) as association:
        association.begin_store(MRImageStorage, uid)
        association.send(data_value(1, sized_mr_bytes(uid)[:2000], command=False, last=False))
        assert seconds_until_closed(association.connection) < 8 * TIMEOUT_S
    eventually(lambda: not node.spooled())


def test_an_idle_association_is_held_open_until_its_own_timeout(tmp_path: Path) -> None:
    """Between messages a scanner may be silent far longer than in the middle of one."""
    limits = replace(LIMITS, network_timeout_s=0.5, idle_timeout_s=3)
    with (
        running_receiver(NodeFolder.create(tmp_path / "node"), limits=limits) as receiver,
        RawAssociation(receiver.port, CONTEXTS) as association,
    ):
        time.sleep(1.5)
        uid = generate_uid()
        assert association.store(MRImageStorage, uid, sized_mr_bytes(uid)).Status == 0x0000
        assert 2 < seconds_until_closed(association.connection) < 6
        assert "association-silent" in receiver.log()


def test_a_pdu_that_stops_within_its_header_is_dropped_and_not_read_on(receiver: RunningReceiver) -> None:
    """What follows after the timeout must not be taken for the beginning of another PDU."""
    with RawAssociation(receiver.port, CONTEXTS) as association:
        association.send(pdu(P_DATA_TF, bytes(6))[:3])
        assert TIMEOUT_S / 2 < seconds_until_closed(association.connection) < 4 * TIMEOUT_S
    assert "PDU not complete" in receiver.log()


def test_a_data_set_larger_than_allowed_ends_the_association(receiver: RunningReceiver, node: NodeFolder) -> None:
    with RawAssociation(receiver.port, CONTEXTS) as association:
        association.begin_store(MRImageStorage, generate_uid())
        with pytest.raises(AssociationEnded):
            flood(association, data_value(1, bytes(64 << 10), command=False, last=False), 64 << 20)
    assert "data set larger than" in receiver.log()
    eventually(lambda: not node.spooled())


@pytest.mark.parametrize("command", [True, False], ids=["endless command", "data without a command"])
def test_what_is_buffered_in_memory_is_bounded(receiver: RunningReceiver, command: bool) -> None:
    before = receiver.rss_mib()
    with RawAssociation(receiver.port, CONTEXTS) as association, pytest.raises(AssociationEnded):
        flood(association, data_value(1, os.urandom(64 << 10), command=command, last=False), 256 << 20)
    assert receiver.rss_mib(peak=True) - before < 16 + 2 * (MAXIMUM_BUFFERED_MESSAGE_BYTES >> 20)


def flood(association: RawAssociation, unit: bytes, limit: int) -> None:
    """Send ``unit`` again and again until the receiver hangs up, and say so if it never does."""
    for _ in range(limit // len(unit)):
        association.send(unit)
    association.read_pdu()
    kind, _ = association.read_pdu()
    raise AssertionError(f"took {limit} bytes and answered with PDU type {kind}")


def test_requests_without_waiting_for_answers_wait_at_their_sender(receiver: RunningReceiver, node: NodeFolder) -> None:
    """A thousand pipelined requests: one is in our hands at a time, the others wait in the connection; all are served
    in order, and memory does not grow."""
    uids = [generate_uid() for _ in range(1000)]
    requests = b"".join(
        data_value(1, store_command(MRImageStorage, uid), command=True, last=True)
        + data_value(1, sized_mr_bytes(uid), command=False, last=True)
        for uid in uids
    )
    before = receiver.rss_mib()
    with RawAssociation(receiver.port, CONTEXTS) as association:
        sender = threading.Thread(target=association.send, args=(requests,))
        sender.start()
        acknowledged, spooled = [], 0
        for _ in uids:
            acknowledged.append(association.read_response().AffectedSOPInstanceUID)
            spooled = max(spooled, len(node.spooled()))
        sender.join()
        association.release()
    assert acknowledged == uids
    assert spooled <= 1
    assert receiver.rss_mib(peak=True) - before < 16
    assert set(uids) <= set(node.instances())


UNKNOWN_COMMAND = Dataset()
UNKNOWN_COMMAND.CommandField = 0x7777
UNKNOWN_COMMAND.MessageID = 1
UNKNOWN_COMMAND.CommandDataSetType = 0x0101

MALFORMED_MESSAGES = {
    "command that is no data set": data_value(1, os.urandom(50), command=True, last=True),
    "empty command": data_value(1, b"", command=True, last=True),
    "unknown command": data_value(
        1, store_command("1.2", "1.3").replace(b"\x01\x00", b"\x77\x77"), command=True, last=True
    ),
    "context never negotiated": data_value(77, store_command(MRImageStorage, "1.2.3"), command=True, last=True),
    "presentation data value longer than its PDU": pdu(P_DATA_TF, struct.pack(">LBB", 1 << 30, 1, 3) + b"abc"),
    "presentation data value of length 0": pdu(P_DATA_TF, struct.pack(">L", 0)),
    "second association request": associate_request(CONTEXTS),
    "request without UIDs": data_value(1, encode_command(Dataset()), command=True, last=True),
}


@pytest.mark.parametrize("message", MALFORMED_MESSAGES.values(), ids=MALFORMED_MESSAGES.keys())
def test_a_malformed_message_ends_its_association_only(receiver: RunningReceiver, message: bytes) -> None:
    with RawAssociation(receiver.port, CONTEXTS) as neighbour, RawAssociation(receiver.port, CONTEXTS) as association:
        association.send(message)
        assert seconds_until_closed(association.connection) < 8 * TIMEOUT_S
        uid = generate_uid()
        assert neighbour.store(MRImageStorage, uid, sized_mr_bytes(uid)).Status == 0x0000
        neighbour.release()


def test_abort_before_anything_else(receiver: RunningReceiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(pdu(A_ABORT, bytes(4)))
        assert seconds_until_closed(connection) < TIMEOUT_S / 2
