"""Destinations called over TLS: DCMTK's storescp as the PACS, and how the two can mistrust each other."""

import re
from pathlib import Path

import pytest

from node.dimse.requestor import DestinationUnavailable
from node.dimse.storage_scu import echo, send
from node.settings import ConfigurationError, Destination, TlsSettings, load_settings
from node.tls import CertificateState, certificate_states, client_context, describe_certificate, server_context
from tests.fixtures.certificates import Authority, Identity, now
from tests.fixtures.dcmtk import storescp
from tests.fixtures.instances import mr_file

TIMEOUT_S = 10


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Identity:
    return authority.issue("node.hospital.test")


@pytest.fixture(scope="module")
def pacs(authority: Authority) -> Identity:
    return authority.issue("pacs.hospital.test", "pacs.hospital.test", "127.0.0.1")


def tls(identity: Identity, authority: Authority, **values: object) -> TlsSettings:
    files = {"certificate": identity.certificate, "key": identity.key, "ca": authority.certificate}
    return TlsSettings.model_validate({**files, **values})


def destination(port: int, credentials: TlsSettings, **values: str) -> Destination:
    fields = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": True, **values}
    return Destination.model_validate(fields).with_credentials(credentials)


@pytest.mark.peers
@pytest.mark.parametrize("profile", ["bcp195", "bcp195-extended"])
def test_objects_are_delivered_over_tls(
    authority: Authority, node: Identity, pacs: Identity, tmp_path: Path, profile: str
) -> None:
    with storescp(tmp_path / "pacs", *pacs.dcmtk(authority), "--accept-all") as scp:
        to = destination(scp.port, tls(node, authority, profile=profile))
        echo(to, "PACSGATE", TIMEOUT_S)
        (outcome,) = send(to, [mr_file(tmp_path)], "PACSGATE", TIMEOUT_S)
        assert outcome.delivered, outcome.error
        assert len(scp.files()) == 1
        # The certificate bears the address; asked for another name it is another node's.
        named = destination(scp.port, to.credentials or tls(node, authority), tls_server_name="pacs.hospital.test")
        echo(named, "PACSGATE", TIMEOUT_S)
        wrong = destination(scp.port, tls(node, authority), tls_server_name="other.hospital.test")
        with pytest.raises(DestinationUnavailable, match="certificate is not accepted: Hostname mismatch"):
            echo(wrong, "PACSGATE", TIMEOUT_S)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("server", "trusted", "words"),
    [
        ("forged", "authority", "its certificate is not accepted: unable to get local issuer certificate"),
        ("expired", "authority", "its certificate is not accepted: certificate has expired"),
        ("pacs", "stranger", "its certificate is not accepted: self-signed certificate in certificate chain"),
    ],
)
def test_a_destination_that_cannot_prove_itself_gets_nothing(
    authority: Authority,
    stranger: Authority,
    node: Identity,
    pacs: Identity,
    tmp_path: Path,
    server: str,
    trusted: str,
    words: str,
) -> None:
    identity = {
        "pacs": pacs,
        "forged": stranger.issue("forged", "127.0.0.1"),
        "expired": authority.issue("expired", "127.0.0.1", valid_days=-1),
    }[server]
    with storescp(tmp_path / "pacs", *identity.dcmtk(authority), "--accept-all") as scp:
        to = destination(scp.port, tls(node, {"authority": authority, "stranger": stranger}[trusted]))
        (outcome,) = send(to, [mr_file(tmp_path)], "PACSGATE", TIMEOUT_S)
        assert not outcome.delivered
        assert words in outcome.error
        assert scp.files() == []


@pytest.mark.peers
def test_a_destination_that_does_not_trust_us_says_so(
    authority: Authority, stranger: Authority, pacs: Identity, tmp_path: Path
) -> None:
    ours = stranger.issue("node.elsewhere.test")
    with storescp(tmp_path / "pacs", *pacs.dcmtk(authority), "--accept-all") as scp:
        with pytest.raises(DestinationUnavailable, match=r"certificate|trust"):
            echo(destination(scp.port, tls(ours, authority)), "PACSGATE", TIMEOUT_S)
        assert scp.files() == []


@pytest.mark.peers
def test_a_plain_destination_is_not_called_in_the_clear_instead(
    authority: Authority, node: Identity, tmp_path: Path
) -> None:
    with (
        storescp(tmp_path / "pacs") as scp,
        pytest.raises(DestinationUnavailable, match="may not speak TLS"),
    ):
        echo(destination(scp.port, tls(node, authority)), "PACSGATE", TIMEOUT_S)


def test_settings_hand_the_credentials_to_the_destinations(authority: Authority, node: Identity) -> None:
    entry = {"name": "pacs", "ae_title": "PACS", "host": "pacs", "port": 2762, "tls": True}
    settings = load_settings(tls=tls(node, authority).model_dump(), destinations=[entry])
    assert settings.destinations[0].credentials == settings.tls
    assert "credentials" not in str(settings.model_dump())
    with pytest.raises(ConfigurationError, match=re.escape("destinations.pacs: tls = true needs certificate, key")):
        load_settings(destinations=[entry])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"key": None}, "missing: key"),
        ({"ca": None}, "missing: ca"),
        ({"host": "0.0.0.0"}, "[[peers]]"),
    ],
)
def test_half_a_tls_section_is_refused(
    authority: Authority, node: Identity, values: dict[str, object], words: str
) -> None:
    section = tls(node, authority).model_dump() | values
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        load_settings(tls=section)


def test_files_that_cannot_serve_are_refused_by_name(
    authority: Authority, stranger: Authority, node: Identity, tmp_path: Path
) -> None:
    other = stranger.issue("other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for values, words in (
        ({"certificate": tmp_path / "none.pem"}, "none.pem cannot be read"),
        ({"key": other.key}, "no certificate with its unencrypted private key"),
        ({"key": nonsense}, "tls.key"),
        ({"ca": nonsense}, "nonsense.pem holds no certificates"),
        ({"crl": nonsense}, "nonsense.pem holds no revocation list"),
        ({"crl": authority.certificate}, "holds no revocation list"),
    ):
        nonsense.chmod(0o600)
        with pytest.raises(ConfigurationError, match=re.escape(words)):
            server_context(tls(node, authority, **values))


def test_a_key_that_others_may_read_is_refused(authority: Authority) -> None:
    careless = authority.issue("careless")
    careless.key.chmod(0o640)
    assert server_context(tls(careless, authority))
    for mode in (0o644, 0o604, 0o660):
        careless.key.chmod(mode)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            client_context(tls(careless, authority))


def test_what_expires_is_said_in_time(authority: Authority, node: Identity) -> None:
    section = tls(node, authority, crl=authority.revoke(valid_days=10))
    states = {state.path: state for state in certificate_states(section)}
    assert "expires at" in states[node.certificate].fault(warning_days=31)
    assert states[node.certificate].fault(warning_days=20) == ""
    assert "revocation list" in states[section.crl or Path()].fault(warning_days=20)
    assert "expired at" in CertificateState(node.certificate, "it", now()).fault(1)


def test_a_certificate_describes_itself(pacs: Identity) -> None:
    assert describe_certificate(pacs.certificate) == (pacs.fingerprint, ["pacs.hospital.test"])
    with pytest.raises(ConfigurationError, match="holds no certificates"):
        describe_certificate(pacs.key)
