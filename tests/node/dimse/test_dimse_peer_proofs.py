"""What a peer has to prove beyond its AE title: address, certificate, user identity; and what its rights open."""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    MRImageStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    UnifiedProcedureStepPush,
    Verification,
)

from node.dimse.foreign import foreign_protocol
from node.dimse.peer_hosts import PeerHosts, plain_address
from node.dimse.policy import Admission, AssociationPolicy, RefusedFor, Rejection, Requestor
from node.dimse.rights import allowed_contexts, right_of
from node.dimse.tls import PeerCertificate
from node.dimse.user_identity import Passcodes, UserIdentity
from node.settings import Peer, Right

HASH = Passcodes().hash("correct horse")
FINGERPRINT = "ab" * 32
OTHER_FINGERPRINT = "cd" * 32

fingerprints = st.sampled_from(["", FINGERPRINT, OTHER_FINGERPRINT])
names = st.sampled_from(["", "mr1", "mr2"])
certificates = st.none() | st.builds(
    PeerCertificate, st.sampled_from([FINGERPRINT, OTHER_FINGERPRINT]), st.frozensets(st.sampled_from(["mr1", "mr2"]))
)
identities = st.none() | st.builds(UserIdentity, st.integers(1, 5), st.sampled_from(["", "bob", "eve"]))


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    """A peer at 10.0.0.1 called MR, with any proofs; passcodes have tests of their own, being slow."""
    fingerprint, name = draw(fingerprints), draw(names)
    return Peer(
        name="p",
        ae_title="MR",
        host="10.0.0.1",
        rights=tuple(draw(st.sets(st.sampled_from(Right)))),
        tls=bool(fingerprint or name) or draw(st.booleans()),
        certificate_sha256=fingerprint,
        certificate_name=name,
        username=draw(st.sampled_from(["", "bob"])),
    )


def proves(peer: Peer, requestor: Requestor) -> bool:
    """The policy once more, as the documentation states it."""
    certificate, identity = requestor.certificate, requestor.identity
    tls = not peer.tls or requestor.over_tls
    pinned = not peer.certificate_sha256 or (certificate and certificate.sha256 == peer.certificate_sha256)
    named = not peer.certificate_name or (certificate and peer.certificate_name in certificate.names)
    user = not peer.username or (identity and identity.username == peer.username)
    return bool(tls and pinned and named and user)


@given(st.lists(peers(), min_size=1, max_size=3), st.booleans(), certificates, identities)
def test_rights_are_those_of_the_entries_whose_every_proof_is_there(
    configured: list[Peer], over_tls: bool, certificate: PeerCertificate | None, identity: UserIdentity | None
) -> None:
    requestor = Requestor("MR", "PACSGATE", "10.0.0.1", over_tls, certificate if over_tls else None, identity)
    verdict = AssociationPolicy("PACSGATE", configured).judge(requestor)
    proved = [peer for peer in configured if proves(peer, requestor)]
    if identity is not None and identity.type > 2:
        assert isinstance(verdict, Rejection)
        assert (verdict.result, verdict.source, verdict.diagnostic, verdict.refused_for) == (1, 2, 1, RefusedFor.USER)
    elif not proved:
        assert isinstance(verdict, Rejection)
        assert verdict.result == 1
    else:
        assert isinstance(verdict, Admission)
        assert verdict.rights == frozenset().union(*(peer.rights for peer in proved))
        assert verdict.peer in proved
        assert verdict.user_confirmed is any(peer.username for peer in proved)


@pytest.mark.parametrize(
    ("identity", "let_in"),
    [
        (None, False),
        (UserIdentity(1, "bob"), False),
        (UserIdentity(2, "bob", b"correct horse"), True),
        (UserIdentity(2, "bob", b"correct horse "), False),
        (UserIdentity(2, "bob", b""), False),
        (UserIdentity(2, "bob", b"\xff\x00"), False),
        (UserIdentity(2, "BOB", b"correct horse"), False),
        (UserIdentity(2, "", b"correct horse"), False),
    ],
)
def test_a_passcode_has_to_be_the_one(identity: UserIdentity | None, let_in: bool) -> None:
    peer = Peer(name="p", ae_title="WS", host="10.0.0.1", username="bob", passcode_hash=HASH)
    policy = AssociationPolicy("PACSGATE", [peer])
    for _ in range(2):  # the second time it may be remembered
        verdict = policy.judge(Requestor("WS", "PACSGATE", "10.0.0.1", identity=identity))
        assert isinstance(verdict, Admission) is let_in


def test_a_confirmed_passcode_costs_nothing_the_next_time() -> None:
    passcodes = Passcodes()
    assert passcodes.confirm(HASH, b"correct horse")
    began = time.perf_counter()
    assert all(passcodes.confirm(HASH, b"correct horse") for _ in range(100))
    assert time.perf_counter() - began < 1  # a hundred hashes take five
    assert not passcodes.confirm(HASH, b"wrong")
    assert not passcodes.confirm("$argon2id$nonsense", b"correct horse")


@given(st.ip_addresses(), st.integers(0, 32), st.ip_addresses())
@example(ipaddress.ip_address("10.1.0.0"), 16, ipaddress.ip_address("::ffff:10.1.2.3"))
def test_a_network_holds_its_addresses_and_no_others(base: object, prefix: int, address: object) -> None:
    network = ipaddress.ip_network(f"{base}/{prefix}", strict=False)
    plain = plain_address(str(address))
    assert plain is not None
    expected = plain.version == network.version and plain in network
    assert PeerHosts(60).matches(str(network), str(address)) is expected


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("fe80::1", "fe80::1%eth0", True),
        ("2001:db8:0:0::1", "2001:db8::1", True),
        ("10.0.0.1", "", False),
        ("10.0.0.0/8", "not an address", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "10.0.0.1", False),
    ],
)
def test_addresses_are_compared_as_such(host: str, address: str, expected: bool) -> None:
    assert PeerHosts(60).matches(host, address) is expected


def test_a_slow_name_server_holds_up_only_the_first() -> None:
    asked: list[str] = []
    slow = threading.Event()

    def resolve(host: str) -> Iterable[str]:
        asked.append(host)
        if len(asked) > 1:
            slow.wait(10)
        return ["10.0.0.1"]

    hosts = PeerHosts(lifetime_s=0.05, resolve=resolve)
    assert hosts.matches("mr.hospital.test", "10.0.0.1")
    time.sleep(0.06)
    began = time.monotonic()
    assert all(hosts.matches("mr.hospital.test", "10.0.0.1") for _ in range(50))
    assert time.monotonic() - began < 5
    assert len(asked) == 2
    slow.set()


def test_an_outage_of_the_name_server_is_no_reason_to_turn_a_peer_away() -> None:
    answers: list[object] = [["10.0.0.1"], socket.gaierror(socket.EAI_AGAIN, "try again"), ["10.0.0.2"]]

    def resolve(host: str) -> Iterable[str]:
        answer = answers.pop(0) if answers else socket.gaierror(socket.EAI_NONAME, "no such name")
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, list)
        return answer

    hosts = PeerHosts(lifetime_s=0.01, resolve=resolve)
    assert hosts.matches("mr", "10.0.0.1")
    waiting_for_outage = time.monotonic() + 5
    while len(answers) == 2 and time.monotonic() < waiting_for_outage:
        assert hosts.matches("mr", "10.0.0.1")
        time.sleep(0.005)
    assert hosts.matches("mr", "10.0.0.1"), "the outage took back what was known"
    deadline = time.monotonic() + 5
    while not hosts.matches("mr", "10.0.0.2") and time.monotonic() < deadline:
        time.sleep(0.005)
    while (hosts.matches("mr", "10.0.0.1") or hosts.matches("mr", "10.0.0.2")) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not hosts.matches("mr", "10.0.0.2"), "a name that is gone still lets its last address in"


CONTEXTS = {
    Right.ECHO: Verification,
    Right.STORE: MRImageStorage,
    Right.FIND: StudyRootQueryRetrieveInformationModelFind,
    Right.MOVE: StudyRootQueryRetrieveInformationModelMove,
    Right.GET: StudyRootQueryRetrieveInformationModelGet,
    Right.WORKLIST: ModalityWorklistInformationFind,
    Right.PROCEDURE_STEP: ModalityPerformedProcedureStep,
    Right.STORAGE_COMMITMENT: StorageCommitmentPushModel,
}


@given(st.frozensets(st.sampled_from(Right)))
def test_each_right_opens_its_service_and_no_other(rights: frozenset[Right]) -> None:
    supported = [build_context(uid) for uid in (*CONTEXTS.values(), UnifiedProcedureStepPush)]
    offered = {str(context.abstract_syntax) for context in allowed_contexts(supported, rights)}
    assert offered == {str(CONTEXTS[right]) for right in rights}


def test_every_right_is_one_of_a_service() -> None:
    assert {right_of(build_context(uid)) for uid in CONTEXTS.values()} == set(Right)
    assert right_of(build_context(UnifiedProcedureStepPush)) is None


def test_who_may_get_may_receive_what_it_gets() -> None:
    supported: list[PresentationContext] = [build_context(uid) for uid in CONTEXTS.values()]
    wanted = frozenset({str(MRImageStorage)})
    offered = allowed_contexts(supported, frozenset({Right.GET}), wanted)
    assert {str(c.abstract_syntax) for c in offered} == {str(CONTEXTS[Right.GET]), str(MRImageStorage)}
    assert not allowed_contexts(supported, frozenset({Right.FIND}), wanted)[1:]


@pytest.mark.parametrize(
    ("first_bytes", "expected"),
    [
        (b"GET / ", "an HTTP request"),
        (b"PRI * HTTP/2.0", "an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS on the port without TLS"),
        (b"SSH-2.0", "SSH"),
        (b"\x01\x00\x00\x00\x00\xcd", ""),
        (b"", ""),
    ],
)
def test_foreign_protocols_are_named(first_bytes: bytes, expected: str) -> None:
    assert foreign_protocol(first_bytes) == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "10.0.0.1/8"}, "has host bits set"),
        ({"certificate_sha256": "ab:cd"}, "64 hexadecimal digits"),
        ({"certificate_name": "mr1"}, "tls is not true"),
        ({"passcode_hash": "correct horse"}, "pacsgate peer passcode"),
        ({"passcode_hash": HASH}, "needs a username"),
    ],
)
def test_half_a_proof_in_the_configuration_is_refused(values: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Peer.model_validate({"name": "p", "ae_title": "P", "host": "10.0.0.1", **values})


def test_a_fingerprint_may_be_pasted_as_openssl_prints_it() -> None:
    pasted = ":".join(["AB"] * 32)
    peer = Peer(name="p", ae_title="P", host="10.0.0.1", tls=True, certificate_sha256=pasted)
    assert peer.certificate_sha256 == FINGERPRINT
