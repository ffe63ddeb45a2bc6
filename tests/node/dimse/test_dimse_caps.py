"""Rights and caps of a peer, from outside: what it may not do it is not offered, and what is too much is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from structlog.testing import capture_logs

from node import audit
from node.dimse.association import AssociationLimits, AssociationPolicy, AssociationRegister
from node.dimse.policy import Admission, Requestor
from node.settings import Peer, Right
from storage.database import Database
from storage.ingest import Ingested, Reception, ingest
from storage.objects import ObjectStore
from tests.fixtures.audit_messages import Event, event_of, wait_for_event
from tests.fixtures.audit_sinks import MemorySink, trail_into
from tests.fixtures.configured_receiver import ConfiguredReceiver, configured_receiver
from tests.fixtures.dcmtk import echoscu, free_port, storescu
from tests.fixtures.instances import mr_file, sized_mr_bytes
from tests.fixtures.raw_dimse import AssociationEnded, RawAssociation

CONTEXTS = [(MRImageStorage, ExplicitVRLittleEndian)]
MAXIMUM_BYTES = 300_000
LOCAL_LIMIT_EXCEEDED = bytes([0, 2, 3, 2])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def receiver(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfiguredReceiver]:
    toml = f"""
        [dicom]
        port = {port}
        [association]
        maximum_associations_per_peer = 2
        maximum_bytes_per_association = {MAXIMUM_BYTES}
        [[peers]]
        name = 'raw'
        ae_title = 'RAW'
        host = '127.0.0.1'
        [[peers]]
        name = 'console'
        ae_title = 'CONSOLE'
        host = '127.0.0.0/24'
        rights = ['echo', 'find']
        [[peers]]
        name = 'blind'
        ae_title = 'BLIND'
        host = 'localhost'
        rights = ['store']
    """
    with configured_receiver(tmp_path_factory.mktemp("caps"), toml) as running:
        yield running


def test_one_peer_cannot_take_every_slot(port: int, receiver: ConfiguredReceiver) -> None:
    with RawAssociation(port, CONTEXTS), RawAssociation(port, CONTEXTS):
        with pytest.raises(AssociationEnded) as third:
            RawAssociation(port, CONTEXTS)
        assert repr(LOCAL_LIMIT_EXCEEDED) in str(third.value)
        assert echoscu(port, "CONSOLE") == 0
    event = wait_for_event(receiver.audit_path, lambda e: "as many as it may have" in e.description)
    assert event.types == ("Use of Restricted Function",)


def test_a_sender_without_end_is_ended(port: int, receiver: ConfiguredReceiver) -> None:
    stored: list[str] = []

    def send_for_ever(association: RawAssociation) -> None:
        while len(stored) < 100:
            uid = generate_uid()
            data_set = sized_mr_bytes(uid, rows=128, columns=128)  # 32 KiB
            assert association.store(MRImageStorage, uid, data_set).Status == 0x0000
            stored.append(uid)

    with RawAssociation(port, CONTEXTS) as association, pytest.raises(AssociationEnded):
        send_for_ever(association)
    assert MAXIMUM_BYTES // 34_000 <= len(stored) <= MAXIMUM_BYTES // 32_768
    assert set(stored) <= set(receiver.node.instances())
    event = wait_for_event(receiver.audit_path, lambda e: "more bytes than one association may" in e.description)
    assert (event.types, event.ae_titles) == (("Use of Restricted Function",), ("PACSGATE", "RAW"))


@pytest.mark.peers
def test_a_peer_is_offered_only_what_it_may(port: int, receiver: ConfiguredReceiver, tmp_path: Path) -> None:
    assert echoscu(port, "CONSOLE") == 0
    refused = storescu(port, [mr_file(tmp_path)], calling_ae_title="CONSOLE")
    assert refused.returncode != 0
    assert "No Acceptable Presentation Contexts" in refused.stderr
    assert echoscu(port, "BLIND") != 0
    assert storescu(port, [mr_file(tmp_path)], calling_ae_title="BLIND").returncode == 0


@pytest.fixture
def trail() -> Iterator[MemorySink]:
    with trail_into() as sink:
        yield sink


class OpenAssociation:
    """What the register looks at in an association of SKYRA's."""

    is_released = True
    requestor = SimpleNamespace(ae_title="SKYRA", address_info=SimpleNamespace(address="10.0.0.1"))


def admitted(database: Database, limits: AssociationLimits) -> tuple[AssociationRegister, OpenAssociation]:
    """A register with one association in it."""
    peer = Peer(name="mr", ae_title="SKYRA", host="10.0.0.1", rights=(Right.STORE,))
    policy = AssociationPolicy("PACSGATE", [peer])
    register = AssociationRegister(policy, limits, database, "receiver-0")
    who = OpenAssociation()
    admission = policy.judge(Requestor("SKYRA", "PACSGATE", "10.0.0.1"))
    assert isinstance(admission, Admission)
    assert register._take_slot(who, admission) is None
    return register, who


def test_bytes_and_rights_are_those_of_the_association(database: Database, trail: MemorySink) -> None:
    register, who = admitted(database, AssociationLimits(maximum_bytes_per_association=1000))
    assert [register.count_bytes(who, 400) for _ in range(4)] == [True, True, False, False]
    assert register.may(who, Right.STORE)
    assert not register.may(who, Right.FIND)
    assert not register.may(OpenAssociation(), Right.STORE)


def test_a_stop_waits_until_an_association_is_closed_in_the_index(
    database: Database, trail: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, who = admitted(database, AssociationLimits())
    register._admitted[who].row_id = 7
    seen: list[int] = []
    monkeypatch.setattr("node.dimse.association.close_association", lambda *_: seen.append(len(register)))
    with capture_logs():
        register.ended(who)
    assert seen == [1]
    assert len(register) == 0


def test_what_an_association_brought_is_audited_once_by_study_and_outcome(
    database: Database, trail: MemorySink
) -> None:
    register, who = admitted(database, AssociationLimits())
    for study, outcome in [("1.1", "stored"), ("1.1", "stored"), ("1.2", "stored"), ("1.1", "duplicate")]:
        ingested = Ingested(outcome, study, "1.9", "1.9.9", None, None, [])  # type: ignore[arg-type]
        register.instance_received(who, MRImageStorage, ingested)
    assert trail.events() == []
    with capture_logs():
        register.ended(who)
        register.ended(who)
    assert len(register) == 0

    def counts(event: Event) -> tuple[str, dict[str, int]]:
        return event.action, {uid: n for uid, classes in event.objects.items() for n in classes.values()}

    assert [counts(e) for e in trail.events()] == [("C", {"1.1": 2}), ("C", {"1.2": 1}), ("R", {"1.1": 1})]


def test_patient_ids_are_in_the_trail_only_where_asked_for(database: Database, tmp_path: Path) -> None:
    file = mr_file(tmp_path, PatientID="MRN-7", StudyInstanceUID="1.1", PatientName="Doe^Jane")
    ingested = ingest(database, ObjectStore(tmp_path / "objects"), file, Reception("A", "B", datetime.now(UTC)))
    for include, expected in ((True, "MRN-7"), (False, "withheld")):
        with trail_into(include_patient_id=include) as sink:
            register, who = admitted(database, AssociationLimits())
            register.instance_received(who, MRImageStorage, ingested)
            with capture_logs():
                register.ended(who)
            messages = sink.xml()
        assert set(event_of(messages[0]).objects) == {"1.1", expected}
        assert b"Doe" not in messages[0]
        assert (b"MRN-7" in messages[0]) is include
    assert audit.trail().health() == {}
