"""Prepared statements give what SQLAlchemy's own execution gives, on both databases."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from storage.database import Database
from storage.models import JournalEntry, Patient
from storage.prepared import Prepared

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ADD_PATIENT = Prepared(
    insert(Patient)
    .values(
        patient_id=bindparam("id"),
        patient_name=bindparam("name"),
        **dict.fromkeys(("issuer_of_patient_id", "patient_birth_date", "patient_sex"), ""),
    )
    .returning(Patient.id)
)
FIND_PATIENT = Prepared(select(Patient.id, Patient.patient_name).where(Patient.patient_id == bindparam("id")))
RENAME = Prepared(update(Patient).where(Patient.patient_id == bindparam("id")).values(patient_name=bindparam("name")))
ADD_ENTRY = Prepared(
    insert(JournalEntry).values(
        at=bindparam("at", type_=JournalEntry.at.type),
        event=bindparam("event"),
        study_instance_uid="1.2",
        message="",
        detail=bindparam("detail", type_=JournalEntry.detail.type),
    )
)


def test_rows_of_queries_and_of_returning(database: Database) -> None:
    with database.transaction() as connection:
        ((row_id,),) = ADD_PATIENT(connection, id="P'1; --", name="Dœ^Jané%s:x")
        assert FIND_PATIENT(connection, id="P'1; --") == [(row_id, "Dœ^Jané%s:x")]
        assert FIND_PATIENT(connection, id="P2") == []
        assert RENAME(connection, id="P'1; --", name="Roe") == []
    with database.read() as session:
        assert session.scalars(select(Patient.patient_name)).all() == ["Roe"]


def test_values_are_converted_as_their_columns_say(database: Database) -> None:
    """Times to UTC, mappings to JSON: read back through SQLAlchemy they are what they were."""
    detail = {"patient": None, "numbers": [1, 2.5], "text": "ä\\"}
    with database.transaction() as connection:
        ADD_ENTRY(connection, at=NOON.astimezone(timezone(timedelta(hours=5))), event="e", detail=detail)
    with database.read() as session:
        entry = session.scalars(select(JournalEntry)).one()
        assert (entry.at, entry.event, entry.detail) == (NOON, "e", detail)


def test_a_naive_time_is_refused(database: Database) -> None:
    with database.transaction() as connection, pytest.raises(ValueError, match="time zone"):
        ADD_ENTRY(connection, at=datetime(2026, 11, 24), event="e", detail={})


def test_the_transaction_is_the_callers(database: Database) -> None:
    def add_and_fail() -> None:
        with database.transaction() as connection:
            ADD_PATIENT(connection, id="P1", name="Doe")
            raise LookupError

    with pytest.raises(LookupError):
        add_and_fail()
    with database.read() as session:
        assert session.scalars(select(Patient.id)).all() == []


def test_what_the_database_refuses_is_an_error_without_values(database: Database) -> None:
    with database.transaction() as connection:
        ADD_PATIENT(connection, id="P1", name="Doe")
    with pytest.raises(DBAPIError) as refusal, database.transaction() as connection:
        ADD_PATIENT(connection, id="P1", name="Doe")
    assert "Doe" not in str(refusal.value).partition("DETAIL")[0]
    with database.transaction() as connection:  # the connection went back whole
        assert len(FIND_PATIENT(connection, id="P1")) == 1
