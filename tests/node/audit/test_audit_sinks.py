"""Sinks: durable files, syslog frames, and a queue that never holds up the node and says what it lost."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node import audit
from node.audit import Action, AuditTrail, RemoteNode, Transfer, TransferCounter
from node.audit.file_sink import FileSink
from node.audit.limiter import MAXIMUM_KEYS, WINDOW_S, AlertLimiter
from node.audit.message import AuditMessage
from node.audit.syslog_sink import SyslogSink, syslog_message
from node.audit.transfers import MAXIMUM_COUNTS
from node.settings import ConfigurationError, SyslogTransport, TlsSettings, load_settings
from node.tls import client_context, server_context
from tests.fixtures.audit_messages import event_of, events_in, wait_for_event
from tests.fixtures.audit_sinks import MemorySink, trail_into
from tests.fixtures.certificates import Authority

NODE = RemoteNode("10.0.0.9", "SKYRA")


def messages(count: int) -> list[AuditMessage]:
    """Alerts that tell which they are."""
    with trail_into(alerts_per_minute=10**6) as sink:
        assert sink.trail is not None
        for number in range(count):
            sink.trail.node_refused(NODE, f"alert {number}")
        sink.xml()
        return sink.messages


@pytest.fixture(scope="module")
def some() -> list[AuditMessage]:
    return messages(40)


# Files


def test_the_file_is_ours_alone_and_only_grows(tmp_path: Path, some: list[AuditMessage]) -> None:
    folder = tmp_path / "audit"
    sink = FileSink(folder, "receiver-0", 10**6)
    former = os.umask(0)
    try:
        sink.write(some[:2])
    finally:
        os.umask(former)
    before = (folder / "receiver-0.log").read_bytes()
    sink.write(some[2:5])
    sink.close()
    assert (folder / "receiver-0.log").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "receiver-0.log").read_bytes().startswith(before)
    assert [e.description for e in events_in(folder / "receiver-0.log")] == [f"alert {n}" for n in range(5)]


def test_a_full_file_makes_room_for_the_next(tmp_path: Path, some: list[AuditMessage]) -> None:
    sink = FileSink(tmp_path, "worker-0", 5000)
    for message in some:
        sink.write([message])
    sink.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 3
    assert all(path.stat().st_size <= 5000 for path in files)
    assert files[-1].name == "worker-0.log"
    found = [event.description for path in files for event in events_in(path)]
    assert found == [f"alert {n}" for n in range(len(some))]


def test_a_file_moved_away_by_logrotate_is_begun_anew(tmp_path: Path, some: list[AuditMessage]) -> None:
    sink = FileSink(tmp_path, "web-0", 10**6)
    sink.write(some[:1])
    (tmp_path / "web-0.log").rename(tmp_path / "archived")
    sink.write(some[1:2])
    assert [e.description for e in events_in(tmp_path / "web-0.log")] == ["alert 1"]
    (tmp_path / "web-0.log").unlink()
    sink.write(some[2:3])
    sink.close()
    assert [e.description for e in events_in(tmp_path / "web-0.log")] == ["alert 2"]


def test_a_line_cut_off_by_a_crash_spoils_no_other(tmp_path: Path, some: list[AuditMessage]) -> None:
    path = tmp_path / "receiver-0.log"
    path.write_bytes(some[0].xml + b"\n" + some[1].xml[:50])
    sink = FileSink(tmp_path, "receiver-0", 10**6)
    sink.write(some[2:3])
    sink.close()
    first, cut, last = path.read_bytes().splitlines()
    assert (first, cut, last) == (some[0].xml, some[1].xml[:50], some[2].xml)


def test_a_full_disk_leaves_whole_lines(
    tmp_path: Path, some: list[AuditMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FileSink(tmp_path, "receiver-0", 10**6)
    sink.write(some[:1])
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: _write_part_then_fail(real, fd, data))
        with pytest.raises(OSError, match="No space"):
            sink.write(some[1:3])
    sink.write(some[1:3])
    sink.close()
    assert [e.description for e in events_in(tmp_path / "receiver-0.log")] == ["alert 0", "alert 1", "alert 2"]


def _write_part_then_fail(real: object, descriptor: int, data: bytes) -> int:
    if len(data) > 100:
        return real(descriptor, data[:100])  # type: ignore[operator]
    raise OSError(28, "No space left on device")


def test_a_symbolic_link_in_the_way_is_not_followed(tmp_path: Path, some: list[AuditMessage]) -> None:
    (tmp_path / "receiver-0.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        FileSink(tmp_path, "receiver-0", 10**6).write(some[:1])
    assert not (tmp_path / "elsewhere").exists()


# The queue


def test_a_stuck_sink_never_holds_up_the_node_and_the_loss_is_audited() -> None:
    with capture_logs() as logs, trail_into(queue_length=100, alerts_per_minute=10**6) as sink:
        assert sink.trail is not None
        sink.gate.clear()
        began = time.perf_counter()
        for number in range(5000):
            sink.trail.node_refused(NODE, f"alert {number}")
        assert (time.perf_counter() - began) / 5000 < 0.001
        sink.gate.set()
        time.sleep(0.05)  # the queue empties
        reports = [e for e in sink.events() if "could not be recorded" in e.description]
        lost = sink.trail.health()["memory"]["lost"]
    assert {report.types for report in reports} == {("Audit Recording Stopped",)}
    assert all(report.description.endswith("audit messages could not be recorded by sink memory") for report in reports)
    assert sum(int(report.description.split()[0]) for report in reports) == lost
    assert 4500 < lost < 5000
    assert {line["event"] for line in logs} == {"audit-messages-dropped"}
    assert len(logs) == len(reports)


def test_one_stuck_sink_does_not_hold_up_another(tmp_path: Path) -> None:
    stuck = MemorySink()
    stuck.gate.clear()
    trail = AuditTrail("p", "A", sinks=[stuck, FileSink(tmp_path, "p", 10**6)])
    trail.node_refused(NODE, "look")
    wait_for_event(tmp_path / "p.log", lambda event: event.description == "look")
    stuck.gate.set()
    trail.close()


def test_a_failing_sink_is_tried_again_and_loses_nothing() -> None:
    with capture_logs() as logs, trail_into() as sink:
        assert sink.trail is not None
        sink.fault = OSError("disk full")
        sink.trail.node_refused(NODE, "kept")
        deadline = time.monotonic() + 10
        while not logs:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sink.fault = None
        assert [event.description for event in sink.events()] == ["kept"]
    assert [line["event"] for line in logs] == ["audit-sink-failed", "audit-sink-recovered"]


def test_closing_writes_what_is_queued_and_gives_up_on_what_cannot_be_written() -> None:
    sink = MemorySink()
    trail = AuditTrail("p", "A", sinks=[sink], alerts_per_minute=10**6)
    for number in range(1000):
        trail.node_refused(NODE, f"{number}")
    trail.close()
    assert len(sink.messages) == 1000
    failing = MemorySink()
    failing.fault = OSError("gone")
    trail = AuditTrail("p", "A", sinks=[failing])
    trail.node_refused(NODE, "lost")
    began = time.monotonic()
    with capture_logs():
        trail.close(timeout_s=2)
    assert time.monotonic() - began < 3


def test_a_flood_of_alerts_from_one_address_is_summed_up() -> None:
    with capture_logs(), trail_into(alerts_per_minute=3) as sink:
        assert sink.trail is not None
        for _ in range(100):
            sink.trail.node_refused(NODE, "no DICOM")
        sink.trail.node_refused(RemoteNode("10.0.0.10"), "another")
        events = sink.events()
        sink.trail._report_suppressed(now=True)
        summary = sink.events()[-1]
    assert [event.description for event in events] == ["no DICOM"] * 3 + ["another"]
    assert summary.description.endswith("by address: 10.0.0.9: 97")


def test_the_limiter_forgets_after_a_minute_and_stays_small() -> None:
    now = [0.0]
    limiter = AlertLimiter(2, clock=lambda: now[0])
    assert [limiter.admit("a") for _ in range(4)] == [True, True, False, False]
    assert limiter.suppressed() == {}
    now[0] = WINDOW_S
    assert limiter.suppressed() == {"a": 2}
    assert limiter.admit("a")
    admitted = sum(limiter.admit(f"address {n}") for n in range(10 * MAXIMUM_KEYS))
    assert admitted <= MAXIMUM_KEYS + 2
    assert sum(limiter.suppressed(now=True).values()) == 10 * MAXIMUM_KEYS - admitted


# Transfers


def test_an_association_that_stays_open_is_reported_in_time_and_in_pieces() -> None:
    now, reports = [0.0], list[list[Transfer]]()
    counter = TransferCounter(reports.append, interval_s=60, clock=lambda: now[0])
    counter.count("1.1", "MR", Action.CREATE)
    now[0] = 59
    counter.count("1.1", "MR", Action.CREATE)
    assert reports == []
    now[0] = 60
    counter.count("1.1", "SEG", Action.CREATE)
    assert reports == [[Transfer("1.1", Action.CREATE, {"MR": 2, "SEG": 1})]]
    for number in range(3 * MAXIMUM_COUNTS):
        counter.count(f"2.{number}", "MR", Action.CREATE)
    counter.flush()
    counter.flush()
    assert sum(len(report) for report in reports[1:]) == 3 * MAXIMUM_COUNTS
    assert all(len(report) <= MAXIMUM_COUNTS for report in reports)


# Syslog


def test_a_syslog_message_is_that_of_rfc_5424(some: list[AuditMessage]) -> None:
    header, _, body = syslog_message(some[0]).partition(b" - ")
    priority_and_version, at, host, application, process, message_id = header.decode("ascii").split(" ")
    assert priority_and_version == "<85>1"
    assert at.endswith("Z")
    assert "T" in at
    assert host
    assert (application, process, message_id) == ("pacsgate", str(os.getpid()), "DICOM+RFC3881")
    assert body.startswith(b"\xef\xbb\xbf<AuditMessage")
    assert event_of(body.decode("utf-8-sig")).description == "alert 0"


def test_udp_carries_one_message_a_datagram(some: list[AuditMessage]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        sink = SyslogSink(SyslogTransport.UDP, "127.0.0.1", receiver.getsockname()[1])
        sink.write(some[:3])
        assert [receiver.recv(65536) for _ in range(3)] == [syslog_message(m) for m in some[:3]]
        sink.close()


class Repository:
    """A syslog receiver for streams: reads octet-counted frames (RFC 5425 4.3) of one connection after another."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.frames: list[bytes] = []
        self.connections = 0
        self.hang_up_after = 10**6
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            try:
                self._read(connection)
            except OSError:
                continue

    def _read(self, connection: socket.socket) -> None:
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as stream:
            for _ in range(self.hang_up_after):
                count = b""
                while (digit := stream.read(1)) != b" ":
                    if not digit:
                        return
                    count += digit
                self.frames.append(stream.read(int(count)))

    def wait_for(self, count: int) -> list[bytes]:
        """The frames, once there are so many."""
        deadline = time.monotonic() + 10
        while len(self.frames) < count:
            assert time.monotonic() < deadline, self.frames
            time.sleep(0.01)
        return self.frames

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@contextmanager
def repository(context: ssl.SSLContext | None = None) -> Iterator[Repository]:
    receiver = Repository(context)
    try:
        yield receiver
    finally:
        receiver.close()


def test_tcp_frames_are_counted_and_a_lost_connection_is_made_anew(some: list[AuditMessage]) -> None:
    with repository() as receiver:
        receiver.hang_up_after = 2
        sink = SyslogSink(SyslogTransport.TCP, "127.0.0.1", receiver.port)
        for start in (0, 2, 4):
            sink.write(some[start : start + 2])
            receiver.wait_for(start + 2)
            time.sleep(0.05)  # until the receiver's end has arrived
        assert receiver.frames == [syslog_message(m) for m in some[:6]]
        assert receiver.connections == 3
        sink.close()
    with pytest.raises(OSError, match="refused"):
        SyslogSink(SyslogTransport.TCP, "127.0.0.1", receiver.port).write(some[:1])


def test_tls_to_the_repository_is_mutual_and_verified(some: list[AuditMessage], tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    server = authority.issue("arr.hospital.test", "127.0.0.1")
    node = authority.issue("node.hospital.test")

    def tls(identity: object, ca: Authority) -> TlsSettings:
        return TlsSettings.model_validate({**vars(identity), "ca": ca.certificate})

    with repository(server_context(tls(server, authority))) as receiver:
        sink = SyslogSink(SyslogTransport.TLS, "127.0.0.1", receiver.port, client_context(tls(node, authority)))
        sink.write(some[:2])
        sink.write(some[2:3])
        assert receiver.wait_for(3) == [syslog_message(m) for m in some[:3]]
        assert receiver.connections == 1
        sink.close()
        mistrusting = client_context(tls(node, stranger))
        with pytest.raises(ssl.SSLCertVerificationError):
            SyslogSink(SyslogTransport.TLS, "127.0.0.1", receiver.port, mistrusting).write(some[:1])
        assert len(receiver.frames) == 3


# The whole trail, from settings


def test_the_file_is_on_when_nothing_is_configured(tmp_path: Path) -> None:
    settings = load_settings(storage={"data_dir": tmp_path})

    def fail() -> None:
        with audit.running(settings, "worker-0"):
            audit.trail().node_refused(NODE, "look")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    start, alert, stop = events_in(tmp_path / "audit" / "worker-0.log")
    assert (start.types, alert.description, stop.types) == (("Application Start",), "look", ("Application Stop",))
    assert (stop.outcome, stop.description) == ("8", "ZeroDivisionError")
    assert audit.trail().health() == {}


def test_syslog_from_settings(tmp_path: Path) -> None:
    with repository() as receiver:
        options = {"file": False, "syslog_host": "127.0.0.1", "syslog_port": receiver.port, "syslog_transport": "tcp"}
        settings = load_settings(storage={"data_dir": tmp_path}, audit={**options, "site_id": "Hospital"})
        with audit.running(settings, "web-0"):
            assert b"AuditEnterpriseSiteID=" in receiver.wait_for(1)[0]
        receiver.wait_for(2)
    assert not (tmp_path / "audit").exists()
    with pytest.raises(ConfigurationError, match=r"audit\.syslog_ca"):
        load_settings(audit={"syslog_host": "arr"})
