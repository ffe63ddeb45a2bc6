"""The TLS profiles of PS3.15 B.12 and B.13: what is negotiated, and what is not."""

import re
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from node.settings import ConfigurationError, TlsProfile, TlsSettings
from node.tls import client_context, handshake_fault, server_context
from tests.fixtures.certificates import Authority, Identity

KEY_TYPES = {"RSA": trustme.KeyType.RSA, "ECDSA": trustme.KeyType.ECDSA}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def identities(authority: Authority) -> dict[str, Identity]:
    return {name: authority.issue(f"{name}.test", key_type=kind) for name, kind in KEY_TYPES.items()}


def tls(identity: Identity, authority: Authority, **values: object) -> TlsSettings:
    files = {"certificate": identity.certificate, "key": identity.key, "ca": authority.certificate}
    return TlsSettings.model_validate({**files, **values})


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[str, str]:
    """Protocol version and cipher suite the two agree upon; what the server raises otherwise."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname=name)
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    done = {client_side: False, server_side: False}
    for _ in range(10):
        for side in done:
            try:
                side.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                if side is server_side:
                    raise
    assert all(done.values())
    cipher = server_side.cipher()
    assert cipher is not None
    return server_side.version() or "", cipher[0]


def peer_context(identity: Identity, authority: Authority) -> ssl.SSLContext:
    """A peer's own context: as OpenSSL has it, nothing restricted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(authority.certificate)
    return context


@pytest.mark.parametrize("profile", TlsProfile)
@pytest.mark.parametrize("kind", KEY_TYPES)
def test_both_sides_of_ours_agree_on_tls_1_3(
    authority: Authority, identities: dict[str, Identity], profile: TlsProfile, kind: str
) -> None:
    section = tls(identities[kind], authority, profile=profile)
    version, _ = handshake(server_context(section), client_context(section), f"{kind}.test")
    assert version == "TLSv1.3"


@pytest.mark.parametrize("kind", KEY_TYPES)
@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("profile", TlsProfile)
def test_tls_1_2_speaks_the_suites_of_the_profile(
    authority: Authority, identities: dict[str, Identity], kind: str, bits: int, profile: TlsProfile
) -> None:
    peer = peer_context(identities["RSA"], authority)
    peer.maximum_version = ssl.TLSVersion.TLSv1_2
    suite = f"ECDHE-{kind}-AES{bits}-GCM-SHA{256 if bits == 128 else 384}"
    peer.set_ciphers(suite)
    server = server_context(tls(identities[kind], authority, profile=profile))
    if profile is TlsProfile.BCP195_EXTENDED and bits == 128:
        with pytest.raises(ssl.SSLError) as fault:
            handshake(server, peer, f"{kind}.test")
        assert handshake_fault(fault.value) == "it offers no cipher suite of the profile"
    else:
        assert handshake(server, peer, f"{kind}.test") == ("TLSv1.2", suite)


@pytest.mark.parametrize("profile", TlsProfile)
@pytest.mark.parametrize(
    "suite", ["AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES256-GCM-SHA384"]
)
def test_without_forward_secrecy_or_authenticated_encryption_there_is_no_connection(
    authority: Authority, identities: dict[str, Identity], profile: TlsProfile, suite: str
) -> None:
    peer = peer_context(identities["RSA"], authority)
    peer.maximum_version = ssl.TLSVersion.TLSv1_2
    peer.set_ciphers(suite)
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        handshake(server_context(tls(identities["RSA"], authority, profile=profile)), peer, "RSA.test")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_refused(authority: Authority, identities: dict[str, Identity]) -> None:
    peer = peer_context(identities["RSA"], authority)
    peer.set_ciphers("ALL:@SECLEVEL=0")
    peer.minimum_version = peer.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError) as fault:
        handshake(server_context(tls(identities["RSA"], authority)), peer, "RSA.test")
    assert handshake_fault(fault.value) == "it offers only TLS versions older than 1.2"


def test_a_client_without_certificate_is_let_through_only_where_the_site_says_so(
    authority: Authority, identities: dict[str, Identity], tmp_path: Path
) -> None:
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(authority.certificate)
    with pytest.raises(ssl.SSLError) as fault:
        handshake(server_context(tls(identities["RSA"], authority)), nobody, "RSA.test")
    assert handshake_fault(fault.value) == "it sent no certificate"
    lenient = server_context(tls(identities["RSA"], authority, require_client_certificate=False))
    assert handshake(lenient, nobody, "RSA.test")
    forged = Authority(tmp_path).issue("RSA.test")
    with pytest.raises(ssl.SSLCertVerificationError):  # one that is sent is verified all the same
        handshake(lenient, peer_context(forged, authority), "RSA.test")


def test_an_expired_revocation_list_lets_nobody_in(authority: Authority, identities: dict[str, Identity]) -> None:
    server = server_context(tls(identities["RSA"], authority, crl=authority.revoke(valid_days=-1)))
    with pytest.raises(ssl.SSLCertVerificationError) as fault:
        handshake(server, peer_context(identities["ECDSA"], authority), "RSA.test")
    assert handshake_fault(fault.value) == "its certificate is not accepted: CRL has expired"


def test_a_key_with_a_passphrase_is_refused_and_nobody_asked(authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue("locked.test")
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    locked.chmod(0o600)
    with pytest.raises(ConfigurationError, match=re.escape("unencrypted private key")):
        server_context(tls(Identity(identity.certificate, locked), authority))
