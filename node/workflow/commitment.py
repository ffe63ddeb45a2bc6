"""Storage commitment at work: reports to peers that could not be made at once, and requests to destinations."""

from node.dimse.storage_commitment import StorageCommitment, commitment_policy, report_to
from node.dimse.storage_commitment_scu import request_commitment
from node.results.identity import derived_uid
from node.settings import Destination
from node.workflow.context import NodeContext
from storage.commitment import check, mark_not_reported, mark_reported
from storage.delivery_commitment import begin_request, deliver_uncommitted_again, has_uncommitted, request_failed
from storage.models import utc_now


def report_commitment_step(context: NodeContext, request_id: int, calling_ae_title: str, _attempt: int) -> None:
    """Check the instances a peer named and report over a new association; what fails becomes due again later."""
    report = check(context.database, context.objects, request_id)
    if report is None:
        return
    peer = _peer(context, calling_ae_title)
    if peer is None:
        reason = f"no port of {calling_ae_title} is configured: set port under its [[peers]] entry to report to it"
        _not_reported(context, request_id, reason, give_up=True)
        return
    fault = report_to(peer, report, context.settings.dicom.ae_title)
    if fault:
        _not_reported(context, request_id, fault)
        return
    with context.database.session() as session:
        mark_reported(session, request_id, report, "reported on a new association", utc_now())


def report_commitment_failed(
    context: NodeContext, request_id: int, _calling_ae_title: str, _attempt: int, reason: str
) -> None:
    """The step itself failed: a failed attempt like any other."""
    _not_reported(context, request_id, reason)


def request_commitment_step(context: NodeContext, destination_name: str, attempt: str) -> None:
    """Ask a destination about everything due; a repeat after a crash is the same request under the same UID."""
    destination = context.settings.destination(destination_name)
    transaction_uid = _transaction_uid(destination_name, attempt)
    options = context.settings.commitment
    with context.database.session() as session:
        request = begin_request(session, destination_name, transaction_uid, utc_now(), options.resend_after_s)
    if request is None:
        return
    if destination is None:
        fault = "the destination is no longer configured"
    else:
        reports = StorageCommitment(context.database, context.objects, commitment_policy(options))
        ae_title = context.settings.dicom.ae_title
        fault = request_commitment(destination, request, ae_title, reports, options.report_wait_s)
    if fault:
        with context.database.session() as session:
            policy = None if destination is None else commitment_policy(options)
            request_failed(session, transaction_uid, fault, policy, utc_now())


def request_commitment_failed(context: NodeContext, destination_name: str, attempt: str, reason: str) -> None:
    """The step itself failed: a failed attempt like any other."""
    policy = commitment_policy(context.settings.commitment)
    with context.database.session() as session:
        request_failed(session, _transaction_uid(destination_name, attempt), reason, policy, utc_now())


def redeliver_uncommitted(context: NodeContext) -> None:
    """What a destination has not reported on for long is delivered again. Locks nothing where there is nothing."""
    now = utc_now()
    with context.database.read() as session:
        overdue = has_uncommitted(session, now)
    if overdue:
        with context.database.session() as session:
            deliver_uncommitted_again(session, now, context.settings.commitment.max_attempts)


def _transaction_uid(destination_name: str, attempt: str) -> str:
    """The attempt names an object, whose UID is unique in the world; so is what derives from it."""
    return derived_uid("storage-commitment", destination_name, attempt)


def _peer(context: NodeContext, ae_title: str) -> Destination | None:
    """Where the peer of that AE title listens."""
    for peer in context.settings.peers:
        if peer.ae_title == ae_title and peer.port is not None:
            there = Destination(name=peer.name, ae_title=peer.ae_title, host=peer.host, port=peer.port, tls=peer.tls)
            return there.with_credentials(context.settings.tls)
    return None


def _not_reported(context: NodeContext, request_id: int, reason: str, *, give_up: bool = False) -> None:
    policy = None if give_up else commitment_policy(context.settings.commitment)
    with context.database.session() as session:
        mark_not_reported(session, request_id, reason, policy, utc_now())
