"""The association policy (PS3.7 D, PS3.8 9.3.4): who may associate, proved how, and with which rights.

A peer is known by AE title and address; over TLS by its certificate as well; where configured by user identity too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from node.dimse.peer_hosts import PeerHosts
from node.dimse.tls import PeerCertificate
from node.dimse.user_identity import VERIFIABLE_TYPES, Passcodes, UserIdentity, same_username
from node.settings import Peer, Right

HOST_NAME_LIFETIME_S = 60.0


class RefusedFor(Enum):
    """What the refusal is about: it decides how it is audited."""

    NODE = auto()
    """The node is not who it should be."""
    USER = auto()
    """The user's identity was not confirmed."""
    LIMIT = auto()
    """The peer asks for more than its share."""
    CONGESTION = auto()
    """We cannot serve anybody now: no fault of the peer's."""


@dataclass(frozen=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21, and our words for the log."""

    result: int
    source: int
    diagnostic: int
    reason: str
    refused_for: RefusedFor = RefusedFor.NODE


@dataclass(frozen=True)
class Admission:
    """Who was let in: the peer's configuration (None where none is configured), its rights, how it was known."""

    peer: Peer | None
    rights: frozenset[Right]
    user_confirmed: bool = False
    """Its user identity was asked for, and was right."""


@dataclass(frozen=True)
class Requestor:
    """What is known about the other side when it asks for an association."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    over_tls: bool = False
    certificate: PeerCertificate | None = None
    identity: UserIdentity | None = None


_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _ACSE, _PRESENTATION = 1, 2, 3


def not_recognised(reason: str) -> Rejection:
    """Calling AE title not recognised: also for a peer that cannot prove to be the one of that title."""
    return Rejection(_PERMANENT, _SERVICE_USER, 3, reason)


def malformed_request(reason: str) -> Rejection:
    """What is asked for cannot be told."""
    return Rejection(_PERMANENT, _ACSE, 1, reason)


def identity_refused(reason: str) -> Rejection:
    """PS3.7 D.3.3.7: rejected-permanent by the ACSE provider, no reason given, so that nothing helps a guesser."""
    return Rejection(_PERMANENT, _ACSE, 1, reason, RefusedFor.USER)


def temporary_congestion(reason: str) -> Rejection:
    """Ask the peer to come again later."""
    return Rejection(_TRANSIENT, _PRESENTATION, 1, reason, RefusedFor.CONGESTION)


def local_limit_exceeded(reason: str, refused_for: RefusedFor) -> Rejection:
    """As many associations as allowed are open."""
    return Rejection(_TRANSIENT, _PRESENTATION, 2, reason, refused_for)


class AssociationPolicy:
    """Who may associate. Without configured peers everybody may: sensible only on loopback, our default.

    ``peers`` may be asked for at each association: they follow the configuration file.
    """

    def __init__(
        self,
        ae_title: str,
        peers: Callable[[], Sequence[Peer]] | Sequence[Peer] = (),
        require_called_ae_title: bool = False,
        hosts: PeerHosts | None = None,
    ) -> None:
        self._ae_title = ae_title
        self._peers_now = peers if callable(peers) else lambda: peers
        self._require_called_ae_title = require_called_ae_title
        self._hosts = hosts or PeerHosts(HOST_NAME_LIFETIME_S)
        self._passcodes = Passcodes()

    def judge(self, requestor: Requestor) -> Admission | Rejection:
        """Return who the requestor is and its rights, or why it is turned away.

        Several entries may share AE title and address; the rights of all whose proofs it brings are added up.
        """
        called = requestor.called_ae_title.strip()
        if self._require_called_ae_title and called != self._ae_title:
            return Rejection(_PERMANENT, _SERVICE_USER, 7, f"it called {called!r}, we are {self._ae_title!r}")
        identity = requestor.identity
        if identity is not None and identity.type not in VERIFIABLE_TYPES:
            return identity_refused(f"user identity of type {identity.type}: only user names and passcodes are known")
        peers = self._peers_now()
        if not peers:
            return Admission(None, frozenset(Right))
        named = [peer for peer in peers if peer.ae_title == requestor.calling_ae_title.strip()]
        if not named:
            return not_recognised("no peer is configured with this AE title")
        here = [peer for peer in named if self._hosts.matches(peer.host, requestor.address)]
        if not here:
            return not_recognised("the peer of this AE title is configured with another host")
        faults = [self._fault(peer, requestor) for peer in here]
        proved = [peer for peer, fault in zip(here, faults, strict=True) if fault is None]
        if not proved:
            return next(fault for fault in faults if fault is not None)
        rights = frozenset[Right]().union(*(peer.rights for peer in proved))
        return Admission(proved[0], rights, user_confirmed=any(peer.username for peer in proved))

    def _fault(self, peer: Peer, requestor: Requestor) -> Rejection | None:
        """Return why the requestor does not prove to be ``peer``; the costly proof comes last."""
        return self._fault_of_certificate(peer, requestor) or self._fault_of_identity(peer, requestor.identity)

    def _fault_of_certificate(self, peer: Peer, requestor: Requestor) -> Rejection | None:
        if not peer.tls:
            return None
        if not requestor.over_tls:
            return not_recognised(f"peer {peer.name} is let in by the TLS port only")
        certificate = requestor.certificate
        if not (peer.certificate_sha256 or peer.certificate_name):
            return None
        if certificate is None:
            return not_recognised(f"it sent no certificate, peer {peer.name} is configured with one")
        if peer.certificate_sha256 and certificate.sha256 != peer.certificate_sha256:
            return not_recognised(f"its certificate ({certificate.sha256}) is not that of peer {peer.name}")
        if peer.certificate_name and peer.certificate_name not in certificate.names:
            return not_recognised(f"its certificate does not bear the name {peer.certificate_name!r}")
        return None

    def _fault_of_identity(self, peer: Peer, identity: UserIdentity | None) -> Rejection | None:
        if not peer.username:
            return None
        if identity is None:
            return identity_refused(f"peer {peer.name} has to give a user identity and gave none")
        if not same_username(peer.username, identity.username):
            return identity_refused(f"the user name is not that of peer {peer.name}")
        if not peer.passcode_hash:
            return None
        if identity.passcode is None or not self._passcodes.confirm(peer.passcode_hash, identity.passcode):
            return identity_refused(f"the passcode is not that of peer {peer.name}")
        return None
