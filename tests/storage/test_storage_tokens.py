"""Tokens: shown once, stored as a hash, good for their role only."""

import hashlib

import pytest
from sqlalchemy import select

from storage.database import Database
from storage.errors import InvalidToken
from storage.models import ApiToken
from storage.tokens import ROLES, TokenIdentity, authenticate, create_token


@pytest.mark.parametrize("role", ROLES)
def test_a_token_stands_for_its_name_and_role(database: Database, role: str) -> None:
    token = create_token(database, "console", role)
    assert authenticate(database, token) == TokenIdentity("console", role)


def test_only_the_hash_is_stored(database: Database) -> None:
    token = create_token(database, "console", "viewer")
    with database.read() as session:
        row = session.scalars(select(ApiToken)).one()
        stored = [str(getattr(row, column.name)) for column in ApiToken.__table__.columns]
    assert row.token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert not any(token in value for value in stored)
    assert authenticate(database, row.token_sha256) is None


def test_anything_else_stands_for_nobody(database: Database) -> None:
    token = create_token(database, "console", "viewer")
    for wrong in ("", token[:-1], token + "x", token.swapcase(), "\x00", "ü", "\ud800", "' OR 1=1 --"):
        assert authenticate(database, wrong) is None


def test_a_name_is_taken_once_and_the_first_token_goes_on(database: Database) -> None:
    token = create_token(database, "console", "viewer")
    with pytest.raises(InvalidToken, match="already a token named 'console'"):
        create_token(database, "console", "administrator")
    assert authenticate(database, token) == TokenIdentity("console", "viewer")


@pytest.mark.parametrize(("name", "role"), [("console", "root"), ("console", ""), ("", "viewer"), (" \t", "viewer")])
def test_unusable_names_and_unknown_roles_are_refused(database: Database, name: str, role: str) -> None:
    with pytest.raises(InvalidToken):
        create_token(database, name, role)
