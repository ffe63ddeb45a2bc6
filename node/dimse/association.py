"""Association policy (PS3.7 D, PS3.8 9.3.4): who may associate, for what, how many at once, and what is recorded."""

import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from sqlalchemy.exc import SQLAlchemyError

from node.dimse.contexts import is_storage_context, verification_context
from node.settings import Peer, Right
from storage.associations import close_association, open_association
from storage.database import Database
from storage.errors import StorageError

_log = structlog.get_logger(__name__)


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
    """A silent association is aborted, so that it frees its slot; also the time a single PDU may take."""
    maximum_object_bytes: int = 16 << 30
    """A longer data set ends the association: no modality sends one, and the spool's disk is finite."""
    minimum_free_bytes: int = 1_000_000_000
    """Below this nothing is received, so that the index never meets a full disk."""
    recovered_free_bytes: int = 1_500_000_000
    """Receiving begins again once so much is free."""


@dataclass(frozen=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21, and our words for the log."""

    result: int
    source: int
    diagnostic: int
    reason: str


_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _PRESENTATION = 1, 3


def _calling_ae_title_not_recognised(reason: str) -> Rejection:
    return Rejection(_PERMANENT, _SERVICE_USER, 3, reason)


def _temporary_congestion(reason: str) -> Rejection:
    return Rejection(_TRANSIENT, _PRESENTATION, 1, reason)


LOCAL_LIMIT_EXCEEDED: Final = Rejection(_TRANSIENT, _PRESENTATION, 2, "as many associations as allowed are open")


@dataclass(frozen=True)
class AssociationPolicy:
    """Who may associate. Without configured peers everybody may: sensible only on loopback, our default."""

    ae_title: str
    peers: Sequence[Peer] = ()
    require_called_ae_title: bool = False

    def judge(self, calling_ae_title: str, called_ae_title: str, address: str) -> Rejection | frozenset[Right]:
        """Return the rights of a requestor at IP ``address``, or why it is turned away."""
        if self.require_called_ae_title and called_ae_title.strip() != self.ae_title:
            reason = f"it called {called_ae_title.strip()!r}, we are {self.ae_title!r}"
            return Rejection(_PERMANENT, _SERVICE_USER, 7, reason)
        if not self.peers:
            return frozenset(Right)
        named = [peer for peer in self.peers if peer.ae_title == calling_ae_title.strip()]
        if not named:
            return _calling_ae_title_not_recognised("no peer is configured with this AE title")
        rights = [peer.rights for peer in named if address in _addresses(peer.host)]
        if not rights:
            return _calling_ae_title_not_recognised("the peer of this AE title is configured with another host")
        return frozenset().union(*rights)


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
        self._row_ids: dict[Association, int | None] = {}

    def on_requested(self, event: Event) -> None:
        """Handle evt.EVT_REQUESTED: reject the association, or narrow it to the peer's rights and record it."""
        association = event.assoc
        request = association.requestor.primitive
        association.requestor.ae_title = request.calling_ae_title
        # pynetdicom logs what a handler raises and goes on to accept: whatever happens here must end in a rejection.
        rejection: Rejection | None = _temporary_congestion("the request could not be judged; see the error before")
        try:
            rejection = self._admit(association, request.called_ae_title)
        finally:
            if rejection is not None:
                _log.warning("association-rejected", reason=rejection.reason, **_who(association))
                association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
                evt.trigger(association, evt.EVT_REJECTED, {})
                association.kill()

    def row_id(self, association: Association) -> int | None:
        """The association's row in the index."""
        return self._row_ids.get(association)

    def ended(self, association: Association) -> None:
        """Close the association's row, whichever way it ended."""
        with self._lock:
            row_id = self._row_ids.pop(association, None)
        if row_id is None:
            return
        outcome = "released" if association.is_released else "aborted"
        _log.info("association-ended", association_id=row_id, outcome=outcome, **_who(association))
        try:
            close_association(self._database, row_id)
        except (SQLAlchemyError, StorageError) as error:
            # The row stays open; the receiver closes it as stale at its next start.
            _log.error("association-not-closed", association_id=row_id, error=str(error))

    def __len__(self) -> int:
        """How many admitted associations are open."""
        return len(self._row_ids)

    def _admit(self, association: Association, called_ae_title: str) -> Rejection | None:
        who = association.requestor
        rights = self._policy.judge(who.ae_title, called_ae_title, who.address_info.address)
        if isinstance(rights, Rejection):
            return rights
        with self._lock:
            if len(self._row_ids) >= self._limits.maximum_associations:
                return LOCAL_LIMIT_EXCEEDED
            self._row_ids[association] = None
        if Right.STORE not in rights:
            association.acceptor.supported_contexts = [verification_context()]
            return None
        proposed = who.primitive.presentation_context_definition_list
        return self._record(association) if any(map(is_storage_context, proposed)) else None

    def _record(self, association: Association) -> Rejection | None:
        try:
            row_id = open_association(
                self._database,
                self._slot_name,
                association.requestor.ae_title,
                association.requestor.address_info.address,
            )
        except (SQLAlchemyError, StorageError) as error:
            return _temporary_congestion(f"the index cannot be written: {error}")
        self._row_ids[association] = row_id
        _log.info("association-opened", association_id=row_id, **_who(association))
        return None


def _who(association: Association) -> dict[str, str]:
    return {
        "calling_ae_title": association.requestor.ae_title,
        "peer_address": association.requestor.address_info.address,
    }


def _addresses(host: str) -> Iterable[str]:
    """The IP addresses of a configured host; none, with a line in the log, when its name cannot be resolved."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        _log.error("peer-host-unknown", host=host, error=str(error))
        return ()
