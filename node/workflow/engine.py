"""The one adapter to the job engine (DBOS Transact): durable workflows made of named steps.

A workflow is a sequence of steps with a key. Each step is checkpointed: after a crash the workflow goes on with the
step that had not finished. A step may therefore run twice; it must be idempotent. SQLite in process by default,
PostgreSQL by URL. Nothing else in pacsgate imports the engine.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from node import telemetry

log = structlog.get_logger()

StepFunction = Callable[..., None]

MAX_RECOVERY_ATTEMPTS = 3
"""A workflow that kills its process this often is parked instead of killing it for ever."""


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
        per_partition: bool = False,
    ) -> None:
        """Define a workflow before ``start``. Each run of it has a key, which every step receives as its arguments.

        Args:
            name: name of the workflow and of its queue.
            steps: (name, function) in order; each function is idempotent.
            on_failure: called with the key and the reason when a step raises for good.
            per_partition: run one at a time within each partition, all partitions side by side; else one at a time.
        """
        durable_steps = [(step, _durable_step(f"{name}.{step}", function)) for step, function in steps]
        record_failure = _durable_step(f"{name}.failed", on_failure)

        @DBOS.workflow(name=name, max_recovery_attempts=MAX_RECOVERY_ATTEMPTS)
        def run(*key: Any) -> None:
            for step, function in durable_steps:
                try:
                    function(*key)
                except Exception as error:
                    log.exception("step.failed", step=f"{name}.{step}", key=key)
                    record_failure(*key, f"{step}: {error}")
                    raise

        limit = "partition_worker_concurrency" if per_partition else "worker_concurrency"
        self._queues[name] = {limit: 1, "polling_interval_sec": 0.25}
        self._workflows[name] = (name, run)

    def start(self) -> None:
        """Recover this slot's unfinished workflows and begin to work."""
        DBOS.launch()
        for name, limits in self._queues.items():
            DBOS.register_queue(name, on_conflict="always_update", **limits)

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

    def stop(self, drain_s: int) -> None:
        """Let running workflows finish for up to ``drain_s`` seconds, then let go; what remains is recovered later."""
        DBOS.destroy(workflow_completion_timeout_sec=drain_s)
        self._database.dispose()


def _durable_step(name: str, function: Callable[..., None]) -> Callable[..., None]:
    """A checkpointed step; a database or disk that is away for a moment is waited for."""

    def is_transient(error: BaseException) -> bool:
        return isinstance(error, OperationalError | ConnectionError)

    def announced(*key: Any) -> None:
        log.info("step.started", step=name, key=key)
        started, failed = time.monotonic(), True
        try:
            function(*key)
            failed = False
        finally:
            seconds = time.monotonic() - started
            telemetry.step_ended(name, seconds, failed=failed)
            log.info("step.ended", step=name, key=key, seconds=round(seconds, 3), failed=failed)

    return DBOS.step(name=name, retries_allowed=True, max_attempts=5, should_retry=is_transient)(announced)


def _create_engine(url: str) -> Engine:
    """The engine's database. On SQLite: write-ahead log, which is eight times faster than the engine's own choice."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=10)
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
