"""The worker process: closes what is complete, runs the workflow of each study, delivers what is due."""

import threading
from functools import partial
from typing import Any

import structlog

from node.settings import Settings
from node.workflow.assemble import assemble_step
from node.workflow.assess import assess_step
from node.workflow.completion import close_what_is_complete, completion_policy
from node.workflow.context import NodeContext
from node.workflow.deliver import deliver_step, delivery_failed
from node.workflow.detect import detect_step
from node.workflow.engine import JobEngine
from node.workflow.gate import gate_step
from node.workflow.report import report_step
from node.workflow.side_work import SideWork
from node.workflow.version import PIPELINE_VERSION
from storage.deliveries import due_deliveries
from storage.journal import record
from storage.models import utc_now
from storage.revisions import closed_revisions, fail, find_revision

log = structlog.get_logger()

STUDY = "study"
DELIVERY = "delivery"
STUDY_STEPS = (
    ("assemble", assemble_step),
    ("assess", assess_step),
    ("gate", gate_step),
    ("detect", detect_step),
    ("report", report_step),
)
SWEEP_INTERVAL_S = 0.5
DRAIN_S = 30
PARKED = "its processing kept stopping the worker; it is set aside until someone replays it"


class Worker:
    """Turns rows into work: the index says what is to do, the job engine does each thing to its end."""

    def __init__(self, settings: Settings, slot: str = "worker-0") -> None:
        self.context = NodeContext(settings)
        self._policy = completion_policy(settings.completion)
        self._submitted: set[str] = set()
        self._engine = JobEngine(settings.engine_url, slot, PIPELINE_VERSION)
        self._engine.define(
            STUDY, [(name, partial(step, self.context)) for name, step in STUDY_STEPS], self._study_failed
        )
        self._engine.define(
            DELIVERY,
            [("deliver", partial(deliver_step, self.context))],
            partial(delivery_failed, self.context),
            per_partition=True,
        )
        self._side_work = SideWork(self.context, self._engine)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then finish what is running."""
        self._engine.start()
        log.info("worker.started", pipeline_version=PIPELINE_VERSION)
        while not stop.wait(SWEEP_INTERVAL_S):
            self.sweep()
        self._engine.stop(DRAIN_S)
        self.context.database.dispose()
        log.info("worker.stopped")

    def sweep(self) -> None:
        """Close what is complete, submit what is closed, give up what is dead, deliver what is due.

        Workflow ids carry the pipeline version: after an upgrade the engine leaves workflows of the old version alone,
        and what they had not finished starts anew under the new one.
        """
        now = utc_now()
        close_what_is_complete(self.context, self._policy, now)
        self._side_work.sweep()
        with self.context.database.read() as session:
            studies = {
                f"{PIPELINE_VERSION}/study/{uid}/{number}": (uid, number) for uid, number in closed_revisions(session)
            }
            deliveries = {
                f"{PIPELINE_VERSION}/delivery/{d.study_instance_uid}/{d.revision}/{d.destination}/{d.attempt}": d
                for d in due_deliveries(session, now)
            }
        self._submitted &= studies.keys() | deliveries.keys()
        for workflow_id, key in studies.items():
            self._submit(STUDY, key, workflow_id)
        for workflow_id, due in deliveries.items():
            key_of_due = (due.study_instance_uid, due.revision, due.destination)
            self._submit(DELIVERY, key_of_due, workflow_id, partition=due.destination)
        for workflow_id in self._engine.dead([*studies, *deliveries]):
            if workflow_id in studies:
                self._study_failed(*studies[workflow_id], PARKED)
            else:
                due = deliveries[workflow_id]
                delivery_failed(self.context, due.study_instance_uid, due.revision, due.destination, PARKED)

    def _submit(self, workflow: str, key: tuple[Any, ...], workflow_id: str, partition: str | None = None) -> None:
        if workflow_id not in self._submitted:
            self._engine.submit(workflow, key, workflow_id, partition)
            self._submitted.add(workflow_id)

    def _study_failed(self, study_instance_uid: str, number: int, reason: str) -> None:
        with self.context.database.session() as session:
            fail(find_revision(session, study_instance_uid, number), reason, utc_now())
            record(session, "study-failed", reason, study_instance_uid, revision=number)
        log.error("study.failed", study_instance_uid=study_instance_uid, revision=number, reason=reason)
