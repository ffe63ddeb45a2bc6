"""What the node's processes count and time, for Prometheus: one small function per event, called where it happens.

Every process of a host writes into files of its own under ``data_dir/metrics`` (the multi-process mode of
prometheus_client, memory-mapped: an event costs some microseconds and no system call), and whichever process is asked
adds them up. The files carry the slot's name, not a process id: a restarted process counts on where it stopped.

Labels are a closed set: peers and destinations by the names in the configuration, everything else as ``other``.
"""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

log = structlog.get_logger()

OTHER: Final = "other"
FOLDER: Final = "metrics"
FILE_BYTES: Final = 1 << 20
"""Room for 4,000 time series of one process, taken at once: growing on a full disk would kill the process (SIGBUS)."""

RECEIVE_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
"""An MR image takes 1 to 5 ms, a 2 GB enhanced object seconds."""
SIZE_BUCKETS_BYTES: Final = tuple(float(1 << power) for power in (14, 16, 17, 18, 19, 20, 22, 24, 26, 28, 30, 32))
STEP_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
WAIT_BUCKETS_S: Final = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 14400, 86400)

OUTCOMES: Final = ("stored", "duplicate", "replaced", "kept-first", "own-result")
REFUSAL_STATUSES: Final = (0x0110, 0x0124, 0xA700, 0xA900, 0xC000)
"""C-STORE failures we answer (PS3.4 table B.2-1, PS3.7 C)."""
REJECTION_REASONS: Final = (
    *("called-ae-title", "calling-ae-title", "limit", "congestion", "address", "tls", "not-dicom", OTHER),
)
_REASON_OF_REJECTION: Final = {
    (1, 1, 3): "calling-ae-title",
    (1, 1, 7): "called-ae-title",
    (2, 3, 1): "congestion",
    (2, 3, 2): "limit",
}
DELIVERY_OUTCOMES: Final = ("delivered", "retry", "given-up")


class _Metrics:
    """All metrics of this process, made once the place of their values is known."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Names, labels and buckets are the interface of dashboards and alerts: changes go into deploy/ as well.
        self.receive_seconds = self._histogram(
            "pacsgate_receive_seconds",
            "Time from the last byte of an instance until it is durable and indexed",
            RECEIVE_BUCKETS_S,
        )
        self.receive_bytes = self._histogram("pacsgate_receive_bytes", "Size of instances", SIZE_BUCKETS_BYTES)
        self.received = self._counter(
            "pacsgate_instances_received", "Instances acknowledged with success", ("peer", "outcome")
        )
        self.refused = self._counter(
            "pacsgate_instances_refused", "Instances refused, by C-STORE status", ("peer", "status")
        )
        self.accepted = self._counter("pacsgate_associations_accepted", "Associations accepted", ("peer",))
        self.rejected = self._counter("pacsgate_associations_rejected", "Associations rejected", ("reason",))
        self.queue_wait = self._histogram(
            "pacsgate_queue_wait_seconds",
            "Time from a study's completion to the begin of its first step",
            WAIT_BUCKETS_S,
        )
        self.step = self._histogram(
            "pacsgate_step_seconds", "Time of a workflow step", STEP_BUCKETS_S, ("step", "outcome")
        )
        self.delivery_attempts = self._counter(
            "pacsgate_delivery_attempts", "Attempts to deliver an object", ("destination", "outcome")
        )
        self.delivery = self._histogram(
            "pacsgate_delivery_seconds",
            "Time from an object's making to its delivery",
            WAIT_BUCKETS_S,
            ("destination",),
        )
        self.end_to_end = self._histogram(
            "pacsgate_end_to_end_seconds",
            "Time from a study's last instance to its last result's delivery",
            WAIT_BUCKETS_S,
        )
        self.audit_dropped = self._counter("pacsgate_audit_messages_dropped", "Audit messages that could not be sent")
        self.received_by: dict[tuple[str, str], Counter] = {}
        self.expect((), ())

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)

    def expect(self, peers: Iterable[str], destinations: Iterable[str]) -> None:
        """Show what has not happened yet as zero: a rate needs a first value."""
        self.peers, self.destinations = frozenset(peers), frozenset(destinations)
        for peer in (*self.peers, OTHER):
            self.accepted.labels(peer)
            for outcome in (*OUTCOMES, OTHER):
                # Kept, because looking a label up costs as much as counting.
                self.received_by[peer, outcome] = self.received.labels(peer, outcome)
            for status in REFUSAL_STATUSES:
                self.refused.labels(peer, _hexadecimal(status))
        for reason in REJECTION_REASONS:
            self.rejected.labels(reason)
        for destination in self.destinations:
            self.delivery.labels(destination)
            for outcome in DELIVERY_OUTCOMES:
                self.delivery_attempts.labels(destination, outcome)


@cache
def _metrics() -> _Metrics:
    return _Metrics()


def start(data_dir: Path, slot: str, peers: Iterable[str] = (), destinations: Iterable[str] = ()) -> None:
    """Count into ``data_dir/metrics`` from now on, under this slot's name. Call it first; without it, counts stay here.

    Args:
        data_dir: the node's data folder.
        slot: which process this is; no two running ones of a host share it.
        peers: AE titles that may become labels.
        destinations: names of destinations that may become labels.
    """
    folder = data_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("counter", "histogram"):
            _take_room(folder / f"{kind}_{slot}.db")
    except OSError as error:
        log.error("metrics.unavailable", reason=error.strerror or type(error).__name__)
    else:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        values.ValueClass = values.MultiProcessValue(lambda: slot)
        _metrics.cache_clear()
    _metrics().expect(peers, destinations)


def clear(data_dir: Path) -> None:
    """Forget what an earlier run counted. Call it at the node's start, when no process counts."""
    for path in (data_dir / FOLDER).glob("*.db"):
        path.unlink(missing_ok=True)


def host_registry(data_dir: Path) -> CollectorRegistry:
    """What all processes of this host have counted, added up at each collection."""
    folder = data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry


def instance_received(calling_ae_title: str, outcome: str, seconds: float, size_bytes: int) -> None:
    """An instance was acknowledged: ``outcome`` of `storage.ingest`, ``seconds`` from its last byte to durability."""
    metrics = _metrics()
    metrics.receive_seconds.observe(seconds)
    metrics.receive_bytes.observe(size_bytes)
    metrics.received_by[_known(calling_ae_title, metrics.peers), _known(outcome, OUTCOMES)].inc()


def instance_refused(calling_ae_title: str, status: int) -> None:
    """An instance was answered with a failure status."""
    metrics = _metrics()
    known = _hexadecimal(status) if status in REFUSAL_STATUSES else OTHER
    metrics.refused.labels(_known(calling_ae_title, metrics.peers), known).inc()


def association_accepted(calling_ae_title: str) -> None:
    """An association was accepted."""
    metrics = _metrics()
    metrics.accepted.labels(_known(calling_ae_title, metrics.peers)).inc()


def association_rejected(result: int, source: int, diagnostic: int) -> None:
    """An association was rejected with that result, source and diagnostic (PS3.8 table 9-21)."""
    connection_refused(_REASON_OF_REJECTION.get((result, source, diagnostic), OTHER))


def connection_refused(reason: str) -> None:
    """A connection or association was turned away, for one of ``REJECTION_REASONS``."""
    _metrics().rejected.labels(_known(reason, REJECTION_REASONS)).inc()


def study_dequeued(waited_s: float) -> None:
    """The first step of a complete study begins."""
    _metrics().queue_wait.observe(max(waited_s, 0.0))


def step_ended(step: str, seconds: float, *, failed: bool) -> None:
    """A workflow step ended, ``step`` being one of the workflow's own names."""
    _metrics().step.labels(step, "failed" if failed else "done").observe(seconds)


def delivery_attempted(destination: str, outcome: str) -> None:
    """One object was tried; ``outcome`` is one of ``DELIVERY_OUTCOMES``."""
    metrics = _metrics()
    metrics.delivery_attempts.labels(_known(destination, metrics.destinations), outcome).inc()


def object_delivered(destination: str, seconds: float) -> None:
    """An object reached its destination, ``seconds`` after it was made."""
    metrics = _metrics()
    metrics.delivery.labels(_known(destination, metrics.destinations)).observe(max(seconds, 0.0))


def study_delivered(seconds: float) -> None:
    """All results of a study have reached all destinations, ``seconds`` after its last instance came."""
    _metrics().end_to_end.observe(max(seconds, 0.0))


def audit_dropped(count: int = 1) -> None:
    """Audit messages were lost."""
    _metrics().audit_dropped.inc(count)


def _known(value: str, known: Iterable[str]) -> str:
    value = value.strip()
    return value if value in known else OTHER


def _hexadecimal(status: int) -> str:
    return f"0x{status:04X}"


def _take_room(path: Path) -> None:
    """Make the file and its blocks; one that a crash cut short is made anew."""
    if path.exists() and path.stat().st_size != FILE_BYTES:
        path.unlink()
    with path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
