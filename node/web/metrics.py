"""Metrics for Prometheus: what this host's processes counted, and gauges read from the index at each scrape."""

import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from node.health import Component, HealthProbe, State, destination_states
from node.settings import Settings
from node.studies import node_status
from node.telemetry import host_registry
from storage.database import Database
from storage.errors import StorageError
from storage.models import SeriesAssessmentRow, StudyVerdict

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S: Final = 1.0
"""Scrapes that come faster get the same answer: the gauges cost the index some counting."""
_VALUE_OF_STATE: Final[dict[State, float]] = {"ok": 1, "unknown": 0.5, "degraded": 0.5, "down": 0}


class IndexCollector(Collector):
    """Counts of the index as gauges, the same on every host. No label carries a patient's or a study's identity."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Read the index once per scrape; nothing of it when it does not answer, which the components tell."""
        try:
            yield from [*self._counts(), *self._destinations(), *self._verdicts()]
        except (SQLAlchemyError, StorageError):
            yield GaugeMetricFamily("pacsgate_index_answers", "Whether the index could be read", value=0)
        else:
            yield GaugeMetricFamily("pacsgate_index_answers", "Whether the index could be read", value=1)

    def _counts(self) -> Iterator[Metric]:
        status = node_status(self._database)
        for name, meaning in (
            ("studies", "Studies in the index"),
            ("instances", "Instances in the index"),
            ("open_associations", "DICOM associations open now"),
        ):
            yield GaugeMetricFamily(f"pacsgate_{name}", meaning, value=status[name])
        revisions = GaugeMetricFamily("pacsgate_study_revisions", "Study revisions by state", labels=["state"])
        for state, count in status["revisions"].items():
            revisions.add_metric([state], count)
        yield revisions
        deliveries = GaugeMetricFamily(
            "pacsgate_deliveries", "Deliveries by destination and state", labels=["destination", "state"]
        )
        for entry in status["deliveries"]:
            deliveries.add_metric([entry["destination"], entry["state"]], entry["count"])
        yield deliveries

    def _destinations(self) -> Iterator[Metric]:
        labels = ["destination"]
        oldest = GaugeMetricFamily(
            "pacsgate_delivery_oldest_pending_seconds", "Age of the oldest undelivered object, 0: none", labels=labels
        )
        last = GaugeMetricFamily(
            "pacsgate_delivery_last_success_seconds", "Time since the last delivery, absent: never", labels=labels
        )
        given_up = GaugeMetricFamily(
            "pacsgate_deliveries_given_up", "Deliveries that were given up and wait for a replay", labels=labels
        )
        with self._database.read() as session:
            names = tuple(destination.name for destination in self._settings.destinations)
            for state in destination_states(session, names):
                oldest.add_metric([state.name], state.oldest_pending_s or 0)
                given_up.add_metric([state.name], state.failed)
                if state.last_success_s is not None:
                    last.add_metric([state.name], state.last_success_s)
        yield from (oldest, last, given_up)

    def _verdicts(self) -> Iterator[Metric]:
        series = GaugeMetricFamily(
            "pacsgate_series_verdicts", "Assessed series by role and verdict", labels=["role", "verdict"]
        )
        gates = GaugeMetricFamily("pacsgate_gates", "Judged study revisions by the gate's decision", labels=["open"])
        row = SeriesAssessmentRow
        with self._database.read() as session:
            for role, verdict, count in session.execute(
                select(row.role, row.verdict, func.count()).group_by(row.role, row.verdict)
            ):
                series.add_metric([role, verdict], count)
            for is_open, count in session.execute(
                select(StudyVerdict.gate_open, func.count()).group_by(StudyVerdict.gate_open)
            ):
                gates.add_metric(["true" if is_open else "false"], count)
        yield from (series, gates)


class HostCollector(Collector):
    """This host's components as gauges: the same looks as those of ``/readyz``."""

    def __init__(self, probe: HealthProbe) -> None:
        self._probe = probe

    def collect(self) -> Iterator[Metric]:
        """1 is well, 0.5 is limping or unknown, 0 is down."""
        health = self._probe.look()
        yield GaugeMetricFamily("pacsgate_ready", "Whether this host can serve", value=float(health.ready))
        components = GaugeMetricFamily(
            "pacsgate_component", "State of a component: 1 ok, 0.5 degraded, 0 down", labels=["component"]
        )
        for kind, state in health.terse()["components"].items():
            components.add_metric([kind], _VALUE_OF_STATE[state])
        yield components
        for component in health.components:
            yield from _figures(component)
        build = GaugeMetricFamily("pacsgate_build_info", "Version of this node", labels=["version"])
        build.add_metric([version("pacsgate")], 1)
        yield build


def _figures(component: Component) -> Iterator[Metric]:
    figures = component.figures
    if component.kind == "disk":
        for name, meaning in (
            ("free_bytes", "Free space of the data volume"),
            ("size_bytes", "Size of the data volume"),
            ("minimum_free_bytes", "Below this much free space instances are refused"),
        ):
            yield GaugeMetricFamily(f"pacsgate_disk_{name}", meaning, value=figures[name])
    elif component.kind == "queue":
        yield GaugeMetricFamily(
            "pacsgate_queue_studies", "Complete studies that are not finished", value=figures["studies"]
        )
        yield GaugeMetricFamily(
            "pacsgate_queue_oldest_seconds", "Age of the oldest of them, 0: none", value=figures["oldest_s"] or 0
        )
    elif "restarts" in figures:
        running = GaugeMetricFamily("pacsgate_processes_running", "Processes that run", labels=["kind"])
        running.add_metric([component.kind], figures["running"])
        restarts = CounterMetricFamily("pacsgate_process_restarts", "Restarts of died processes", labels=["kind"])
        restarts.add_metric([component.kind], figures["restarts"])
        yield from (running, restarts)


class Scrape:
    """The node's metrics in Prometheus' text format."""

    def __init__(self, settings: Settings, database: Database, probe: HealthProbe) -> None:
        self._settings = settings
        self._gauges = CollectorRegistry()
        self._gauges.register(IndexCollector(settings, database))
        self._gauges.register(HostCollector(probe))
        self._lock = threading.Lock()
        self._last = (-FRESH_S, b"")

    def text(self) -> bytes:
        """All metrics, at most ``FRESH_S`` old."""
        with self._lock:
            if time.monotonic() - self._last[0] > FRESH_S:
                counted = generate_latest(host_registry(self._settings.data_dir))
                self._last = (time.monotonic(), counted + generate_latest(self._gauges))
            return self._last[1]
