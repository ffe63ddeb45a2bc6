"""The one adapter to the job engine (DBOS Transact): durable workflows made of named steps.

A workflow is a sequence of steps with a key; it waits in a queue, and a process works on the queues it is told to. Each
step is checkpointed: after a crash the workflow goes on with the step that had not finished. A step may therefore run
twice; it must be idempotent. What a dead process had in hand moves when a living one says so (`JobEngine.recover`).
SQLite in process by default, PostgreSQL by URL. Nothing else in pacsgate imports the engine.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import structlog
from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from node import telemetry
from storage.errors import ObjectStoreUnavailable
from storage.postgresql import CONNECT_ARGUMENTS

log = structlog.get_logger()

Outcome = TypeVar("Outcome")

StepFunction = Callable[..., None]


class Successor(NamedTuple):
    """The workflow that goes on with the same key: its name and the id of its run."""

    workflow: str
    workflow_id: str


MAX_RECOVERY_ATTEMPTS = 3
"""A workflow that kills its process this often is parked instead of killing it for ever."""
FIRST_RETRY_S, BACKOFF_RATE, MAX_ATTEMPTS = 1.0, 1.5, 16
"""A step whose database or object store is away: the sixteenth attempt comes 15 minutes after the first."""


class JobEngine:
    """Durable workflows. One per process: the engine behind it is a process-wide singleton.

    Args:
        url: SQLAlchemy URL of the engine's own tables (a SQLite file of its own, or the index's PostgreSQL).
        executor_id: fixed name of this worker slot; after a restart the slot recovers its own unfinished workflows.
        version: pipeline version; workflows of another version are left alone.
    """

    def __init__(self, url: str, executor_id: str, version: str) -> None:
        self._quiet_the_engine()
        self._database = _create_engine(url)
        self._version = version
        self._active = 0
        self._lock = threading.Lock()
        self._queues: dict[str, dict[str, Any]] = {}
        self._workflows: dict[str, tuple[str, StepFunction]] = {}
        config = DBOSConfig(
            name="pacsgate",
            system_database_url=url,
            system_database_engine=self._database,
            executor_id=executor_id,
            application_version=version,
            log_level="ERROR",
            notification_listener_polling_interval_sec=0.5,
        )
        DBOS(config=config)

    @staticmethod
    def _quiet_the_engine() -> None:
        """At INFO it advertises; its errors reach us as exceptions and workflow states."""
        logging.getLogger("dbos").setLevel(logging.ERROR)

    def define(
        self,
        name: str,
        steps: Sequence[tuple[str, StepFunction]],
        on_failure: Callable[..., None],
        *,
        queue: str | None = None,
        subject: str | None = None,
        then: Callable[..., Successor | None] | None = None,
        per_partition: bool = False,
    ) -> None:
        """Define a workflow before ``start``. Each run of it has a key, which every step receives as its arguments.

        Args:
            name: name of the workflow.
            steps: (name, function) in order; each function is idempotent.
            on_failure: called with the key and the reason when a step raises for good.
            queue: the queue it waits in; workflows may share one. Default: a queue of its name.
            subject: what its steps are called after; default its name. Logs say ``subject.step``.
            then: called with the key after the last step, as one more step; the workflow it names is enqueued.
            per_partition: run one at a time within each partition, all partitions side by side; else one at a time.
        """
        called = subject or name
        durable_steps = [(step, _durable_step(f"{called}.{step}", function)) for step, function in steps]
        record_failure = _durable_step(f"{called}.failed", on_failure)
        find_successor = _durable_step(f"{called}.after-{name}", then) if then is not None else None

        def follow(key: tuple[Any, ...]) -> None:
            successor = find_successor(*key) if find_successor is not None else None
            if successor is not None:
                workflow, workflow_id = successor
                self.submit(workflow, key, workflow_id)

        @DBOS.workflow(name=name, max_recovery_attempts=MAX_RECOVERY_ATTEMPTS)
        def run(*key: Any) -> None:
            with self._counted():
                for step, function in [*durable_steps, ("after", lambda *of: follow(of))]:
                    try:
                        function(*key)
                    except Exception as error:
                        log.exception("step.failed", step=f"{called}.{step}", key=key)
                        record_failure(*key, f"{step}: {error}")
                        raise

        waits_in = queue or name
        limit = "partition_worker_concurrency" if per_partition else "worker_concurrency"
        self._queues[waits_in] = {limit: 1, "polling_interval_sec": 0.25}
        self._workflows[name] = (waits_in, run)

    def start(self, queues: Sequence[str] | None = None) -> None:
        """Recover this slot's unfinished workflows and begin to work on ``queues`` (default: all that were defined)."""
        DBOS.listen_queues(list(self._queues if queues is None else queues))
        DBOS.launch()
        for name, limits in self._queues.items():
            DBOS.register_queue(name, on_conflict="always_update", **limits)

    @property
    def active(self) -> int:
        """How many workflows this process is working on."""
        return self._active

    def owners(self) -> set[str]:
        """The executor ids that have workflows of this version in hand, alive or dead."""
        begun = DBOS.list_workflows(
            status="PENDING", app_version=self._version, queues_only=True, load_input=False, load_output=False
        )
        return {status.executor_id for status in begun if status.executor_id}

    def recover(self, executor_ids: Sequence[str]) -> int:
        """Put what dead executors had in hand back into its queues; returns how many workflows.

        Each keeps its queue, its count of attempts and its finished steps. Several callers at once do no harm: what a
        living executor has taken meanwhile is no longer the dead one's.
        """
        # Not the public resume_workflows: it clears the attempts, so a workflow that kills its host would go round.
        return len(DBOS._recover_pending_workflows(list(executor_ids)))

    def submit(self, name: str, key: Sequence[Any], workflow_id: str, partition: str | None = None) -> None:
        """Enqueue a run of a workflow. The same ``workflow_id`` a second time changes nothing."""
        queue, function = self._workflows[name]
        with SetWorkflowID(workflow_id), SetEnqueueOptions(queue_partition_key=partition):
            DBOS.enqueue_workflow(queue, function, *key)

    def dead(self, workflow_ids: Sequence[str]) -> list[str]:
        """Which of these workflows have ended in error or are parked because they kept killing their process."""
        if not workflow_ids:
            return []
        ended = DBOS.list_workflows(
            workflow_ids=list(workflow_ids),
            status=["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
            load_input=False,
            load_output=False,
        )
        return [status.workflow_id for status in ended]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1

    def stop(self, drain_s: int) -> None:
        """Let running workflows finish for up to ``drain_s`` seconds, then let go; what remains is recovered later."""
        DBOS.destroy(workflow_completion_timeout_sec=drain_s)
        self._database.dispose()


def _durable_step(name: str, function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """A checkpointed step; a database or object store that is away is waited for, a quarter of an hour in all."""

    def is_transient(error: BaseException) -> bool:
        return isinstance(error, OperationalError | ConnectionError | ObjectStoreUnavailable)

    def announced(*key: Any) -> Outcome:
        log.info("step.started", step=name, key=key)
        started, failed = time.monotonic(), True
        try:
            outcome = function(*key)
            failed = False
        finally:
            seconds = time.monotonic() - started
            telemetry.step_ended(name, seconds, failed=failed)
            log.info("step.ended", step=name, key=key, seconds=round(seconds, 3), failed=failed)
        return outcome

    return DBOS.step(
        name=name,
        retries_allowed=True,
        interval_seconds=FIRST_RETRY_S,
        backoff_rate=BACKOFF_RATE,
        max_attempts=MAX_ATTEMPTS,
        should_retry=is_transient,
    )(announced)


def _create_engine(url: str) -> Engine:
    """The engine's database. On SQLite: write-ahead log, which is eight times faster than the engine's own choice."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=10, connect_args=CONNECT_ARGUMENTS)
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
