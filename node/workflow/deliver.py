"""Step deliver: send what is due of a study revision to one destination by C-STORE."""

import structlog
from sqlalchemy.orm import Session

from node.dimse.storage_scu import send
from node.settings import Destination
from node.workflow.context import NodeContext
from storage.deliveries import RetryPolicy, mark_delivered, mark_failed, pending_for
from storage.delivery_commitment import expect_commitment
from storage.errors import StorageError
from storage.journal import record
from storage.models import Delivery, utc_now
from storage.revisions import find_revision

log = structlog.get_logger()


def deliver_step(context: NodeContext, study_instance_uid: str, number: int, destination_name: str) -> None:
    """One attempt at everything due; each object's outcome is a row. What failed becomes due again later."""
    destination = context.settings.destination(destination_name)
    with context.database.read() as session:
        revision = find_revision(session, study_instance_uid, number)
        due = pending_for(session, revision, destination_name, utc_now())
        objects = {d.result.sop_instance_uid: (d.id, d.result.object_digest) for d in due}
    outcomes = _attempt(context, destination, {uid: digest for uid, (_, digest) in objects.items()})
    for sop_instance_uid, (delivery_id, _) in objects.items():
        delivered, status = outcomes.get(sop_instance_uid, (False, "the association ended before it was sent"))
        with context.database.session() as session:
            _book(session, context, session.get_one(Delivery, delivery_id), delivered, status)


def delivery_failed(
    context: NodeContext, study_instance_uid: str, number: int, destination_name: str, reason: str
) -> None:
    """The step itself failed: every delivery that was due counts as a failed attempt, none is forgotten."""
    with context.database.session() as session:
        revision = find_revision(session, study_instance_uid, number)
        for delivery in pending_for(session, revision, destination_name, utc_now()):
            _book(session, context, delivery, False, reason)
    log.error("delivery.failed", study_instance_uid=study_instance_uid, destination=destination_name, reason=reason)


def _book(session: Session, context: NodeContext, delivery: Delivery, delivered: bool, status: str) -> None:
    """Write the outcome of one attempt, and journal it."""
    options = context.settings.delivery
    policy = RetryPolicy(options.first_retry_s, options.backoff_rate, options.max_attempts)
    destination, result = context.settings.destination(delivery.destination), delivery.result
    if delivered:
        mark_delivered(delivery, status, utc_now())
        if destination is not None and destination.request_commitment:
            expect_commitment(session, result.sop_class_uid, result.sop_instance_uid, destination.name, utc_now())
    else:
        mark_failed(delivery, status, policy if destination is not None else None, utc_now())
    record(
        session,
        "delivered" if delivered else "delivery-failed",
        f"{result.kind} to {delivery.destination}: {status} (attempt {delivery.attempts}, {delivery.state})",
        result.revision.study.study_instance_uid,
        revision=result.revision.number,
        sop_instance_uid=result.sop_instance_uid,
        destination=delivery.destination,
    )


def _attempt(
    context: NodeContext, destination: Destination | None, digests: dict[str, str]
) -> dict[str, tuple[bool, str]]:
    """SOP Instance UID -> (delivered, status or error)."""
    if destination is None:
        return dict.fromkeys(digests, (False, "the destination is no longer configured"))
    outcomes: dict[str, tuple[bool, str]] = {}
    files = []
    for uid, digest in digests.items():
        try:
            files.append(context.objects.verified_path(digest))
        except StorageError as error:
            outcomes[uid] = (False, str(error))
    for outcome in send(destination, files, context.settings.dicom.ae_title):
        status = outcome.error or f"0x{outcome.status or 0:04X}"
        outcomes[outcome.sop_instance_uid] = (outcome.delivered, status)
    return outcomes
