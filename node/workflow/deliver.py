"""Step deliver: one run at one destination, which sends what is due there by C-STORE, the most urgent first.

Each destination has its runs, one after the other and beside those of all others: a dead PACS holds up nobody. A run
sends batch after batch, so that what is more urgent waits for one batch at most, and books outcomes as they come: what
a destination has taken is never sent again because the run was cut short.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from node.dimse.outgoing import HIGH, LOW, MEDIUM, Outgoing, SendOutcome
from node.dimse.storage_scu import SendOptions, send
from node.results.variants import BINARY_SEGMENTATION
from node.settings import Destination, Settings
from node.workflow.context import NodeContext
from node.workflow.delivery_audit import audits_of
from node.workflow.turnaround import count_attempt
from node.workflow.variants import variants_for
from node.workflow.version import PIPELINE_VERSION
from storage.deliveries import Attempt, DueObject, Priority, RetryPolicy, book, due_at, fail_all_due
from storage.delivery_commitment import expect_commitment
from storage.destinations import DueRun, begin_run, due_runs, end_run, is_paused, note_outcomes
from storage.errors import IntegrityError, ObjectMissing, StorageError
from storage.journal import record
from storage.models import Delivery, DeliveryState, utc_now

log = structlog.get_logger()

RUN_S = 10.0
"""A run begins no batch after this long: the job engine's queue and a draining worker get their turn."""
BOOKED_TOGETHER = 20
BOOKED_AFTER_S = 1.0
"""Outcomes are booked when so many have come, or so long after the last time: what a crash may send twice."""
TOLD_AT_MOST = 1000
"""Of a failed attempt at everything, the journal names this many objects; the states of all are in the index."""
WARNINGS = {0xB000: "coercion of data elements", 0xB006: "elements discarded", 0xB007: "does not match its SOP class"}
"""Warning statuses of a C-STORE (PS3.4 B.2.3)."""

_NOT_CONFIGURED = "the destination is no longer configured"
_C_STORE_PRIORITY = {Priority.STAT: HIGH, Priority.HIGH: HIGH, Priority.ROUTINE: MEDIUM, Priority.LOW: LOW}


def runs_due(session: Session) -> dict[str, DueRun]:
    """Workflow id -> run, for every destination that has something due and is not paused."""
    return {f"{PIPELINE_VERSION}/delivery/{run.destination}/{run.turn}": run for run in due_runs(session, utc_now())}


def deliver_step(context: NodeContext, destination_name: str, turn: int) -> None:
    """The run of that number at the destination; a repeat after a crash goes on with what is still due."""
    with context.database.session() as session:
        if not begin_run(session, destination_name, turn, utc_now()):
            return
    ends_at = time.monotonic() + RUN_S
    while time.monotonic() < ends_at and _send_batch(context, destination_name):
        pass
    with context.database.session() as session:
        end_run(session, destination_name, turn)


def delivery_failed(context: NodeContext, destination_name: str, turn: int, reason: str) -> None:
    """The step itself failed: everything that was due there counts as a failed attempt, nothing is forgotten."""
    settings = context.settings
    policy = retry_policy(settings) if settings.destination(destination_name) else None
    _Books(context, destination_name, policy).fail_all(reason)
    with context.database.session() as session:
        end_run(session, destination_name, turn)
    log.error("delivery.failed", destination=destination_name, reason=reason)


def retry_policy(settings: Settings) -> RetryPolicy:
    """The configured one, with waits of this node's own."""
    options = settings.delivery
    return RetryPolicy(
        options.first_retry_s, options.backoff_rate, options.max_attempts, options.jitter, settings.dicom.ae_title
    )


def _send_batch(context: NodeContext, destination_name: str) -> bool:
    """Send one batch; False when the run is to end: nothing left, paused, or nobody there."""
    settings = context.settings
    destination = settings.destination(destination_name)
    if destination is None:
        _Books(context, destination_name, None).fail_all(_NOT_CONFIGURED)
        return False
    with context.database.read() as session:
        paused = is_paused(session, destination_name)
        due = [] if paused else due_at(session, destination_name, utc_now(), settings.delivery.batch_objects)
    if not due:
        return False
    books = _Books(context, destination_name, retry_policy(settings))
    audits = audits_of(context.database, destination, due)
    for audit in audits:
        audit.begins()
    delivered: dict[str, bool] = {}
    try:
        for item, outcome in _attempts(context, settings, destination, due):
            if isinstance(outcome, SendOutcome) and outcome.unavailable:
                books.close()
                books.fail_all(outcome.error)
                return False
            attempt = outcome if isinstance(outcome, Attempt) else _attempt(outcome)
            delivered[item.sop_instance_uid] = attempt.delivered
            books.add(item, attempt)
    finally:
        books.close()
        for audit in audits:
            audit.ended(delivered)
    return True


def _attempts(
    context: NodeContext, settings: Settings, destination: Destination, due: Sequence[DueObject]
) -> Iterator[tuple[DueObject, Attempt | SendOutcome]]:
    """Try to send each object; yield what became of it."""
    files: dict[str, DueObject] = {}
    outgoing = []
    variants = variants_for(context, due)
    for item in due:
        try:
            path = context.objects.verified_path(item.object_digest)
        except StorageError as error:
            gone = isinstance(error, ObjectMissing | IntegrityError)
            yield item, Attempt(delivered=False, status=str(error), final=gone)
            continue
        files[str(path)] = item
        outgoing.append(Outgoing(path, _C_STORE_PRIORITY[item.priority], variants.get(item)))
    options = settings.delivery
    send_options = SendOptions(
        timeout_s=options.timeout_s,
        maximum_decompressed_bytes=options.maximum_decompressed_bytes,
        decompression_timeout_s=options.decompression_timeout_s,
        scratch=settings.data_dir / "scratch",
    )
    for outcome in send(destination, outgoing, settings.dicom.ae_title, options=send_options):
        yield files[str(outcome.path)], outcome


def _attempt(outcome: SendOutcome) -> Attempt:
    status = outcome.error or f"0x{outcome.status or 0:04X}"
    if outcome.delivered and outcome.status:
        status += f" warning: {WARNINGS.get(outcome.status, 'stored with a warning')}"
    return Attempt(outcome.delivered, status, outcome.sent_as, outcome.final)


class _Books:
    """Outcomes on their way into the index, a few at a time, and into the journal."""

    def __init__(self, context: NodeContext, destination_name: str, policy: RetryPolicy | None) -> None:
        self._context = context
        self._policy = policy
        self._destination = destination_name
        self._open: dict[DueObject, Attempt] = {}
        self._booked_at = time.monotonic()
        self._originals: Counter[tuple[str, int, str, str]] = Counter()

    def add(self, item: DueObject, attempt: Attempt) -> None:
        """Take an outcome; book what has gathered."""
        self._open[item] = attempt
        if len(self._open) >= BOOKED_TOGETHER or time.monotonic() - self._booked_at > BOOKED_AFTER_S:
            self._book()

    def close(self) -> None:
        """Book the rest, and tell the journals of the studies how many of their instances went where."""
        self._book()
        with self._context.database.session() as session:
            self._tell_of_originals(session)

    def fail_all(self, reason: str) -> None:
        """A failed attempt at everything due there: nobody answered, which says nothing of the single object."""
        now = utc_now()
        with self._context.database.session() as session:
            told = {item.delivery_id: item for item in due_at(session, self._destination, now, TOLD_AT_MOST)}
            count = fail_all_due(session, self._destination, reason, self._policy, now)
            for row in session.scalars(select(Delivery).where(Delivery.id.in_(told)).order_by(Delivery.id)):
                self._tell(session, told[row.id], row)
                count_attempt(session, row)
            self._tell_of_originals(session)
            note_outcomes(session, self._destination, delivered=False, failure=reason, now=now)
        log.warning("destination.unavailable", destination=self._destination, objects=count, reason=reason)

    def _book(self) -> None:
        attempts, self._open = self._open, {}
        self._booked_at = time.monotonic()
        if not attempts:
            return
        failures = [attempt.status for attempt in attempts.values() if not attempt.delivered]
        with self._context.database.session() as session:
            for item, row in book(session, attempts, self._policy, utc_now()):
                self._tell(session, item, row)
                count_attempt(session, row)
                self._ask_for_commitment(session, item, row)
            delivered = any(attempt.delivered for attempt in attempts.values())
            note_outcomes(session, self._destination, delivered, failures[-1] if failures else "", utc_now())

    def _ask_for_commitment(self, session: Session, item: DueObject, row: Delivery) -> None:
        """Have the destination asked whether it keeps what it took, where it is configured to be asked (PS3.4 J).

        A variant went under a UID of its own, which the delivery does not carry: it is not asked about.
        """
        destination = self._context.settings.destination(self._destination)
        wanted = destination is not None and destination.request_commitment
        if wanted and row.state == DeliveryState.DELIVERED and not row.sent_as.startswith(BINARY_SEGMENTATION):
            expect_commitment(session, item.sop_class_uid, item.sop_instance_uid, self._destination, utc_now())

    def _tell(self, session: Session, item: DueObject, row: Delivery) -> None:
        if not item.kind:
            self._originals[item.study_instance_uid, item.revision, row.state, row.status] += 1
            return
        sent_as = f" as {row.sent_as}" if row.sent_as else ""
        record(
            session,
            "delivered" if row.state == DeliveryState.DELIVERED else "delivery-failed",
            f"{item.kind} to {self._destination}{sent_as}: {row.status} (attempt {row.attempts}, {row.state})",
            item.study_instance_uid,
            revision=item.revision,
            sop_instance_uid=item.sop_instance_uid,
            destination=self._destination,
        )

    def _tell_of_originals(self, session: Session) -> None:
        for (study, revision, state, status), count in self._originals.items():
            record(
                session,
                "originals-delivered" if state == DeliveryState.DELIVERED else "originals-failed",
                f"{count} instances to {self._destination}: {status} ({state})",
                study,
                revision=revision,
                destination=self._destination,
                instances=count,
            )
        self._originals.clear()
