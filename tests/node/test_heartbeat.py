"""The heartbeat of a process: it waits for the index, returns after being taken for dead, ends for a twin."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.heartbeat import Heartbeat, identify
from node.hosts import ask_to_drain, ask_to_resume, describe_executors, still_at_work
from node.settings import Settings, load_settings
from storage.database import Database
from storage.executors import Identity, enrol, leave
from storage.models import ExecutorState

SILENT_S = 0.7


def wait_until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        storage={"data_dir": tmp_path, "database_url": database_url},
        node={"host_name": "here", "heartbeat_interval_s": 0.2, "silent_after_s": SILENT_S},
    )


def worker(settings: Settings) -> Identity:
    return identify(settings, "worker", "worker-0", ("quality",))


def test_it_beats_reports_and_leaves(settings: Settings, database: Database) -> None:
    with Heartbeat(settings, worker(settings), threading.Event(), lambda: 2) as heartbeat:
        assert heartbeat.state is ExecutorState.RUNNING
        assert not heartbeat.steady, "it has not proved itself yet"
        wait_until(lambda: heartbeat.steady)
        (row,) = describe_executors(database)
        assert (row["slot"], row["host"], row["jobs"], row["queues"]) == ("here/worker-0", "here", 2, ["quality"])
        # SQLite's clock has whole seconds.
        assert row["silent_s"] <= 1.2
    assert describe_executors(database) == []


def test_taken_for_dead_it_enters_itself_again(settings: Settings, database: Database) -> None:
    me = worker(settings)
    with capture_logs() as logs, Heartbeat(settings, me, threading.Event()):
        with database.session() as session:
            leave(session, me)
        wait_until(lambda: bool(describe_executors(database)))
    assert "heartbeat.was-taken-for-dead" in {entry["event"] for entry in logs}


def test_it_ends_for_a_twin(settings: Settings, database: Database) -> None:
    stop, me = threading.Event(), worker(settings)
    twin = replace(me, run_id="f" * 32, pid=me.pid + 1)
    with capture_logs() as logs, Heartbeat(settings, me, stop):
        with database.session() as session:
            enrol(session, twin, SILENT_S)
        assert stop.wait(10)
    assert [row["pid"] for row in describe_executors(database)] == [twin.pid]
    assert any("host_name" in str(entry.get("reason")) for entry in logs)


def test_it_is_told_to_drain_and_to_go_on(settings: Settings, database: Database) -> None:
    with Heartbeat(settings, worker(settings), threading.Event()) as heartbeat:
        assert ask_to_drain(database, "elsewhere") == 0
        assert ask_to_drain(database, "here") == 1
        wait_until(lambda: heartbeat.state is ExecutorState.DRAINING)
        assert [row["slot"] for row in still_at_work(database, None, 60)] == ["here/worker-0"]
        heartbeat.drained()
        assert still_at_work(database, None, 60) == []
        assert ask_to_resume(database, None) == 1
        wait_until(lambda: heartbeat.state is ExecutorState.RUNNING)


def test_after_silence_of_its_own_it_accuses_nobody(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that was away silenced everybody: the others may come back a moment after us."""
    with Heartbeat(settings, worker(settings), threading.Event()) as heartbeat:
        wait_until(lambda: heartbeat.steady)
        monkeypatch.setattr(heartbeat, "_beat", lambda: None)
        wait_until(lambda: not heartbeat.steady)
        monkeypatch.undo()
        time.sleep(0.3)
        assert not heartbeat.steady
        wait_until(lambda: heartbeat.steady)


def test_an_index_that_is_away_is_waited_for(tmp_path: Path) -> None:
    settings = load_settings(
        storage={"data_dir": tmp_path, "database_url": f"sqlite:///{tmp_path / 'index.db'}"},
        node={"heartbeat_interval_s": 0.2, "silent_after_s": SILENT_S},
    )
    with Heartbeat(settings, worker(settings), threading.Event()) as heartbeat:
        assert heartbeat.state is ExecutorState.WAITING
        assert heartbeat.try_to_begin() == []
        database = Database(settings.database_url)
        database.migrate()
        wait_until(lambda: heartbeat.state is ExecutorState.RUNNING)
        database.dispose()
