"""Certificate files that are replaced while the node runs."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.dimse.tls import EXPIRY_CHECK_S, FILE_CHECK_S, ServerTls
from node.settings import ConfigurationError, TlsSettings
from tests.fixtures.audit_sinks import trail_into
from tests.fixtures.certificates import Authority


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def replace(path: Path, data: bytes) -> None:
    """As a careful administrator does it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.chmod(0o600)
    new.replace(path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(authority: Authority, valid_days: int = 200) -> TlsSettings:
    identity = authority.issue("node.hospital.test", valid_days=valid_days)
    files = {"certificate": identity.certificate, "key": identity.key, "ca": authority.certificate}
    return TlsSettings.model_validate({**files, "crl": authority.revoke(valid_days=200)})


def test_a_new_revocation_list_is_taken_over_and_a_bad_one_is_not(authority: Authority) -> None:
    tls, clock = settings(authority), Clock()
    assert tls.crl is not None
    assert tls.key is not None
    server = ServerTls(tls, clock)
    first = server.context()
    with trail_into() as sink, capture_logs() as logs:
        clock.now += FILE_CHECK_S
        assert server.context() is first
        replace(tls.crl, authority.revoke(authority.issue("stolen"), valid_days=199).read_bytes())
        assert server.context() is first  # files are looked at now and then, not for every scanner
        clock.now += FILE_CHECK_S
        second = server.context()
        assert second is not first
        # Of certificate and key the first is replaced a moment before the second.
        key = tls.key.read_bytes()
        replace(tls.key, b"half a")
        clock.now += FILE_CHECK_S
        assert server.context() is second
        replace(tls.key, key)
        tls.crl.unlink()
        clock.now += FILE_CHECK_S
        assert server.context() is second
        assert authority.revoke(valid_days=200) == tls.crl  # writes the same file again
        clock.now += FILE_CHECK_S
        assert server.context() is not second
        events = sink.events()
    assert [event.outcome for event in events] == ["0", "4", "4", "0"]
    assert {event.types for event in events} == {("Software Configuration",)}
    refused = [line for line in logs if line["event"] == "tls-files-refused"]
    assert "tls.key" in refused[0]["reason"]
    assert "crl-0-200.pem cannot be read" in refused[1]["reason"]


def test_what_expires_is_said_at_start_and_every_day(authority: Authority) -> None:
    clock = Clock()
    with capture_logs() as logs:
        server = ServerTls(settings(authority, valid_days=10), clock)
        assert len(logs) == 1
        server.context()
        assert len(logs) == 1
        clock.now = EXPIRY_CHECK_S
        server.context()
    assert [line["event"] for line in logs] == ["tls-certificate-expiry"] * 2
    assert "CN=node.hospital.test" in logs[0]["reason"]


def test_unusable_files_do_not_even_start(authority: Authority) -> None:
    tls = settings(authority)
    assert tls.ca is not None
    replace(tls.ca, b"nothing")
    with pytest.raises(ConfigurationError, match="holds no certificates"):
        ServerTls(tls)
