"""The history of a study in sentences, in order of time."""

import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from node.history import duration_words
from node.studies import show_study
from storage.database import Database
from storage.ingest import Reception, ingest
from storage.journal import record
from storage.models import utc_now
from storage.objects import ObjectStore
from tests.fixtures.instances import mr_file


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (31, "31 s"), (320.5, "5 min 20 s"), (11_100, "3 h 5 min")],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


@pytest.fixture
def received(database: Database, tmp_path: Path) -> Database:
    """A study of two instances from one scanner, 31 s apart."""
    objects, now = ObjectStore(tmp_path / "objects"), utc_now() - timedelta(seconds=60)
    for number in (1, 2):
        path = mr_file(tmp_path, SOPInstanceUID=f"1.2.3.4.{number}", InstanceNumber=number)
        ingest(database, objects, path, Reception("MRSKYRA", "10.0.0.1", now + timedelta(seconds=31 * (number - 1))))
    return database


def test_what_happened_is_told_in_order(received: Database) -> None:
    with received.session() as session:
        record(session, "study-closed", "MPPS COMPLETED names 2 instances", "1.2.3", revision=1)
        record(session, "something-new", "a later version's event", "1.2.3")
        for event, status in (("delivery-failed", "refused (attempt 1, pending)"), ("delivered", "0x0000 (attempt 2)")):
            record(
                session,
                event,
                f"quality-report to pacs: {status}",
                "1.2.3",
                sop_instance_uid="1.9",
                destination="pacs",
            )
    lines = show_study(received, "1.2.3")["history"]
    texts = [line["text"] for line in lines]
    assert texts[0].startswith("received 2 instances (") or texts[1].startswith("received 2 instances (")
    assert any("MB) in 31 s from MRSKYRA, revision 1" in text for text in texts)
    assert texts[2:] == [
        "study closed: MPPS COMPLETED names 2 instances",
        "something new: a later version's event",
        "quality-report not delivered to pacs, try 1: refused (attempt 1, pending)",
        "quality-report delivered to pacs after 2 tries",
    ]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert lines[0]["since_previous_s"] is None
    assert all(line["since_previous_s"] >= 0 for line in lines[1:])


def test_a_message_with_braces_is_no_template(received: Database) -> None:
    with received.session() as session:
        record(session, "study-closed", "{revision} {0} {evil.__class__}", "1.2.3")
    assert "{revision} {0} {evil.__class__}" in show_study(received, "1.2.3")["history"][-1]["text"]


def test_the_history_can_be_followed(tmp_path: Path) -> None:
    from storage.database import sqlite_url

    database = Database(sqlite_url(tmp_path / "index.db"))
    database.migrate()
    ingest(database, ObjectStore(tmp_path / "objects"), mr_file(tmp_path), Reception("MR1", "10.0.0.1", utc_now()))
    follower = subprocess.Popen(
        [Path(sys.executable).parent / "pacsgate", "studies", "show", "1.2.3", "--follow", "--data-dir", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has Ctrl-C ignored, and so would have the program.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert follower.stdout is not None
    first = {follower.stdout.readline() for _ in range(2)}
    assert any("received 1 instance" in line for line in first)
    with database.session() as session:
        record(session, "study-closed", "silent for 10 s", "1.2.3", revision=1)
    assert "study closed: silent for 10 s" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    assert follower.wait(10) == 0
    assert follower.stdout.read() == ""
    database.dispose()
