"""The association policy, its lists, and the statuses, without a network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.service_class_n import ProcedureStepServiceClass, StorageCommitmentServiceClass

from node.dimse.contexts import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, is_storage_context, supported_contexts
from node.dimse.policy import Admission, AssociationPolicy, Rejection, Requestor
from node.dimse.storage_scp import MAXIMUM_ERROR_COMMENT_LENGTH, StoreStatus, error_comment, status_of
from node.settings import Peer, Right
from storage.errors import (
    IndexUnavailable,
    MismatchedInstance,
    ObjectStoreUnavailable,
    StorageError,
    UnreadableInstance,
)

NON_PATIENT_OBJECTS = {  # PS3.4 table GG.3-1
    "HangingProtocolStorage",
    "ColorPaletteStorage",
    "GenericImplantTemplateStorage",
    "ImplantAssemblyTemplateStorage",
    "ImplantTemplateGroupStorage",
    "CTDefinedProcedureProtocolStorage",
    "XADefinedProcedureProtocolStorage",
    "ProtocolApprovalStorage",
    "InventoryStorage",
}
NO_STORAGE_SERVICE = {
    "MediaStorageDirectoryStorage",
    "StorageCommitmentPushModel",
    "StorageCommitmentPullModel",
}


def test_every_storage_sop_class_the_libraries_know_is_listed() -> None:
    """A newer pydicom or pynetdicom with another class makes this fail: decide about the class, then list it."""
    known = {
        uid: keyword
        for uid, (name, kind, _, _, keyword) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name
    }
    for keyword, uid in sop_class._STORAGE_CLASSES.items():
        known.setdefault(str(uid), keyword)
    left_out = NON_PATIENT_OBJECTS | NO_STORAGE_SERVICE
    assert {uid for uid, keyword in known.items() if keyword not in left_out} == set(STORAGE_SOP_CLASSES)
    assert {"LabelMapSegmentationStorage", "ParametricMapStorage"} <= set(STORAGE_SOP_CLASSES.values())


def test_every_context_reaches_its_service() -> None:
    """pynetdicom aborts associations that use a class it knows no service for."""
    private = "1.3.12.2.1107.5.9.1"
    contexts = supported_contexts([private])
    verification, step, commitment, *storage = contexts
    assert not any(is_storage_context(context) for context in (verification, step, commitment))
    services = [sop_class.uid_to_service_class(str(c.abstract_syntax)) for c in (step, commitment)]
    assert services == [ProcedureStepServiceClass, StorageCommitmentServiceClass]
    assert (commitment.scu_role, commitment.scp_role) == (True, True)
    assert {str(context.abstract_syntax) for context in storage} == {*STORAGE_SOP_CLASSES, private}
    assert all(sop_class.uid_to_service_class(str(c.abstract_syntax)) is StorageServiceClass for c in storage)
    assert all(tuple(context.transfer_syntax) == TRANSFER_SYNTAXES for context in storage)
    assert not any("Deflate" in UID_dictionary[uid][4] for uid in TRANSFER_SYNTAXES)


SCANNER = Peer(name="scanner", ae_title="SKYRA", host="127.0.0.1")
CONSOLE = Peer(name="console", ae_title="CONSOLE", host="localhost", rights=(Right.ECHO,))


def rights(policy: AssociationPolicy, calling: str, called: str, address: str) -> frozenset[Right] | Rejection:
    verdict = policy.judge(Requestor(calling, called, address))
    return verdict.rights if isinstance(verdict, Admission) else verdict


@pytest.mark.parametrize(
    ("calling", "called", "address", "expected"),
    [
        ("SKYRA", "PACSGATE", "127.0.0.1", frozenset({Right.ECHO, Right.STORE})),
        (" SKYRA ", "PACSGATE ", "127.0.0.1", frozenset({Right.ECHO, Right.STORE})),
        ("CONSOLE", "PACSGATE", "127.0.0.1", frozenset({Right.ECHO})),
        ("SKYRA", "PACSGATE", "10.0.0.9", (1, 1, 3)),
        ("OTHER", "PACSGATE", "127.0.0.1", (1, 1, 3)),
        ("skyra", "PACSGATE", "127.0.0.1", (1, 1, 3)),
        ("SKYRA", "ELSEWHERE", "127.0.0.1", (1, 1, 7)),
    ],
)
def test_who_may_associate(calling: str, called: str, address: str, expected: object) -> None:
    policy = AssociationPolicy("PACSGATE", (SCANNER, CONSOLE), require_called_ae_title=True)
    verdict = rights(policy, calling, called, address)
    found = (verdict.result, verdict.source, verdict.diagnostic) if isinstance(verdict, Rejection) else verdict
    assert found == expected


def test_one_ae_title_at_several_hosts() -> None:
    first = Peer(name="ct", ae_title="SCANNER", host="10.0.0.1", rights=(Right.STORE,))
    second = Peer(name="mr", ae_title="SCANNER", host="10.0.0.2", rights=(Right.ECHO,))
    policy = AssociationPolicy("PACSGATE", (first, second))
    assert rights(policy, "SCANNER", "ANY", "10.0.0.1") == {Right.STORE}
    assert rights(policy, "SCANNER", "ANY", "10.0.0.2") == {Right.ECHO}
    assert isinstance(rights(policy, "SCANNER", "ANY", "10.0.0.3"), Rejection)


@given(calling=st.text(max_size=16), called=st.text(max_size=16), address=st.ip_addresses().map(str))
def test_strangers_are_never_let_in(calling: str, called: str, address: str) -> None:
    policy = AssociationPolicy("PACSGATE", (SCANNER,))
    if calling.strip() != "SKYRA" or address != "127.0.0.1":
        assert isinstance(rights(policy, calling, called, address), Rejection)


def test_a_peer_whose_host_cannot_be_resolved_is_not_let_in() -> None:
    policy = AssociationPolicy("PACSGATE", (Peer(name="gone", ae_title="GONE", host="no-such-host.invalid"),))
    assert isinstance(rights(policy, "GONE", "PACSGATE", "127.0.0.1"), Rejection)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MismatchedInstance("x"), 0xA900),
        (UnreadableInstance("x"), 0xC000),
        (ObjectStoreUnavailable("x"), 0xA700),
        (IndexUnavailable("x"), 0xA700),
        (OSError("x"), 0xA700),
        (StorageError("x"), 0x0110),
    ],
)
def test_each_error_has_its_status(error: StorageError | OSError, status: int) -> None:
    assert status_of(error) == StoreStatus(status)


@given(st.text())
def test_an_error_comment_is_a_valid_long_string(reason: str) -> None:
    comment = error_comment(reason)
    assert len(comment) <= MAXIMUM_ERROR_COMMENT_LENGTH
    assert all(" " <= character <= "~" and character != "\\" for character in comment)
