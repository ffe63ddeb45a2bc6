"""The heartbeat of a process: a row in the index that says it lives, on which host, and what it is doing.

The work of a process whose row falls silent is taken over by others (node/workflow/reaper.py), so the row is written
by a thread of its own whatever the process is busy with.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node.settings import Settings
from node.workflow.version import PIPELINE_VERSION
from storage.database import Database
from storage.executors import Identity, SlotTaken, beat, begin_work, enrol, leave, mark_drained, other_versions
from storage.models import ExecutorState

log = structlog.get_logger()


def identify(settings: Settings, kind: str, slot: str, queues: tuple[str, ...] = ()) -> Identity:
    """The identity of this process: ``HOST/slot`` is its name in the index."""
    host = settings.host_name
    return Identity(f"{host}/{slot}", uuid.uuid4().hex, host, kind, os.getpid(), queues, PIPELINE_VERSION)


class Heartbeat:
    """Writes the row every ``interval_s`` from ``start`` to ``end``; a context manager over both.

    An index that does not answer is waited for: the process goes on and enters itself when it can.

    Args:
        settings: where the index is, and the two times.
        me: whom the row is about.
        stop: set when another process runs under our name; we must end.
        jobs: how many jobs the process is working on.
    """

    def __init__(
        self, settings: Settings, me: Identity, stop: threading.Event, jobs: Callable[[], int] = lambda: 0
    ) -> None:
        self.me = me
        self.jobs = jobs
        self._stop = stop
        self._interval_s = settings.node.heartbeat_interval_s
        self._silent_s = settings.node.silent_after_s
        self._database = Database(settings.database_url)
        self._state = ExecutorState.WAITING
        self._entered = False
        self._last_beat = self._steady_since = time.monotonic()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def state(self) -> ExecutorState:
        """What the index says this process is to do; `WAITING` until it is entered."""
        return self._state

    @property
    def steady(self) -> bool:
        """Whether the heartbeats of the last ``silent_after_s`` all arrived.

        Only then is the silence of others theirs, and not that of the database or our own.
        """
        now = time.monotonic()
        return now - self._last_beat < self._silent_s / 2 and now - self._steady_since >= self._silent_s

    def start(self) -> None:
        """Enter this process and keep saying that it lives."""
        self._beat()
        self._thread.start()

    def end(self) -> None:
        """Take this process off the list."""
        self._ending.set()
        self._thread.join(self._interval_s)
        try:
            with self._database.session() as session:
                leave(session, self.me)
        except SQLAlchemyError as error:
            log.warning("heartbeat.not-removed", slot=self.me.slot, reason=type(error).__name__)
        self._database.dispose()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def try_to_begin(self) -> list[str]:
        """From waiting to running; returns the workers of other pipeline versions that still have to finish."""
        if not self._entered:
            return []
        with self._lock, self._database.session() as session:
            if begin_work(session, self.me, self._silent_s):
                self._state = ExecutorState.RUNNING
                return []
            return other_versions(session, self.me, self._silent_s)

    def drained(self) -> None:
        """Everything this worker had begun is finished."""
        with self._lock:
            with self._database.session() as session:
                mark_drained(session, self.me)
            self._state = ExecutorState.DRAINED

    def _run(self) -> None:
        while not self._ending.wait(self._interval_s):
            with self._lock:
                self._beat()

    def _beat(self) -> None:
        try:
            with self._database.session() as session:
                state = beat(session, self.me, self.jobs()) if self._entered else None
                if state is None:
                    if self._entered:
                        log.warning("heartbeat.was-taken-for-dead", slot=self.me.slot)
                    state = enrol(session, self.me, self._silent_s)
        except SlotTaken as error:
            log.error("heartbeat.slot-taken", slot=self.me.slot, reason=str(error))
            self._ending.set()
            self._stop.set()
            return
        except SQLAlchemyError as error:
            log.warning("heartbeat.failed", slot=self.me.slot, reason=type(error).__name__)
            return
        now = time.monotonic()
        if now - self._last_beat > self._silent_s / 2:
            self._steady_since = now
        self._last_beat, self._state, self._entered = now, state, True
