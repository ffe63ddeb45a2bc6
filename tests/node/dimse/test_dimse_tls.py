"""The TLS port and the closed door, from outside with DCMTK's own tools: who is let in, who is refused and audited."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from node.dimse.user_identity import Passcodes
from tests.fixtures.audit_messages import Event, events_in, wait_for_event
from tests.fixtures.certificates import Authority, Identity
from tests.fixtures.configured_receiver import ConfiguredReceiver, configured_receiver
from tests.fixtures.dcmtk import free_port, storescu, tool
from tests.fixtures.instances import mr_file

pytestmark = pytest.mark.peers

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


class Site:
    """A hospital: its authority, its node's ports, its peers' certificates."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        self.stranger = Authority(folder / "stranger")
        self.node = self.authority.issue("node.hospital.test", "node.hospital.test", "127.0.0.1")
        self.scanner = self.authority.issue("mr1.hospital.test")
        self.rsa = self.authority.issue("mr2.hospital.test", key_type=trustme.KeyType.RSA)
        self.expired = self.authority.issue("old.hospital.test", valid_days=-1)
        self.revoked = self.authority.issue("stolen.hospital.test")
        self.forged = self.stranger.issue("mr1.hospital.test")
        self.crl = self.authority.revoke(self.revoked)
        self.port, self.tls_port = free_port(), free_port()

    def toml(self) -> str:
        """Its configuration."""
        return f"""
            [dicom]
            port = {self.port}
            [tls]
            port = {self.tls_port}
            certificate = '{self.node.certificate}'
            key = '{self.node.key}'
            ca = '{self.authority.certificate}'
            crl = '{self.crl}'
            handshake_timeout_s = 1
            [audit]
            alerts_per_minute = 1000
            [[peers]]
            name = 'plain'
            ae_title = 'PLAIN'
            host = '127.0.0.0/8'
            [[peers]]
            name = 'pinned'
            ae_title = 'PINNED'
            host = '127.0.0.1'
            tls = true
            certificate_sha256 = '{self.scanner.fingerprint}'
            [[peers]]
            name = 'named'
            ae_title = 'NAMED'
            host = 'localhost'
            tls = true
            certificate_name = 'mr2.hospital.test'
            [[peers]]
            name = 'signed'
            ae_title = 'SIGNED'
            host = '127.0.0.1'
            tls = true
            [[peers]]
            name = 'workplace'
            ae_title = 'WORKPLACE'
            host = '127.0.0.1'
            username = 'physicist'
            passcode_hash = '{Passcodes().hash("correct horse")}'
        """


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def receiver(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfiguredReceiver]:
    with configured_receiver(tmp_path_factory.mktemp("node"), site.toml()) as running:
        yield running


def echo(port: int, calling_ae_title: str, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--aetitle", calling_ae_title, "--call", "PACSGATE", "--timeout", "10", "--acse-timeout", "10"]
    command = [tool("echoscu"), "--debug", *arguments, *options, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)


def received_until_closed(connection: socket.socket) -> bytes:
    """What arrives until the other side closes, orderly or not; TimeoutError if it does not."""
    received = b""
    try:
        while piece := connection.recv(100):
            received += piece
    except ConnectionResetError:
        return received
    return received


def refused(receiver: ConfiguredReceiver, *words: str, after: int) -> Event:
    """The alert that says all of ``words``, among the messages from number ``after`` on."""

    def fits(event: Event) -> bool:
        return event.outcome == "4" and all(word in event.description for word in words)

    return wait_for_event(receiver.audit_path, fits, after=after)


def audited(receiver: ConfiguredReceiver) -> int:
    """How many messages there are now."""
    return len(events_in(receiver.audit_path))


def test_the_start_is_in_the_trail(receiver: ConfiguredReceiver) -> None:
    event = events_in(receiver.audit_path)[0]
    assert (event.event, event.types, event.outcome) == ("Application Activity", ("Application Start",), "0")
    assert event.user_ids == ("receiver-0",)
    assert receiver.audit_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"], ids=["non-downgrading", "bcp195", "extended"])
def test_a_good_certificate_is_let_in_with_every_profile(
    site: Site, receiver: ConfiguredReceiver, profile: str
) -> None:
    done = echo(site.tls_port, "PINNED", *site.scanner.dcmtk(site.authority), profile)
    assert done.returncode == 0, done.stderr
    done = echo(site.tls_port, "NAMED", *site.rsa.dcmtk(site.authority), profile)
    assert done.returncode == 0, done.stderr


def test_a_stored_study_is_audited_with_counts_and_without_the_patient(
    site: Site, receiver: ConfiguredReceiver, tmp_path: Path
) -> None:
    uids = {"StudyInstanceUID": "1.2.77", "SeriesInstanceUID": "1.2.77.1", "PatientID": "SECRET-ID"}
    files = [mr_file(tmp_path, f"{n}.dcm", SOPInstanceUID=f"1.2.77.1.{n}", **uids) for n in range(1, 4)]
    done = storescu(site.tls_port, files, *site.scanner.dcmtk(site.authority), calling_ae_title="PINNED")
    assert done.returncode == 0, done.stderr

    def is_transfer(event: Event) -> bool:
        return event.event == "DICOM Instances Transferred" and "1.2.77" in event.objects

    event = wait_for_event(receiver.audit_path, is_transfer)
    assert event.objects == {"1.2.77": {MR_IMAGE_STORAGE: 3}, "withheld": {}}
    assert (event.action, event.outcome, event.addresses) == ("C", "0", ("127.0.0.1",))
    assert event.ae_titles == ("PINNED", "PACSGATE")
    # The same bytes once more are kept, other bytes replace: the action code says which (PS3.15 A.5.3.7).
    changed = mr_file(tmp_path, "1.dcm", SOPInstanceUID="1.2.77.1.1", InstanceNumber=99, **uids)
    done = storescu(site.tls_port, [changed, files[1]], *site.scanner.dcmtk(site.authority), calling_ae_title="SIGNED")
    assert done.returncode == 0, done.stderr
    again = [
        wait_for_event(receiver.audit_path, lambda e, action=action: is_transfer(e) and e.action == action)
        for action in ("U", "R")
    ]
    assert [event.objects["1.2.77"] for event in again] == [{MR_IMAGE_STORAGE: 1}, {MR_IMAGE_STORAGE: 1}]
    everything = receiver.audit_path.read_text() + receiver.log()
    assert "SECRET-ID" not in everything
    assert "Doe" not in everything


@pytest.mark.parametrize(
    ("whose", "trusts", "words"),
    [
        ("forged", "authority", "unable to get local issuer certificate"),
        ("expired", "authority", "certificate has expired"),
        ("revoked", "authority", "certificate revoked"),
    ],
)
def test_a_bad_certificate_is_refused_and_audited(
    site: Site, receiver: ConfiguredReceiver, whose: str, trusts: str, words: str
) -> None:
    before = audited(receiver)
    identity: Identity = getattr(site, whose)
    assert echo(site.tls_port, "PINNED", *identity.dcmtk(getattr(site, trusts))).returncode != 0
    event = refused(receiver, "TLS port", words, after=before)
    assert (event.event, event.types) == ("Security Alert", ("Node Authentication",))
    assert event.addresses == ("127.0.0.1",)


def test_no_certificate_is_refused_and_audited(site: Site, receiver: ConfiguredReceiver) -> None:
    before = audited(receiver)
    assert echo(site.tls_port, "SIGNED", "+tla", "-ic").returncode != 0
    refused(receiver, "it sent no certificate", after=before)


@pytest.mark.parametrize(
    ("calling", "whose", "words"),
    [
        ("PINNED", "rsa", "is not that of peer pinned"),
        ("NAMED", "scanner", "does not bear the name 'mr2.hospital.test'"),
        ("NOBODY", "scanner", "no peer is configured with this AE title"),
    ],
)
def test_a_valid_certificate_of_somebody_else_is_refused_and_audited(
    site: Site, receiver: ConfiguredReceiver, calling: str, whose: str, words: str
) -> None:
    before = audited(receiver)
    identity: Identity = getattr(site, whose)
    done = echo(site.tls_port, calling, *identity.dcmtk(site.authority))
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stderr
    event = refused(receiver, words, after=before)
    assert event.types == ("Node Authentication",)
    assert calling in event.ae_titles


def test_a_peer_with_tls_is_refused_on_the_plain_port(site: Site, receiver: ConfiguredReceiver) -> None:
    before = audited(receiver)
    assert echo(site.port, "PINNED").returncode != 0
    refused(receiver, "let in by the TLS port only", after=before)
    assert echo(site.port, "PLAIN").returncode == 0
    assert echo(site.tls_port, "PLAIN", *site.scanner.dcmtk(site.authority)).returncode == 0


def test_plain_dicom_on_the_tls_port_is_refused_and_audited(site: Site, receiver: ConfiguredReceiver) -> None:
    before = audited(receiver)
    assert echo(site.tls_port, "PLAIN").returncode != 0
    refused(receiver, "TLS port", "does not speak TLS", after=before)


def test_tls_on_the_plain_port_is_refused_and_audited(site: Site, receiver: ConfiguredReceiver) -> None:
    before = audited(receiver)
    assert echo(site.port, "PINNED", *site.scanner.dcmtk(site.authority)).returncode != 0
    refused(receiver, "not DICOM", "TLS on the port without TLS", after=before)


@pytest.mark.parametrize(
    ("first_bytes", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", "an HTTP request"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (struct.pack(">BBL", 1, 0, 1 << 31), "announced PDU length"),
    ],
)
def test_what_is_not_dicom_is_closed_at_once_and_audited(
    site: Site, receiver: ConfiguredReceiver, first_bytes: bytes, words: str
) -> None:
    before = audited(receiver)
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(first_bytes)
        assert received_until_closed(connection) == b""
    refused(receiver, words, after=before)


def test_http_on_the_tls_port_is_refused_and_audited(site: Site, receiver: ConfiguredReceiver) -> None:
    before = audited(receiver)
    with socket.create_connection(("127.0.0.1", site.tls_port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        received_until_closed(connection)
    refused(receiver, "it sent an HTTP request", after=before)


def test_a_handshake_that_stalls_is_given_up_and_holds_up_nobody(site: Site, receiver: ConfiguredReceiver) -> None:
    stalled = [socket.create_connection(("127.0.0.1", site.tls_port), timeout=10) for _ in range(5)]
    began = time.monotonic()
    assert echo(site.tls_port, "SIGNED", *site.scanner.dcmtk(site.authority)).returncode == 0
    for connection in stalled:
        assert connection.recv(1) == b""
        connection.close()
    assert time.monotonic() - began < 8
    assert "the TLS handshake was not finished in time" in receiver.log()


def store_as(site: Site, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Send one instance as the peer that has to give a user identity."""
    return storescu(site.port, [mr_file(folder)], "--debug", *options, calling_ae_title="WORKPLACE")


def test_user_identity_with_the_right_passcode_is_confirmed(
    site: Site, receiver: ConfiguredReceiver, tmp_path: Path
) -> None:
    done = store_as(site, tmp_path, "--user", "physicist", "--password", "correct horse", "--pos-response")
    assert done.returncode == 0, done.stderr
    event = wait_for_event(receiver.audit_path, lambda e: e.event == "User Authentication" and e.outcome == "0")
    assert (event.types, event.user_ids[0]) == (("Login",), "physicist")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "gave none"),
        (("--user", "physicist"), "the passcode is not that"),
        (("--user", "physicist", "--password", "wrong"), "the passcode is not that"),
        (("--user", "physicist", "--empty-password"), "the passcode is not that"),
        (("--user", "somebody", "--password", "correct horse"), "the user name is not that"),
        (("--kerberos", "ticket"), "type 3"),
    ],
)
def test_another_user_identity_is_refused_and_audited(
    site: Site, receiver: ConfiguredReceiver, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    (tmp_path / "ticket").write_bytes(b"a ticket")
    before = audited(receiver)
    done = store_as(site, tmp_path, *(str(tmp_path / "ticket") if o == "ticket" else o for o in options))
    assert done.returncode != 0
    assert "Rejected Permanent, Source: Service Provider (ACSE Related)" in done.stderr
    event = refused(receiver, words, after=before)
    assert (event.event, event.types) == ("User Authentication", ("Login",))
    assert "correct horse" not in receiver.audit_path.read_text() + receiver.log()
