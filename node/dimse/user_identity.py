"""User identity negotiation (PS3.7 D.3.3.7): user name, with or without passcode; not Kerberos, SAML, JWT."""

import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation


class IdentityType(IntEnum):
    """User-Identity-Type (PS3.7 table D.3-14)."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


VERIFIABLE_TYPES: Final = (IdentityType.USERNAME, IdentityType.USERNAME_AND_PASSCODE)


@dataclass(frozen=True)
class UserIdentity:
    """What a requestor says about its user. ``passcode`` is None where the type has none."""

    type: int
    username: str
    passcode: bytes | None = None
    response_requested: bool = False

    @classmethod
    def of(cls, association: Association) -> Self | None:
        """Return the identity that the association request carries, None if it carries none."""
        item = association.requestor.user_identity
        if item is None:
            return None
        known = item.user_identity_type in VERIFIABLE_TYPES
        username = (item.primary_field or b"").decode("utf-8", "replace") if known else ""
        has_passcode = item.user_identity_type == IdentityType.USERNAME_AND_PASSCODE
        passcode = item.secondary_field or b"" if has_passcode else None
        return cls(item.user_identity_type, username, passcode, bool(item.positive_response_requested))


class Passcodes:
    """Checks passcodes against their Argon2id hashes.

    One at a time, because each check takes 64 MiB and some 50 ms, and a flood of them must not take the machine. What
    was confirmed once is remembered under a key of this process: some scanners open an association for every image.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._confirmed: dict[str, bytes] = {}

    def hash(self, passcode: str) -> str:
        """Return the hash to write into the configuration."""
        return self._hasher.hash(passcode)

    def confirm(self, passcode_hash: str, passcode: bytes) -> bool:
        """Tell whether ``passcode`` is the one that was hashed."""
        digest = hashlib.blake2b(passcode, key=self._key).digest()
        with self._lock:
            if hmac.compare_digest(self._confirmed.get(passcode_hash, b""), digest):
                return True
            try:
                self._hasher.verify(passcode_hash, passcode)
            except (VerificationError, InvalidHashError):
                return False
            self._confirmed[passcode_hash] = digest
            return True


def same_username(configured: str, given: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(configured.encode(), given.encode())


def confirm_to_requestor(association: Association) -> None:
    """Add the positive response to the answer, if it was asked for: empty for user names (PS3.7 table D.3-15)."""
    response = UserIdentityNegotiation()
    response.server_response = b""
    association.acceptor.add_negotiation_item(response)
