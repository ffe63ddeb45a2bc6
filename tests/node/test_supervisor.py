"""The supervisor: what dies is started again, ever more slowly; SIGTERM drains; nothing outlives it."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from node import supervisor as module
from node.settings import load_settings
from node.supervisor import RESTART_WAITS_S, DataDirectoryInUse, Supervisor, prepare
from node.telemetry import host_registry
from tests.fixtures.dcmtk import free_port
from tests.fixtures.running_node import make_node, running_node

Logs = list[EventDict]

FOR_EVER = "while :; do sleep 0.05; done"


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a line of shell in the place of every child process."""

    def replace(line: str) -> None:
        script = tmp_path / "child"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return replace


@contextmanager
def supervised(folder: Path) -> Iterator[tuple[Supervisor, threading.Event, Logs]]:
    """A supervisor at work in a thread, until it is told to stop."""
    stop = threading.Event()
    settings = load_settings(storage={"data_dir": folder / "data"})
    with prepare(settings) as lock, capture_logs() as logs:
        supervisor = Supervisor(settings, None, lock)
        thread = threading.Thread(target=supervisor.run, args=(stop,))
        thread.start()
        try:
            yield supervisor, stop, logs
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()


def started(logs: Logs, slot: str) -> list[int]:
    return [entry["pid"] for entry in list(logs) if entry["event"] == "process.started" and entry["slot"] == slot]


def ready(folder: Path) -> int:
    """How many children have set their traps."""
    path = folder / "ready"
    return len(path.read_text().split()) if path.exists() else 0


def test_a_killed_child_is_started_again_and_the_others_go_on(tmp_path: Path, child: Callable[[str], None]) -> None:
    child("exec sleep 60")
    with supervised(tmp_path) as (supervisor, _, logs):
        slots = [entry.slot for entry in supervisor.children]
        assert slots == ["receiver-0", "indexer-0", "web-0", "worker-0"]
        wait_until(lambda: all(started(logs, slot) for slot in slots))
        (victim,) = started(logs, "worker-0")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(started(logs, "worker-0")) == 2)
        assert [len(started(logs, slot)) for slot in slots] == [1, 1, 1, 2]
        died = next(entry for entry in logs if entry["event"] == "process.died")
        assert (died["slot"], died["exit_code"]) == ("worker-0", -signal.SIGKILL)
    assert logs[-1]["event"] == "supervisor.stopped"
    pids = [pid for slot in slots for pid in started(logs, slot)]
    assert not any(map(runs, pids)), "nothing is left behind"


@pytest.mark.parametrize(
    ("sections", "slots"),
    [
        ({"node": {"roles": ["receiver"]}, "dicom": {"processes": 2}}, ["receiver-0", "receiver-1", "indexer-0"]),
        ({"node": {"roles": ["web", "worker"]}, "worker": {"processes": 2}}, ["web-0", "worker-0", "worker-1"]),
        ({"node": {"roles": ["worker"]}, "worker": {"gpu_processes": 1}}, ["worker-0", "gpu-worker-0"]),
        ({"node": {"roles": ["worker"]}, "worker": {"gpu_processes": 1, "queues": ["gpu"]}}, ["gpu-worker-0"]),
        ({"node": {"roles": ["worker"]}, "worker": {"gpu_processes": 1, "queues": ["quality"]}}, ["worker-0"]),
    ],
)
def test_a_host_runs_what_its_roles_ask_for(tmp_path: Path, sections: dict[str, Any], slots: list[str]) -> None:
    storage = {"data_dir": tmp_path, "database_url": "postgresql+psycopg://index.example/pacsgate"}
    settings = load_settings(storage=storage, **sections)
    assert [child.slot for child in Supervisor(settings, None, 0).children] == slots


def test_a_gpu_worker_only_detects_and_takes_that_off_the_others() -> None:
    worker = load_settings(worker={"gpu_processes": 1}).worker
    assert worker.queues_of("gpu-worker-0") == ("gpu",)
    assert worker.queues_of("worker-0") == ("quality", "deliver")
    assert load_settings().worker.queues_of("worker-0") == ("quality", "gpu", "deliver")


def test_what_keeps_dying_is_started_ever_more_slowly(
    tmp_path: Path, child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(RESTART_WAITS_S) == sorted(RESTART_WAITS_S)
    waits = (0.2, 0.5, 0.9)
    monkeypatch.setattr(module, "RESTART_WAITS_S", waits)
    child("exit 3")
    with supervised(tmp_path) as (_, _, logs):
        wait_until(lambda: len(started(logs, "web-0")) >= 5)
    died = [entry for entry in logs if entry["event"] == "process.died" and entry["slot"] == "web-0"]
    assert [entry["restart_in_s"] for entry in died[:4]] == [0.2, 0.5, 0.9, 0.9]
    assert {entry["exit_code"] for entry in died} == {3}


def test_a_planned_end_is_no_death(tmp_path: Path, child: Callable[[str], None]) -> None:
    child(f"trap 'exit 0' TERM\necho trapped >> {tmp_path}/ready\n{FOR_EVER}")
    with supervised(tmp_path) as (supervisor, _, logs):
        worker = next(entry for entry in supervisor.children if entry.slot == "worker-0")
        wait_until(lambda: ready(tmp_path) == 4)
        os.kill(started(logs, "worker-0")[0], signal.SIGTERM)
        wait_until(lambda: len(started(logs, "worker-0")) == 2)
        assert worker.sign_of_life()["restarts"] == 0
    ended = [entry for entry in logs if entry["event"] == "process.ended"]
    assert [(entry["slot"], entry["log_level"]) for entry in ended] == [("worker-0", "info")]
    assert not any(entry["event"] == "process.died" for entry in logs)


def test_a_child_that_has_proved_itself_is_forgiven(
    tmp_path: Path, child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STABLE_AFTER_S", 0.3)
    child("sleep 0.8; exit 1")
    with supervised(tmp_path) as (_, _, logs):
        wait_until(lambda: len(started(logs, "web-0")) >= 3)
    died = [entry for entry in logs if entry["event"] == "process.died" and entry["slot"] == "web-0"]
    assert {entry["restart_in_s"] for entry in died} == {RESTART_WAITS_S[0]}


def test_a_stop_waits_for_work_in_hand(tmp_path: Path, child: Callable[[str], None]) -> None:
    finish = f"finish() {{ sleep 0.5; echo done >> {tmp_path}/done; exit 0; }}\ntrap finish TERM"
    child(f"{finish}\necho trapped >> {tmp_path}/ready\n{FOR_EVER}")
    with supervised(tmp_path) as (_, stop, logs):
        wait_until(lambda: ready(tmp_path) == 4)
        stop.set()
    assert (tmp_path / "done").read_text().split() == 4 * ["done"]
    assert not any(entry["event"] == "process.killed" for entry in logs)


def test_what_does_not_stop_is_killed(
    tmp_path: Path, child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.3)
    child(f"trap '' TERM\necho trapped >> {tmp_path}/ready\n{FOR_EVER}")
    with supervised(tmp_path) as (_, stop, logs):
        wait_until(lambda: ready(tmp_path) == 4)
        stop.set()
    killed = [entry["pid"] for entry in logs if entry["event"] == "process.killed"]
    assert len(killed) == 4
    assert not any(map(runs, killed))


def test_a_second_node_on_the_same_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.2)
    settings = load_settings(storage={"data_dir": tmp_path / "data"})
    with prepare(settings), pytest.raises(DataDirectoryInUse, match="another node"), prepare(settings):
        pytest.fail("two nodes on one data directory")
    with prepare(settings) as lock:
        assert lock > 0


def test_children_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor alone: each child sees its standard input end, finishes and leaves."""
    with running_node(make_node(tmp_path, {})) as node:
        assert node.process is not None
        slots = ("receiver-0", "indexer-0", "web-0", "worker-0")
        wait_until(lambda: all(f'"slot": "{slot}"' in node.log.read_text() for slot in slots))
        pids = [node.pid_of(slot) for slot in slots]
        wait_until(lambda: '"worker.started"' in node.log.read_text(), 30)
        node.process.kill()
        node.process.wait(10)
        wait_until(lambda: not any(map(runs, pids)), 30)
        assert not node.listens()
        assert "Traceback" not in node.log.read_text()


def test_a_host_without_web_serves_its_counts_on_a_port_of_their_own(tmp_path: Path) -> None:
    """What its processes counted, and nothing of the index."""
    port = free_port()
    settings = load_settings(storage={"data_dir": tmp_path / "data"}, monitoring={"metrics_port": port})
    program = (
        "import sys; from pathlib import Path; from node import telemetry; telemetry.start(Path(sys.argv[1]), 'w-0')"
    )
    with prepare(settings) as lock:
        supervisor = Supervisor(settings, None, lock)
        supervisor._serve_metrics()
        subprocess.run([sys.executable, "-c", program, str(settings.data_dir)], check=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert "pacsgate_audit_messages_dropped_total 0.0" in text.splitlines()
    assert "pacsgate_studies" not in text
    with prepare(settings):
        assert not list(host_registry(settings.data_dir).collect()), "a new run counts from zero"
