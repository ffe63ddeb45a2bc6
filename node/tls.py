"""TLS contexts for DICOM (PS3.15 B.12 and B.13, BCP 195: RFC 8996 and RFC 9325) from the certificate files of a site.

Both sides of every connection are authenticated by certificates of the authorities the site names; the operating
system's own list of authorities is never asked. Nothing below TLS 1.2 is spoken.
"""

import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from node.settings import ConfigurationError, TlsProfile, TlsSettings

if TYPE_CHECKING:
    from cryptography import x509

CIPHERS: Final = {
    TlsProfile.BCP195: (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    TlsProfile.BCP195_EXTENDED: ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
}
"""The cipher suites of TLS 1.2, by profile (RFC 9325 4.2). DHE is left out: its key length cannot be set from here
(B.13). Those of TLS 1.3 are all sound and OpenSSL's own."""
_SECURITY_LEVEL: Final = "@SECLEVEL=2"
"""OpenSSL's level of 112 bits: RSA keys from 2048, curves from 224 bits, no SHA-1 signatures."""


@dataclass(frozen=True)
class CertificateState:
    """How long a certificate or revocation list of ours holds."""

    path: Path
    subject: str
    not_after: datetime

    def fault(self, warning_days: int, now: datetime | None = None) -> str:
        """Say that it has expired or soon will; empty while it is good for more than ``warning_days`` days."""
        remaining = self.not_after - (now or datetime.now(UTC))
        until = f"{self.not_after:%Y-%m-%d %H:%M} UTC"
        if remaining <= timedelta():
            return f"{self.path}: {self.subject} expired at {until}: get a new one"
        if remaining < timedelta(days=warning_days):
            return f"{self.path}: {self.subject} expires at {until}, in {remaining.days} days: get a new one"
        return ""


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return the context of the TLS port.

    Raises
    ------
    ConfigurationError
        A file is missing, unusable or readable by others; the message says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A resumed session would skip the look at the certificate: every association brings its proof anew.
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    # Modalities close without TLS's own goodbye; PDUs bear their lengths, so that nothing cut off passes for whole.
    # Taken as an error, the end of what they send would also end what we may still say.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    _restrict(context, tls.profile)
    _load_own(context, tls)
    _load_trusted(context, tls.ca, tls.crl)
    context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(tls: TlsSettings, ca: Path | None = None) -> ssl.SSLContext:
    """Return the context for connections we make: to destinations, or with another ``ca`` to a syslog receiver.

    The other side's certificate and name are verified. Ours is sent if we have one.

    Raises
    ------
    ConfigurationError
        As `server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, tls.profile)
    if tls.certificate is not None:
        _load_own(context, tls)
    _load_trusted(context, ca or tls.ca, None if ca else tls.crl)
    return context


def certificate_states(tls: TlsSettings) -> list[CertificateState]:
    """Return our certificate, the authorities and the revocation lists, with their ends.

    Raises
    ------
    ConfigurationError
        A file cannot be read.
    """
    states = []
    for path in (tls.certificate, tls.ca):
        if path is not None:
            states += [
                CertificateState(path, f"the certificate {c.subject.rfc4514_string()}", c.not_valid_after_utc)
                for c in _certificates(path)
            ]
    if tls.crl is not None:
        states += [
            CertificateState(tls.crl, f"the revocation list of {r.issuer.rfc4514_string()}", r.next_update_utc)
            for r in _revocation_lists(tls.crl)
            if r.next_update_utc is not None
        ]
    return states


def describe_certificate(path: Path) -> tuple[str, list[str]]:
    """Return SHA-256 fingerprint and names (common name, DNS names) of the first certificate in a PEM file.

    Raises
    ------
    ConfigurationError
        The file holds none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = _certificates(path)[0]
    names = [str(item.value) for item in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value.get_values_for_type(x509.DNSName)
    return certificate.fingerprint(SHA256()).hex(), list(dict.fromkeys(names))


def handshake_fault(error: OSError) -> str:
    """Say in an administrator's words why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "the TLS handshake was not finished in time"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").replace("_", " ").lower()
        return _WORDS.get(error.reason or "", f"the TLS handshake failed: {reason or error}")
    return f"it ended the connection during the TLS handshake ({error.strerror or error}): it may not speak TLS"


_WORDS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it sent no certificate",
    "WRONG_VERSION_NUMBER": "it does not speak TLS (a DICOM sender set up without TLS does this)",
    "HTTP_REQUEST": "it does not speak TLS: it sent an HTTP request",
    "UNKNOWN_PROTOCOL": "it does not speak TLS",
    "NO_SHARED_CIPHER": "it offers no cipher suite of the profile",
    "UNSUPPORTED_PROTOCOL": "it offers only TLS versions older than 1.2",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate, and we sent none",
}


def _restrict(context: ssl.SSLContext, profile: TlsProfile) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join((*CIPHERS[profile], _SECURITY_LEVEL)))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_own(context: ssl.SSLContext, tls: TlsSettings) -> None:
    assert tls.certificate is not None
    assert tls.key is not None
    _check_readable("tls.certificate", tls.certificate)
    _check_readable("tls.key", tls.key)
    mode = tls.key.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise ConfigurationError(f"tls.key: others may read or change {tls.key}: chmod 600, or 640 with a group")
    try:
        # An empty passphrase, or OpenSSL would ask for one at a terminal that a service does not have.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"tls.certificate and tls.key: {tls.certificate} and {tls.key} are no certificate with its unencrypted "
            f"private key in PEM ({_reason(error)})"
        ) from error


def _load_trusted(context: ssl.SSLContext, ca: Path | None, crl: Path | None) -> None:
    if ca is None:
        raise ConfigurationError("tls.ca: missing; it names the authorities whose certificates are trusted")
    _certificates(ca)
    context.load_verify_locations(ca)
    if crl is not None:
        _revocation_lists(crl)
        context.load_verify_locations(crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _certificates(path: Path) -> "list[x509.Certificate]":
    from cryptography import x509  # 50 ms that a node without TLS does not pay

    _check_readable("[tls]", path)
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"[tls]: {path} holds no certificates in PEM") from error


def _revocation_lists(path: Path) -> "list[x509.CertificateRevocationList]":
    from cryptography import x509

    _check_readable("tls.crl", path)
    end = b"-----END X509 CRL-----"
    blocks = [block + end for block in path.read_bytes().split(end)[:-1]]
    try:
        lists = [x509.load_pem_x509_crl(block.strip()) for block in blocks]
    except ValueError as error:
        raise ConfigurationError(f"tls.crl: {path} is no revocation list in PEM") from error
    if not lists:
        raise ConfigurationError(f"tls.crl: {path} holds no revocation list in PEM")
    return lists


def _check_readable(key: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{key}: {path} cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()
