"""The worker process: closes what is complete, runs the workflow of each study, delivers what is due."""

import threading
from functools import partial
from typing import Any

import structlog

from node.live_settings import LiveSettings
from node.routing.route import route_received
from node.settings import Settings
from node.signs_of_life import SignOfLife
from node.workflow.assemble import assemble_step
from node.workflow.assess import assess_step
from node.workflow.context import NodeContext
from node.workflow.deliver import deliver_step, delivery_failed, runs_due
from node.workflow.detect import detect_step
from node.workflow.engine import JobEngine
from node.workflow.gate import gate_step
from node.workflow.report import report_step
from node.workflow.version import PIPELINE_VERSION
from storage.completion import QuietTimes, close_quiet_series, close_quiet_studies
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

    def __init__(self, settings: Settings | LiveSettings, slot: str = "worker-0") -> None:
        self.context = NodeContext(settings)
        self.context.journal_configuration_changes()
        self._submitted: set[str] = set()
        self._sign = SignOfLife(self.context.settings.data_dir, slot)
        self._engine = JobEngine(self.context.settings.engine_url, slot, PIPELINE_VERSION)
        self._engine.define(
            STUDY, [(name, partial(step, self.context)) for name, step in STUDY_STEPS], self._study_failed
        )
        self._engine.define(
            DELIVERY,
            [("deliver", partial(deliver_step, self.context))],
            partial(delivery_failed, self.context),
            per_partition=True,
        )

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then finish what is running."""
        self._engine.start()
        log.info("worker.started", pipeline_version=PIPELINE_VERSION)
        while not stop.wait(SWEEP_INTERVAL_S):
            self.sweep()
            self._sign.give(pipeline_version=PIPELINE_VERSION)
        self._engine.stop(DRAIN_S)
        self.context.decoder.close()
        self.context.database.dispose()
        log.info("worker.stopped")

    def sweep(self) -> None:
        """Close what is quiet, submit what is complete, give up what is dead, deliver what is due.

        Workflow ids carry the pipeline version: after an upgrade the engine leaves workflows of the old version alone,
        and what they had not finished starts anew under the new one.
        """
        now = utc_now()
        settings = self.context.settings
        completion = settings.completion
        quiet = QuietTimes(completion.series_quiet_s, completion.study_quiet_s, completion.open_association_quiet_s)
        with self.context.database.session() as session:
            close_quiet_series(session, quiet, now)
            for closed in close_quiet_studies(session, quiet, now):
                log.info("study.closed", study_instance_uid=closed.study_instance_uid, reason=closed.reason)
        route_received(self.context.database, settings, now)
        with self.context.database.read() as session:
            studies = {
                f"{PIPELINE_VERSION}/study/{uid}/{number}": (uid, number) for uid, number in closed_revisions(session)
            }
            deliveries = runs_due(session)
        self._submitted &= studies.keys() | deliveries.keys()
        for workflow_id, key in studies.items():
            self._submit(STUDY, key, workflow_id)
        for workflow_id, run in deliveries.items():
            self._submit(DELIVERY, (run.destination, run.turn), workflow_id, partition=run.destination)
        for workflow_id in self._engine.dead([*studies, *deliveries]):
            if workflow_id in studies:
                self._study_failed(*studies[workflow_id], PARKED)
            else:
                run = deliveries[workflow_id]
                delivery_failed(self.context, run.destination, run.turn, PARKED)

    def _submit(self, workflow: str, key: tuple[Any, ...], workflow_id: str, partition: str | None = None) -> None:
        if workflow_id not in self._submitted:
            self._engine.submit(workflow, key, workflow_id, partition)
            self._submitted.add(workflow_id)

    def _study_failed(self, study_instance_uid: str, number: int, reason: str) -> None:
        with self.context.database.session() as session:
            fail(find_revision(session, study_instance_uid, number), reason, utc_now())
            record(session, "study-failed", reason, study_instance_uid, revision=number)
        log.error("study.failed", study_instance_uid=study_instance_uid, revision=number, reason=reason)
