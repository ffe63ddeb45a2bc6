"""Bearer tokens of the web interface: made once, shown once, kept only as a hash."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from storage.database import Database
from storage.errors import InvalidToken
from storage.models import ApiToken, utc_now
from storage.upsert import insert_if_absent

ROLES: Final = ("viewer", "technologist", "radiologist", "administrator")
_TOKEN_BYTES = 32
"""256 random bits: a plain SHA-256 is enough to keep, there is nothing to guess that a slow hash would protect."""


@dataclass(frozen=True)
class TokenIdentity:
    """Whom a valid token stands for."""

    name: str
    role: str


def create_token(database: Database, name: str, role: str) -> str:
    """Make a token and return it; it cannot be shown again.

    Raises
    ------
    InvalidToken
        The role is none of `ROLES`, the name is empty or taken.
    """
    if role not in ROLES:
        raise InvalidToken(f"there is no role {role!r}; the roles are {', '.join(ROLES)}")
    if not name.strip() or "\x00" in name:
        raise InvalidToken("a token needs a name, so that it can be told apart in the journal")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    values = {"role": role, "token_sha256": _hash(token), "created_at": utc_now()}
    with database.session() as session:
        if insert_if_absent(session, ApiToken, {"name": name}, values) is None:
            raise InvalidToken(f"there is already a token named {name!r}; choose another name")
    return token


def authenticate(database: Database, token: str) -> TokenIdentity | None:
    """Whom ``token`` stands for, None if nobody. What the time it takes could tell is about its hash only."""
    digest = _hash(token)
    with database.read() as session:
        row = session.scalar(select(ApiToken).where(ApiToken.token_sha256 == digest))
        if row is None or not hmac.compare_digest(row.token_sha256, digest):
            return None
        return TokenIdentity(row.name, row.role)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
