"""Storage Commitment Push Model as user (PS3.4 J): asking a destination to commit itself to what we have delivered."""

import threading

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from node.dimse.contexts import storage_commitment_context
from node.dimse.requestor import DestinationUnavailable, association_with, serve_requests
from node.dimse.storage_commitment import REQUEST_STORAGE_COMMITMENT, StorageCommitment, reference_item
from node.settings import Destination
from storage.delivery_commitment import OwnRequest


def request_commitment(
    destination: Destination, request: OwnRequest, calling_ae_title: str, reports: StorageCommitment, wait_s: float
) -> str:
    """Ask by N-ACTION and wait a while for the report on the same association.

    The destination may as well report later, on an association it opens to our receiver.

    Parameters
    ----------
    reports
        Takes the report.

    Returns
    -------
    str
        Why the destination did not take the request; empty if it did.
    """
    reported = threading.Event()

    def on_report(event: Event) -> tuple[Dataset, None]:
        answer = reports.on_n_event_report(event)
        reported.set()
        return answer

    try:
        with association_with(
            destination,
            [storage_commitment_context()],
            calling_ae_title,
            handlers=[(evt.EVT_N_EVENT_REPORT, on_report)],
        ) as association:
            if not association.accepted_contexts:
                return f"{destination.label} does not offer the Storage Commitment service"
            response, _ = association.send_n_action(
                _action_information(request),
                REQUEST_STORAGE_COMMITMENT,
                StorageCommitmentPushModel,
                StorageCommitmentPushModelInstance,
            )
            status = response.get("Status")
            if status is None:
                association.abort()
                return f"{destination.label} did not answer the storage commitment request"
            if status != 0x0000:
                return f"{destination.label} refused the storage commitment request with status 0x{status:04X}"
            serve_requests(association, reported, wait_s)
    except DestinationUnavailable as error:
        return str(error)
    return ""


def _action_information(request: OwnRequest) -> Dataset:
    """The Action Information of a request (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    information.ReferencedSOPSequence = [reference_item(item) for item in request.items]
    return information
