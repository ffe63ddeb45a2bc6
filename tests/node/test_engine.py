"""The job engine's adapter: durable, idempotent, and a poison job does not kill the worker for ever."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    from node.workflow.engine import JobEngine

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


def test_a_job_that_keeps_killing_the_worker_is_parked(tmp_path: Path) -> None:
    journal, url = tmp_path / "journal", f"sqlite:///{tmp_path / 'engine.db'}"
    exits = [run(url, journal, "kill-always", "good") for _ in range(7)]
    assert exits[-1] == 0, exits
    lines = journal.read_text().splitlines()
    assert lines[-1] == "dead kill-always"
    assert "done good" in lines
