"""What operators see and ask of the processes of all hosts, for the command line and the web."""

from typing import Any

from storage.database import Database
from storage.executors import list_executors, set_draining
from storage.journal import record
from storage.models import Executor, ExecutorState


def describe_executors(database: Database) -> list[dict[str, Any]]:
    """Every process with its state and the seconds since its last heartbeat, by slot."""
    with database.read() as session:
        return [_describe(executor, silent_s) for executor, silent_s in list_executors(session)]


def ask_to_drain(database: Database, host: str | None) -> int:
    """Ask the workers of a host (None: of all) to finish and take nothing new; returns how many were not at it yet."""
    with database.session() as session:
        asked = set_draining(session, host, True)
        record(session, "drain-asked", f"{asked} worker(s) of {host or 'all hosts'} asked to finish", host=host)
        return asked


def ask_to_resume(database: Database, host: str | None) -> int:
    """Ask drained or draining workers to take work again; returns how many."""
    with database.session() as session:
        asked = set_draining(session, host, False)
        record(session, "drain-ended", f"{asked} worker(s) of {host or 'all hosts'} may take work again", host=host)
        return asked


def still_at_work(database: Database, host: str | None, silent_s: float) -> list[dict[str, Any]]:
    """The live workers of a host (None: of all) that are not drained yet.

    A dead one is not waited for: what it had in hand goes to a living host, or waits for the next start.
    """
    with database.read() as session:
        return [
            _describe(executor, silent)
            for executor, silent in list_executors(session)
            if executor.kind == "worker"
            and host in (None, executor.host)
            and executor.state != ExecutorState.DRAINED
            and silent <= silent_s
        ]


def _describe(executor: Executor, silent_s: float) -> dict[str, Any]:
    return {
        "slot": executor.slot,
        "host": executor.host,
        "kind": executor.kind,
        "pid": executor.pid,
        "state": executor.state,
        "jobs": executor.jobs,
        "queues": list(executor.queues),
        "pipeline_version": executor.pipeline_version,
        "started_at": executor.started_at.isoformat(),
        "silent_s": round(silent_s, 1),
    }
