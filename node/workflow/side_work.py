"""Work beside the way of a study: verdicts on single series, and storage commitment. Rows become workflows here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from node.settings import QueueName
from node.workflow.assess_series import assess_series_step, series_failed
from node.workflow.commitment import (
    redeliver_uncommitted,
    report_commitment_failed,
    report_commitment_step,
    request_commitment_failed,
    request_commitment_step,
)
from node.workflow.context import NodeContext
from node.workflow.engine import JobEngine
from node.workflow.version import PIPELINE_VERSION
from storage.commitment import due_reports
from storage.delivery_commitment import due_commitments
from storage.models import utc_now
from storage.series import closed_series

SERIES = "series"
COMMITMENT_REPORT = "commitment-report"
COMMITMENT_REQUEST = "commitment-request"
PARKED = "it kept stopping the worker"
_BESIDE = {QueueName.QUALITY: (SERIES,), QueueName.DELIVER: (COMMITMENT_REPORT, COMMITMENT_REQUEST)}
"""Queues of their own, so that a series' verdict waits for no study; worked on by those who work on these queues."""


def queues_beside(queues: Iterable[str]) -> list[str]:
    """The queues of side work that a worker of ``queues`` works on as well."""
    return [beside for queue in queues for beside in _BESIDE.get(QueueName(queue), ())]


@dataclass(frozen=True)
class _Job:
    """One run of a workflow: its key, the partition it waits in, and what to do if it is dead."""

    workflow: str
    key: tuple[Any, ...]
    partition: str | None
    give_up: Callable[..., None]


class SideWork:
    """Defines its workflows with the engine, before it starts, and submits what is due at each sweep."""

    def __init__(self, context: NodeContext, engine: JobEngine) -> None:
        self._context = context
        self._engine = engine
        self._submitted: set[str] = set()
        engine.define(SERIES, [("assess", partial(assess_series_step, context))], partial(series_failed, context))
        engine.define(
            COMMITMENT_REPORT,
            [("report", partial(report_commitment_step, context))],
            partial(report_commitment_failed, context),
            per_partition=True,
        )
        engine.define(
            COMMITMENT_REQUEST,
            [("request", partial(request_commitment_step, context))],
            partial(request_commitment_failed, context),
            per_partition=True,
        )

    def sweep(self) -> None:
        """Submit what is due, give up what is dead. Studies are to be closed before: they judge their series then."""
        redeliver_uncommitted(self._context)
        jobs = self._due()
        self._submitted &= jobs.keys()
        for workflow_id, job in jobs.items():
            if workflow_id not in self._submitted:
                self._engine.submit(job.workflow, job.key, workflow_id, job.partition)
                self._submitted.add(workflow_id)
        for workflow_id in self._engine.dead(list(jobs)):
            jobs[workflow_id].give_up(*jobs[workflow_id].key, PARKED)

    def _due(self) -> dict[str, _Job]:
        """Workflow id -> job. The ids carry the pipeline version, like those of studies."""
        now = utc_now()
        with self._context.database.read() as session:
            series, reports = closed_series(session, PIPELINE_VERSION), due_reports(session, now)
            requests = due_commitments(session, now)
        failed = (
            partial(series_failed, self._context),
            partial(report_commitment_failed, self._context),
            partial(request_commitment_failed, self._context),
        )
        jobs = [_Job(SERIES, key, None, failed[0]) for key in series]
        jobs += [
            _Job(COMMITMENT_REPORT, (r.request_id, r.calling_ae_title, r.attempt), r.calling_ae_title, failed[1])
            for r in reports
        ]
        jobs += [_Job(COMMITMENT_REQUEST, (r.destination, r.attempt), r.destination, failed[2]) for r in requests]
        return {"/".join(map(str, (PIPELINE_VERSION, job.workflow, *job.key))): job for job in jobs}
