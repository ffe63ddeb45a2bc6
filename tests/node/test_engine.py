"""The job engine's adapter: durable, idempotent, and a poison job does not kill the worker for ever."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from node.workflow.engine import BACKOFF_RATE, FIRST_RETRY_S, MAX_ATTEMPTS

PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    from node.workflow.engine import JobEngine
    from storage.errors import ObjectStoreUnavailable

    url, journal, *keys = sys.argv[1:]

    def note(*words):
        with open(journal, "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    def first(key):
        note("first", key)

    def second(key):
        note("second", key)
        if key.startswith("kill") and not os.path.exists(journal + key):
            if key != "kill-always":
                open(journal + key, "w").close()
            os._exit(9)
        if key == "away":
            with open(journal + key, "a") as tries:
                tries.write("x")
            if os.path.getsize(journal + key) < 3:
                raise ObjectStoreUnavailable("the bucket is away")
        if key == "bad":
            raise ValueError("no good")
        note("done", key)

    engine = JobEngine(url, "slot", "1")
    engine.define("work", [("first", first), ("second", second)], lambda key, why: note("failed", key, why))
    engine.start()
    for key in keys:
        engine.submit("work", (key,), key)
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        lines = open(journal).read() if os.path.exists(journal) else ""
        dead = engine.dead(keys)
        if all(f"done {key}" in lines or key in dead for key in keys):
            break
        time.sleep(0.1)
    note("dead", *sorted(engine.dead(keys)))
    engine.stop(5)
    """
)

TWO_EXECUTORS = textwrap.dedent(
    """
    import sys, time
    from node.workflow.engine import JobEngine, Successor

    url, journal, me, task, *queues = sys.argv[1:]

    def note(*words):
        with open(journal, "a") as file:
            file.write(" ".join(map(str, (me, *words))) + "\\n")

    def step(name, seconds=0.0):
        def run(key):
            note("begins", name, key)
            time.sleep(seconds)
            note("ends", name, key)
        return name, run

    engine = JobEngine(url, me, "1")
    follow = lambda key: Successor("swift", "swift/" + key)
    # Long enough to be killed in, unless it is the one that goes on.
    steps = [step("one"), step("two", 2.0 if task == "submit" else 0.0)]
    engine.define("slow", steps, lambda key, why: note("failed", key, why), then=follow)
    engine.define("swift", [step("three")], lambda key, why: note("failed", key, why))
    engine.start(queues)
    if task == "submit":
        engine.submit("slow", ("job",), "slow/job")
    if task == "recover":
        note("owners", *sorted(engine.owners()))
        note("recovered", engine.recover(["first"]))
        note("recovered", engine.recover(["first"]))
    time.sleep(60)
    """
)


def run(url: str, journal: Path, *keys: str) -> int:
    command = [sys.executable, "-c", PROGRAM, url, str(journal), *keys]
    return subprocess.run(command, timeout=60, check=False, capture_output=True).returncode


@pytest.fixture(params=["sqlite", "postgresql"])
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'engine.db'}"
    return str(request.getfixturevalue("empty_postgresql_url"))


def test_a_killed_workflow_goes_on_with_the_step_that_had_not_finished(engine_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert run(engine_url, journal, "kill-once") == 9
    assert run(engine_url, journal, "kill-once") == 0
    lines = journal.read_text().splitlines()
    assert lines.count("first kill-once") == 1, "a finished step is not repeated"
    assert lines.count("done kill-once") == 1


def test_the_same_id_again_changes_nothing(engine_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert run(engine_url, journal, "once") == 0
    assert run(engine_url, journal, "once") == 0
    assert journal.read_text().splitlines().count("done once") == 1


def test_a_failed_step_is_reported_with_its_reason(engine_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert run(engine_url, journal, "bad", "good") == 0
    text = journal.read_text()
    assert "failed bad second: no good" in text
    assert "done good" in text
    assert text.splitlines()[-1] == "dead bad"


def test_an_object_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert run(f"sqlite:///{tmp_path / 'engine.db'}", journal, "away") == 0
    assert journal.read_text().splitlines() == ["first away", *3 * ["second away"], "done away", "dead"]


def test_the_waits_add_up_to_what_they_are_said_to() -> None:
    waits = [FIRST_RETRY_S * BACKOFF_RATE**attempt for attempt in range(MAX_ATTEMPTS - 1)]
    assert 14 * 60 < sum(waits) < 16 * 60


def start(url: str, journal: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", TWO_EXECUTORS, url, str(journal), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(journal: Path, line: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not (journal.exists() and line in journal.read_text().splitlines()):
        assert time.monotonic() < deadline, f"{line!r} is not in {journal.read_text() if journal.exists() else None!r}"
        time.sleep(0.05)


def test_the_work_of_a_dead_executor_moves_where_another_says_so(engine_url: str, tmp_path: Path) -> None:
    """The contract with the engine's internal recovery: unfinished steps only, the same queue, nothing twice."""
    journal = tmp_path / "journal"
    dying = start(engine_url, journal, "first", "submit", "slow")
    wait_for(journal, "first begins two job")
    dying.kill()
    dying.wait()
    living = start(engine_url, journal, "second", "recover", "slow", "swift")
    wait_for(journal, "second ends three job")
    living.kill()
    living.wait()
    lines = journal.read_text().splitlines()
    assert "second owners first" in lines
    assert "second recovered 1" in lines
    assert "second recovered 0" in lines, "once more changes nothing"
    assert "second begins one job" not in lines, "a finished step is not repeated"
    assert [line for line in lines if line.startswith("second ")].count("second ends two job") == 1


def test_a_process_works_on_its_queues_only(engine_url: str, tmp_path: Path) -> None:
    """The first stage runs where its queue is listened to, and hands over to the next stage on another queue."""
    journal = tmp_path / "journal"
    first = start(engine_url, journal, "first", "submit", "slow")
    wait_for(journal, "first ends two job")
    time.sleep(1)
    assert "first begins three job" not in journal.read_text()
    second = start(engine_url, journal, "second", "wait", "swift")
    wait_for(journal, "second ends three job")
    for process in (first, second):
        process.kill()
        process.wait()
    assert "second begins one job" not in journal.read_text()


def test_a_job_that_keeps_killing_the_worker_is_parked(tmp_path: Path) -> None:
    journal, url = tmp_path / "journal", f"sqlite:///{tmp_path / 'engine.db'}"
    exits = [run(url, journal, "kill-always", "good") for _ in range(7)]
    assert exits[-1] == 0, exits
    lines = journal.read_text().splitlines()
    assert lines[-1] == "dead kill-always"
    assert "done good" in lines
