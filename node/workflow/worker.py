"""The worker process: closes what is complete, runs the workflow of each study, delivers what is due."""

import threading
import time
from functools import partial
from typing import Any

import structlog

from node.heartbeat import Heartbeat
from node.live_settings import LiveSettings
from node.routing.route import route_received
from node.settings import QueueName, Settings
from node.signs_of_life import SignOfLife
from node.workflow.assemble import assemble_step
from node.workflow.assess import assess_step
from node.workflow.completion import close_what_is_complete, completion_policy
from node.workflow.context import NodeContext
from node.workflow.deliver import deliver_step, delivery_failed, runs_due
from node.workflow.detect import detect_step
from node.workflow.engine import JobEngine, Successor
from node.workflow.gate import gate_step
from node.workflow.reaper import reap
from node.workflow.report import report_step
from node.workflow.side_work import SideWork, queues_beside
from node.workflow.version import PIPELINE_VERSION
from storage.executors import Identity, other_hosts
from storage.journal import record
from storage.models import ExecutorState, RevisionState, utc_now
from storage.revisions import closed_revisions, fail, find_revision

log = structlog.get_logger()

QUALITY, DETECTION, REPORT = "quality", "detection", "report"
"""The workflows of a study, one after the other. A shut gate goes from quality to report."""
DELIVERY = "delivery"
QUALITY_STEPS = (("assemble", assemble_step), ("assess", assess_step), ("gate", gate_step))
DETECTION_STEPS = (("detect", detect_step),)
REPORT_STEPS = (("report", report_step),)
STUDY_STEPS = (*QUALITY_STEPS, *DETECTION_STEPS, *REPORT_STEPS)
"""The way of a study in order."""
SWEEP_INTERVAL_S = 0.5
WAIT_LOG_S = 30.0
"""How often a worker that waits for another pipeline version says so."""
DRAIN_S = 30
DRAIN_ON_REQUEST_S = 3600
"""How long ``pacsgate drain`` lets a job go on: longer than any takes."""
PARKED = "its processing kept stopping the worker; it is set aside until someone replays it"


class Worker:
    """Turns rows into work: the index says what is to do, the job engine does each thing to its end.

    Args:
        settings: the node's.
        me: this process; its slot owns what it has in hand.
        heartbeat: says that we live, and what we are asked to do.
    """

    def __init__(self, settings: Settings | LiveSettings, me: Identity, heartbeat: Heartbeat) -> None:
        self.context = NodeContext(settings)
        self.context.journal_configuration_changes()
        settings = self.context.settings
        self._silent_s = settings.node.silent_after_s
        self._reap_interval_s = settings.node.heartbeat_interval_s
        self._reaped_at = time.monotonic()
        self._me, self._heartbeat = me, heartbeat
        self._submitted: set[str] = set()
        self._sign = SignOfLife(settings.data_dir, me.slot.rpartition("/")[2])
        self._engine = JobEngine(settings.engine_url, me.slot, PIPELINE_VERSION)
        heartbeat.jobs = lambda: self._engine.active
        self._define_workflows()

    def _define_workflows(self) -> None:
        for name, queue, steps, then in (
            (QUALITY, QueueName.QUALITY, QUALITY_STEPS, self._after_quality),
            (DETECTION, QueueName.GPU, DETECTION_STEPS, lambda *key: _run(REPORT, *key)),
            (REPORT, QueueName.QUALITY, REPORT_STEPS, None),
        ):
            bound = [(step, partial(function, self.context)) for step, function in steps]
            self._engine.define(name, bound, self._study_failed, queue=queue, subject="study", then=then)
        self._engine.define(
            DELIVERY,
            [("deliver", partial(deliver_step, self.context))],
            partial(delivery_failed, self.context),
            queue=QueueName.DELIVER,
            per_partition=True,
        )
        self._side_work = SideWork(self.context, self._engine)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then finish what is running; or drain when asked to, then wait."""
        self._wait_for_our_version(stop)
        self._engine.start([*self._me.queues, *queues_beside(self._me.queues)])
        self._warn_of_separate_objects()
        log.info("worker.started", pipeline_version=PIPELINE_VERSION, queues=self._me.queues)
        while not stop.wait(SWEEP_INTERVAL_S) and self._heartbeat.state is ExecutorState.RUNNING:
            self.sweep()
            self._reap_when_due()
            self._sign.give(pipeline_version=PIPELINE_VERSION)
        asked = self._heartbeat.state is ExecutorState.DRAINING and not stop.is_set()
        log.info("worker.draining", jobs=self._engine.active)
        self._engine.stop(DRAIN_ON_REQUEST_S if asked else DRAIN_S)
        self.context.decoder.close()
        self.context.database.dispose()
        if asked:
            self._rest(stop)
        log.info("worker.stopped")

    def _wait_for_our_version(self, stop: threading.Event) -> None:
        """One pipeline version at a time: two would judge the same study twice, under different UIDs."""
        said_at = 0.0
        while self._heartbeat.state is ExecutorState.WAITING and not stop.wait(SWEEP_INTERVAL_S):
            others = self._heartbeat.try_to_begin()
            if others and time.monotonic() - said_at > WAIT_LOG_S:
                said_at = time.monotonic()
                advice = "stop them, or run `pacsgate drain --all` with their version first"
                log.error("worker.other-version", pipeline_version=PIPELINE_VERSION, alive=others, advice=advice)

    def _warn_of_separate_objects(self) -> None:
        """Hosts that share an index must share objects, too. A folder may be mounted on both, so it is no error."""
        if self.context.settings.storage.objects_url:
            return
        with self.context.database.read() as session:
            others = other_hosts(session, self._me.host)
        if others:
            log.error("objects.not-shared", other_hosts=others, advice="set [storage] objects_url on all hosts")

    def _rest(self, stop: threading.Event) -> None:
        """Drained: do nothing until we are stopped, or asked to go on (the supervisor then starts us anew)."""
        self._heartbeat.drained()
        log.info("worker.drained")
        while not stop.wait(SWEEP_INTERVAL_S) and self._heartbeat.state is not ExecutorState.RUNNING:
            pass

    def _reap_when_due(self) -> None:
        now = time.monotonic()
        if self._heartbeat.steady and now - self._reaped_at >= self._reap_interval_s:
            self._reaped_at = now
            reap(self.context.database, self._engine, self._silent_s)

    def _after_quality(self, study_instance_uid: str, number: int) -> Successor:
        """A shut gate needs no GPU: its study does not wait for one, since someone waits for the verdict."""
        with self.context.database.read() as session:
            verdict = find_revision(session, study_instance_uid, number).verdict
            gate_open = verdict is not None and verdict.gate_open
        if gate_open:
            return _run(DETECTION, study_instance_uid, number)
        detect_step(self.context, study_instance_uid, number)
        return _run(REPORT, study_instance_uid, number)

    def sweep(self) -> None:
        """Close what is complete, submit what is closed, give up what is dead, deliver what is due.

        Workflow ids carry the pipeline version: after an upgrade the engine leaves workflows of the old version alone,
        and what they had not finished starts anew under the new one.
        """
        now = utc_now()
        settings = self.context.settings
        close_what_is_complete(self.context, completion_policy(settings.completion), now)
        route_received(self.context.database, settings, now)
        self._side_work.sweep()
        with self.context.database.read() as session:
            studies = closed_revisions(session)
            deliveries = runs_due(session)
        runs = {_run(name, *key).workflow_id: key for key in studies for name in (QUALITY, DETECTION, REPORT)}
        self._submitted &= runs.keys() | deliveries.keys()
        for key in studies:
            self._submit(QUALITY, key, _run(QUALITY, *key).workflow_id)
        for workflow_id, run in deliveries.items():
            self._submit(DELIVERY, (run.destination, run.turn), workflow_id, partition=run.destination)
        for workflow_id in self._engine.dead([*runs, *deliveries]):
            if workflow_id in runs:
                self._study_failed(*runs[workflow_id], PARKED)
            else:
                run = deliveries[workflow_id]
                delivery_failed(self.context, run.destination, run.turn, PARKED)

    def _submit(self, workflow: str, key: tuple[Any, ...], workflow_id: str, partition: str | None = None) -> None:
        if workflow_id not in self._submitted:
            self._engine.submit(workflow, key, workflow_id, partition)
            self._submitted.add(workflow_id)

    def _study_failed(self, study_instance_uid: str, number: int, reason: str) -> None:
        with self.context.database.session() as session:
            revision = find_revision(session, study_instance_uid, number, locked=True)
            if revision.state != RevisionState.CLOSED:
                return  # another worker has found the same and said so
            fail(revision, reason, utc_now())
            record(session, "study-failed", reason, study_instance_uid, revision=number)
        log.error("study.failed", study_instance_uid=study_instance_uid, revision=number, reason=reason)


def _run(workflow: str, *key: Any) -> Successor:
    """A workflow and the id of its one run for a key. The same id again changes nothing."""
    return Successor(workflow, "/".join(map(str, (PIPELINE_VERSION, workflow, *key))))
