"""Admitting associations (PS3.7 D, PS3.8 9.3.4): bounds, rights, what is recorded, and what is audited."""

import threading
from dataclasses import dataclass, field, replace

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from sqlalchemy.exc import SQLAlchemyError

from node import audit, telemetry
from node.audit import Action, RemoteNode, Transfer, TransferCounter
from node.dimse.contexts import is_storage_context
from node.dimse.policy import (
    Admission,
    AssociationPolicy,
    RefusedFor,
    Rejection,
    Requestor,
    local_limit_exceeded,
    malformed_request,
    temporary_congestion,
)
from node.dimse.rights import allowed_contexts
from node.dimse.tls import is_tls, peer_certificate
from node.dimse.user_identity import UserIdentity, confirm_to_requestor
from node.settings import Right
from storage.associations import close_association, open_association, sender_of
from storage.database import Database
from storage.errors import StorageError
from storage.ingest import Ingested
from storage.patients import patient_ids_of

__all__ = ["AssociationLimits", "AssociationPolicy", "AssociationRegister", "Rejection"]

_log = structlog.get_logger(__name__)

_ACTION_OF_OUTCOME = {
    "stored": Action.CREATE,
    "replaced": Action.UPDATE,
    "duplicate": Action.READ,
    "kept-first": Action.READ,
    "own-result": Action.READ,
}
"""PS3.15 A.5.3.7: created, altered what was held, or held already."""


@dataclass(frozen=True)
class AssociationLimits:
    """Bounds of the association service. Sizes in bytes, times in seconds."""

    maximum_associations: int = 50
    """Each open association costs a thread, and nothing else while it is idle."""
    maximum_pdu_bytes: int = 128 << 10
    """Offered in negotiation: 128 KiB receive twice as fast as the customary 16 KiB (measured)."""
    maximum_announced_pdu_bytes: int = 1 << 20
    """A longer PDU is not read. A request of 128 contexts with every transfer syntax has about 0.1 MiB."""
    acse_timeout_s: float = 60
    """A connection that has not associated by then is closed."""
    dimse_timeout_s: float = 60
    network_timeout_s: float = 60
    """Silence in the middle of a message aborts the association; also the time a single PDU may take."""
    idle_timeout_s: float = 3600
    """Silence between messages: an association that is held open costs nothing."""
    maximum_object_bytes: int = 16 << 30
    """A longer data set ends the association: no modality sends one, and the spool's disk is finite."""
    minimum_free_bytes: int = 1_000_000_000
    """Below this nothing is received, so that the index never meets a full disk."""
    recovered_free_bytes: int | None = None
    """Receiving begins again once so much is free; None: half as much again."""
    maximum_associations_per_peer: int = 20
    """One scanner gone wrong must not take every slot. Only configured peers are told apart."""
    maximum_bytes_per_association: int = 500_000_000_000
    """More than a scanner makes in a day: ends a sender that repeats itself for ever."""
    transfer_audit_interval_s: float = 600
    """An association that stays open is audited this often."""


@dataclass
class _Admitted:
    """An open association: who, with which rights, and what it has used up."""

    admission: Admission
    transfers: TransferCounter
    row_id: int | None = None
    received_bytes: int = field(default=0)

    @property
    def peer_name(self) -> str:
        return self.admission.peer.name if self.admission.peer else ""


class AssociationRegister:
    """The associations that are open, admitted by the policy and recorded in the index as evidence for completion.

    ``slot_name`` names the receiver process in the index.
    """

    def __init__(
        self, policy: AssociationPolicy, limits: AssociationLimits, database: Database, slot_name: str
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._database = database
        self._slot_name = slot_name
        self._lock = threading.Lock()
        self._admitted: dict[Association, _Admitted] = {}
        self._ending = 0

    def on_requested(self, event: Event) -> None:
        """Handle evt.EVT_REQUESTED: reject the association, or narrow it to the peer's rights and record it."""
        association = event.assoc
        request = association.requestor.primitive
        association.requestor.ae_title = request.calling_ae_title
        # pynetdicom logs what a handler raises and goes on to accept: whatever happens here must end in a rejection.
        rejection: Rejection | None = temporary_congestion("the request could not be judged; see the error before")
        try:
            rejection = self._admit(association, request.called_ae_title)
        finally:
            if rejection is None:
                telemetry.association_accepted(association.requestor.ae_title)
            else:
                telemetry.association_rejected(rejection.result, rejection.source, rejection.diagnostic)
                _log.warning("association-rejected", reason=rejection.reason, **_who(association))
                _audit_rejection(association, rejection)
                association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
                evt.trigger(association, evt.EVT_REJECTED, {})
                association.kill()

    def row_id(self, association: Association) -> int | None:
        """The association's row in the index."""
        admitted = self._admitted.get(association)
        return admitted.row_id if admitted else None

    def sender_of(self, row_id: int | None) -> tuple[str, str]:
        """AE title and address of the peer of an association that has ended, empty where the index does not know."""
        return sender_of(self._database, row_id)

    def may(self, association: Association, right: Right) -> bool:
        """Tell whether the association has a right; handlers of services that share a context ask here."""
        admitted = self._admitted.get(association)
        return admitted is not None and right in admitted.admission.rights

    def count_bytes(self, association: Association, count: int) -> bool:
        """Count ``count`` received bytes; False once the association has used up its budget and must be aborted.

        Called by the thread that serves the association.
        """
        admitted = self._admitted.get(association)
        if admitted is None:
            return True
        admitted.received_bytes += count
        return admitted.received_bytes <= self._limits.maximum_bytes_per_association

    def instance_received(self, association: Association, sop_class_uid: str, ingested: Ingested) -> None:
        """Count an instance that was acknowledged, for the audit trail; costs a microsecond."""
        admitted = self._admitted.get(association)
        if admitted is not None:
            action = _ACTION_OF_OUTCOME[ingested.outcome]
            admitted.transfers.count(ingested.study_instance_uid, sop_class_uid, action)

    def ended(self, association: Association) -> None:
        """Close the association's row and audit what it brought, whichever way it ended."""
        with self._lock:
            admitted = self._admitted.pop(association, None)
            self._ending += admitted is not None
        if admitted is None:
            return
        try:
            self._close(association, admitted)
        finally:
            with self._lock:
                self._ending -= 1

    def _close(self, association: Association, admitted: _Admitted) -> None:
        admitted.transfers.flush()
        if admitted.row_id is None:
            return
        outcome = "released" if association.is_released else "aborted"
        _log.info("association-ended", association_id=admitted.row_id, outcome=outcome, **_who(association))
        try:
            close_association(self._database, admitted.row_id)
        except (SQLAlchemyError, StorageError) as error:
            # The row stays open; the receiver closes it as stale at its next start.
            _log.error("association-not-closed", association_id=admitted.row_id, error=str(error))

    def __len__(self) -> int:
        """How many admitted associations are open, or still being closed in the index."""
        with self._lock:
            return len(self._admitted) + self._ending

    def _admit(self, association: Association, called_ae_title: str) -> Rejection | None:
        who = association.requestor
        proposed = who.primitive.presentation_context_definition_list
        if any(context.abstract_syntax is None for context in proposed):
            return malformed_request("a presentation context names no abstract syntax")
        identity = UserIdentity.of(association)
        requestor = Requestor(
            who.ae_title,
            called_ae_title,
            who.address_info.address,
            is_tls(association),
            peer_certificate(association),
            identity,
        )
        admission = self._policy.judge(requestor)
        if isinstance(admission, Rejection):
            return admission
        rejection = self._take_slot(association, admission)
        if rejection is not None:
            return rejection
        if identity is not None and admission.user_confirmed:
            audit.trail().user_authenticated(_remote_node(association), identity.username)
            if identity.response_requested:
                confirm_to_requestor(association)
        self._narrow(association, admission.rights)
        stores = Right.STORE in admission.rights and any(map(is_storage_context, proposed))
        return self._record(association) if stores else None

    def _take_slot(self, association: Association, admission: Admission) -> Rejection | None:
        """Count the association, unless as many as allowed are open, in all or of its peer."""
        peer = admission.peer
        transfers = TransferCounter(
            lambda found: self._audit_transfers(_remote_node(association), found),
            self._limits.transfer_audit_interval_s,
        )
        with self._lock:
            if len(self._admitted) >= self._limits.maximum_associations:
                return local_limit_exceeded("as many associations as allowed are open", RefusedFor.CONGESTION)
            if peer is not None:
                maximum = peer.maximum_associations or self._limits.maximum_associations_per_peer
                if sum(other.peer_name == peer.name for other in self._admitted.values()) >= maximum:
                    reason = f"{maximum} associations of peer {peer.name} are open, as many as it may have"
                    return local_limit_exceeded(reason, RefusedFor.LIMIT)
            self._admitted[association] = _Admitted(admission, transfers)
        return None

    def _narrow(self, association: Association, rights: frozenset[Right]) -> None:
        """Offer only the contexts that the rights open."""
        if rights == frozenset(Right):
            return
        roles = association.requestor.role_selection
        received_by_get = frozenset(str(uid) for uid, item in roles.items() if item.scp_role and not item.scu_role)
        acceptor = association.acceptor
        acceptor.supported_contexts = allowed_contexts(acceptor.supported_contexts, rights, received_by_get)

    def _record(self, association: Association) -> Rejection | None:
        try:
            row_id = open_association(
                self._database,
                self._slot_name,
                association.requestor.ae_title,
                association.requestor.address_info.address,
            )
        except (SQLAlchemyError, StorageError) as error:
            return temporary_congestion(f"the index cannot be written: {error}")
        self._admitted[association].row_id = row_id
        _log.info("association-opened", association_id=row_id, **_who(association))
        return None

    def _audit_transfers(self, sender: RemoteNode, transfers: list[Transfer]) -> None:
        trail = audit.trail()
        if trail.include_patient_id:
            try:
                patient_ids = patient_ids_of(self._database, {t.study_instance_uid for t in transfers})
            except (SQLAlchemyError, StorageError) as error:
                _log.error("audit-without-patient-id", error=type(error).__name__)
            else:
                transfers = [replace(t, patient_id=patient_ids.get(t.study_instance_uid, "")) for t in transfers]
        trail.instances_received(sender, transfers)


def _audit_rejection(association: Association, rejection: Rejection) -> None:
    node, trail = _remote_node(association), audit.trail()
    match rejection.refused_for:
        case RefusedFor.NODE:
            trail.node_refused(node, rejection.reason)
        case RefusedFor.USER:
            identity = UserIdentity.of(association)
            trail.user_authenticated(node, identity.username if identity else "", rejection.reason)
        case RefusedFor.LIMIT:
            trail.restricted_use(node, rejection.reason)


def _remote_node(association: Association) -> RemoteNode:
    return RemoteNode(association.requestor.address_info.address, association.requestor.ae_title)


def _who(association: Association) -> dict[str, str]:
    return {
        "calling_ae_title": association.requestor.ae_title,
        "peer_address": association.requestor.address_info.address,
    }
