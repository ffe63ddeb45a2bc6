"""Metrics for Prometheus: gauges read from the index at each scrape, thus true for all processes at once."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from node.studies import node_status
from storage.database import Database

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class IndexCollector(Collector):
    """Counts of the index as gauges. No label ever carries a patient's or a study's identity."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the index once per scrape."""
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


def scrape(database: Database) -> bytes:
    """The node's metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(IndexCollector(database))
    return generate_latest(registry)
