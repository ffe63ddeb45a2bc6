"""The supervisor behind ``pacsgate up``: starts the node's processes, restarts what dies, drains on SIGTERM."""

import fcntl
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import structlog
from prometheus_client import start_http_server

from node import signs_of_life, telemetry
from node.objects import open_objects
from node.settings import Role, Settings
from storage.database import Database

log = structlog.get_logger()

DRAIN_S = 40.0
"""How long children may finish what they are doing before they are killed."""
RESTART_WAITS_S = (0.2, 1.0, 5.0, 15.0)
"""A process that keeps ending is restarted ever more slowly."""
STABLE_AFTER_S = 60.0
"""A process that has lived this long is forgiven its earlier ends."""
TEMPORARY_ORPHAN_AGE_S = 3600.0
"""Older temporary files of the object store belong to nobody."""


class DataDirectoryInUse(Exception):
    """Another node runs on this data directory; two would do the same work twice."""


@contextmanager
def prepare(settings: Settings) -> Iterator[int]:
    """Make the data directory ours for as long as the node runs: locked, migrated, cleared of a crash's leftovers.

    Yields the lock's file descriptor. The child processes hold it too, so that a supervisor that follows a killed one
    waits until the last child of its predecessor has let go.

    Raises:
        DataDirectoryInUse: another node holds it.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / "node.lock").open("w") as lock:
        _lock(lock.fileno(), settings.data_dir)
        database = Database(settings.database_url)
        database.migrate()
        database.dispose()
        open_objects(settings).sweep_temporary(TEMPORARY_ORPHAN_AGE_S)
        telemetry.clear(settings.data_dir)
        signs_of_life.clear(settings.data_dir)
        yield lock.fileno()


def _lock(descriptor: int, data_dir: Path) -> None:
    deadline = time.monotonic() + DRAIN_S
    warned = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise DataDirectoryInUse(f"another node is running on {data_dir}; stop it first") from error
        else:
            return
        if not warned:
            log.warning("data-directory.busy", data_dir=str(data_dir), waiting_up_to_s=DRAIN_S)
            warned = True
        time.sleep(0.2)


@dataclass
class Child:
    """One supervised process."""

    kind: str
    slot: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = field(default=0.0)
    ends: int = 0
    """Since it last proved itself, planned ones too: they say how soon it is started again."""
    deaths: int = 0
    """In all; a process that was asked to end, and did what it had to, has not died."""

    def sign_of_life(self) -> dict[str, Any]:
        """What health checks learn of it."""
        return {
            "slot": self.slot,
            "kind": self.kind,
            "running": self.process is not None,
            "pid": None if self.process is None else self.process.pid,
            "restarts": self.deaths,
        }


class Supervisor:
    """Keeps one process per slot alive. It holds no state of its own: everything that matters is in storage."""

    def __init__(self, settings: Settings, config_file: Path | None, lock: int) -> None:
        self._lock = lock
        self._settings = settings
        self._sign = signs_of_life.SignOfLife(settings.data_dir, "supervisor")
        self._environment = dict(os.environ, PACSGATE_STORAGE__DATA_DIR=str(settings.data_dir))
        if config_file is not None:
            self._environment["PACSGATE_CONFIG"] = str(config_file.absolute())
        self.children = [*_children(settings)]

    def run(self, stop: Event) -> None:
        """Supervise until ``stop`` is set, then drain."""
        self._serve_metrics()
        while not stop.wait(0.1):
            for child in self.children:
                self._tend(child)
            self._sign.give(children=[child.sign_of_life() for child in self.children])
        self._drain()

    def _serve_metrics(self) -> None:
        """This host's counts on a port of their own, for hosts that run no web process."""
        monitoring = self._settings.monitoring
        if monitoring.metrics_port is not None:
            registry = telemetry.host_registry(self._settings.data_dir)
            start_http_server(monitoring.metrics_port, monitoring.metrics_host, registry)
            log.info("metrics.listening", host=monitoring.metrics_host, port=monitoring.metrics_port)

    def _tend(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.restart_at:
                self._start(child, now)
            return
        code = child.process.poll()
        if code is None:
            if child.ends and now - child.started_at > STABLE_AFTER_S:
                child.ends = 0
            return
        wait_s = RESTART_WAITS_S[min(child.ends, len(RESTART_WAITS_S) - 1)]
        if code == 0:
            log.info("process.ended", slot=child.slot, restart_in_s=wait_s)
        else:
            log.error("process.died", slot=child.slot, exit_code=code, restart_in_s=wait_s)
            child.deaths += 1
        child.ends += 1
        child.process = None
        child.restart_at = now + wait_s

    def _start(self, child: Child, now: float) -> None:
        child.process = subprocess.Popen(
            [sys.executable, "-m", "node.process", child.kind, "--slot", child.slot],
            stdin=subprocess.PIPE,
            env=self._environment,
            pass_fds=(self._lock,),
        )
        child.started_at = now
        log.info("process.started", slot=child.slot, pid=child.process.pid)

    def _drain(self) -> None:
        """Ask all to finish; kill what does not in time (its work resumes at the next start)."""
        log.info("supervisor.draining")
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + DRAIN_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process.killed", pid=process.pid, reason=f"not finished after {DRAIN_S:g} s")
                process.kill()
                process.wait()
        log.info("supervisor.stopped")


def _children(settings: Settings) -> Iterator[Child]:
    """The processes that this host's roles ask for."""
    roles = settings.node.roles
    if Role.RECEIVER in roles:
        yield from (Child("receiver", f"receiver-{n}") for n in range(settings.dicom.processes))
        yield Child("indexer", "indexer-0")
    if Role.WEB in roles:
        yield Child("web", "web-0")
    if Role.WORKER not in roles:
        return
    if importlib.util.find_spec("scipy") is None:
        log.warning("worker.absent", reason="image processing is not installed: studies are received and wait")
        return
    yield from (Child("worker", slot) for slot in settings.worker.slots())
