"""Where audit messages go, and the queue and thread that keep a slow or dead place from holding up the node."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from node import telemetry
from node.audit.message import AuditMessage

_log = structlog.get_logger(__name__)

BATCH_LENGTH: Final = 256
"""Messages written, and made durable, together."""
RETRY_WAITS_S: Final = (0.5, 2.0, 10.0, 60.0)
"""A place that keeps failing is tried ever more rarely."""


class Sink(Protocol):
    """A place for audit messages."""

    name: str

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Hand over all messages, or raise OSError: they are tried again, so some may arrive twice, none is lost."""

    def close(self) -> None:
        """Let go of files and connections."""


class SinkWorker:
    """A bounded queue before a sink, emptied by a thread of its own.

    ``put`` costs microseconds and never blocks. When the queue is full messages are dropped and counted; the message
    that ``on_lost`` makes of the sink's name and their number is written before the next one, so that the trail itself
    says where it has a gap.
    """

    def __init__(self, sink: Sink, queue_length: int, on_lost: Callable[[str, int], AuditMessage]) -> None:
        self._sink = sink
        self._queue: queue.Queue[AuditMessage | None] = queue.Queue(queue_length)
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._unreported = 0
        self._closing = threading.Event()
        self.lost = 0
        """Messages dropped since the start."""
        self.written = 0
        """Messages handed over since the start."""
        self._thread = threading.Thread(target=self._run, name=f"audit-{sink.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Names the sink in logs and reports."""
        return self._sink.name

    def put(self, message: AuditMessage) -> None:
        """Queue a message, or drop and count it."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._lose(1)

    def close(self, timeout_s: float) -> None:
        """Write what is queued, within ``timeout_s`` seconds; what is left then is lost, and said to be."""
        self._closing.set()
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            _log.error("audit-sink-stuck", sink=self.name, lost=self._queue.qsize())
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.error("audit-sink-stuck", sink=self.name, lost=self._queue.qsize())

    def _lose(self, count: int) -> None:
        with self._lock:
            first = self._unreported == 0
            self._unreported += count
            self.lost += count
        telemetry.audit_dropped(count)
        if first:
            _log.error("audit-messages-dropped", sink=self.name, reason="the queue is full or the node is stopping")

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._next_batch()
            if batch:
                self._deliver(self._loss_report() + batch)
        self._sink.close()

    def _next_batch(self) -> tuple[list[AuditMessage], bool]:
        """Wait for a message, and take along what else is there; True with the last batch."""
        batch: list[AuditMessage] = []
        message = self._queue.get()
        while message is not None:
            batch.append(message)
            if len(batch) == BATCH_LENGTH:
                return batch, False
            try:
                message = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _deliver(self, batch: list[AuditMessage]) -> None:
        """Write a batch however often it takes; while the node is stopping, once more."""
        attempt = 0
        while True:
            try:
                self._sink.write(batch)
            except OSError as error:
                if attempt == 0:
                    _log.error("audit-sink-failed", sink=self.name, error=str(error))
                if self._closing.wait(RETRY_WAITS_S[min(attempt, len(RETRY_WAITS_S) - 1)]) and attempt > 0:
                    self._lose(len(batch))
                    return
                attempt += 1
            else:
                break
        if attempt:
            _log.warning("audit-sink-recovered", sink=self.name, attempts=attempt + 1)
        self.written += len(batch)

    def _loss_report(self) -> list[AuditMessage]:
        with self._lock:
            count, self._unreported = self._unreported, 0
        return [self._on_lost(self.name, count)] if count else []
