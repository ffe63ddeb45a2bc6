"""Our C-STORE command sets against pynetdicom's, in both directions; and whatever else arrives as a command set."""

import struct
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_ECHO_RQ as EchoRequestMessage
from pynetdicom.dimse_messages import C_STORE_RQ as StoreRequestMessage
from pynetdicom.dimse_messages import C_STORE_RSP as StoreResponseMessage
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA

from node.dimse.command_set import (
    C_STORE_RQ,
    MalformedCommand,
    StoreRequest,
    command_field,
    elements_of,
    store_request,
    store_response,
)
from node.dimse.pynetdicom_options import configure_pynetdicom
from node.dimse.storage_scp import error_comment
from tests.fixtures.raw_dimse import store_command

configure_pynetdicom()

COMPONENT = st.integers(0, 10**12).map(str)
UIDS = st.lists(COMPONENT, min_size=1, max_size=12).map(".".join).filter(lambda uid: len(uid) <= 64)
"""Of odd and even lengths: encoded, the odd ones are padded."""
US = st.integers(0, 0xFFFF)
STATUSES = st.sampled_from([0x0000, 0x0110, 0xA700, 0xA900, 0xB006, 0xC000])


class NoContexts:
    """What `DIMSEMessage.decode_msg` asks an association for."""

    _accepted_cx: dict[int, object] = {}  # noqa: RUF012


def encoded_by_pynetdicom(message: DIMSEMessage, maximum_pdu_bytes: int = 0) -> bytes:
    """The command set of a message, put together from its presentation data values."""
    values = [
        value
        for data in message.encode_msg(1, maximum_pdu_bytes)
        for _, value in data.presentation_data_value_list
        if value[0] & 1
    ]
    assert [value[0] for value in values] == [1] * (len(values) - 1) + [3]
    return b"".join(value[1:] for value in values)


def decoded_by_pynetdicom(command: bytes, cut_at: int | None = None) -> C_STORE:
    """The primitive that pynetdicom makes of a response, whole or in two fragments."""
    message = DIMSEMessage()
    cuts = [command] if cut_at is None else [command[:cut_at], command[cut_at:]]
    for number, fragment in enumerate(cuts):
        data = P_DATA()
        control = 3 if number == len(cuts) - 1 else 1
        data.presentation_data_value_list.append([1, bytes([control]) + fragment])
        complete = message.decode_msg(data, NoContexts())
    assert complete
    assert isinstance(message, StoreResponseMessage)
    primitive = message.message_to_primitive()
    assert isinstance(primitive, C_STORE)
    return primitive


def request_primitive(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> C_STORE:
    primitive = C_STORE()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = sop_class_uid
    primitive.AffectedSOPInstanceUID = sop_instance_uid
    primitive.Priority = 2
    primitive.DataSet = BytesIO(b"\0\0")
    return primitive


@given(US, UIDS, UIDS, st.booleans(), st.sampled_from([0, 13, 64, 16384]))
def test_what_pynetdicom_sends_is_read(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, is_move: bool, maximum_pdu_bytes: int
) -> None:
    primitive = request_primitive(message_id, sop_class_uid, sop_instance_uid)
    if is_move:
        primitive.MoveOriginatorApplicationEntityTitle = "MOVER"
        primitive.MoveOriginatorMessageID = 7
    message = StoreRequestMessage()
    message.primitive_to_message(primitive)
    elements = elements_of(encoded_by_pynetdicom(message, maximum_pdu_bytes))
    assert command_field(elements) == C_STORE_RQ
    assert store_request(elements) == StoreRequest(message_id, sop_class_uid, sop_instance_uid)


@given(US, UIDS, UIDS)
def test_what_our_raw_sender_sends_is_read(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> None:
    elements = elements_of(store_command(sop_class_uid, sop_instance_uid, message_id))
    assert store_request(elements) == StoreRequest(message_id, sop_class_uid, sop_instance_uid)


@given(US, UIDS, UIDS, STATUSES, st.text(max_size=100).map(error_comment), st.floats(0, 1))
@example(0, "1.2", "1.3.4", 0xC000, "", 0.0)
@example(0xFFFF, "1.2.3", "1", 0xA700, "odd", 0.5)
def test_our_response_is_read_by_pynetdicom(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, status: int, comment: str, cut: float
) -> None:
    command = store_response(StoreRequest(message_id, sop_class_uid, sop_instance_uid), status, comment)
    for cut_at in (None, int(cut * len(command))):
        primitive = decoded_by_pynetdicom(command, cut_at)
        assert primitive.is_valid_response
        assert primitive.MessageIDBeingRespondedTo == message_id
        assert primitive.AffectedSOPClassUID == UID(sop_class_uid)
        assert primitive.AffectedSOPInstanceUID == UID(sop_instance_uid)
        assert primitive.Status == status
        assert (primitive.ErrorComment or "") == comment


@given(US, UIDS, UIDS, STATUSES, st.text("abc ", min_size=1, max_size=64).map(str.strip))
def test_our_response_has_pynetdicoms_bytes(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, status: int, comment: str
) -> None:
    """Byte for byte, so that a peer that takes pynetdicom's responses takes ours."""
    primitive = request_primitive(message_id, sop_class_uid, sop_instance_uid)
    primitive.MessageID, primitive.DataSet = None, None
    primitive.MessageIDBeingRespondedTo = message_id
    primitive.Status = status
    primitive.ErrorComment = comment or None
    message = StoreResponseMessage()
    message.primitive_to_message(primitive)
    expected = encoded_by_pynetdicom(message)
    assert store_response(StoreRequest(message_id, sop_class_uid, sop_instance_uid), status, comment) == expected


def read_all(command: bytes) -> StoreRequest | int:
    """As the receiver reads a command set; raises `MalformedCommand`."""
    elements = elements_of(command)
    field = command_field(elements)
    return store_request(elements) if field == C_STORE_RQ else field


def assert_sound_or_refused(command: bytes) -> None:
    """Nothing but `MalformedCommand` is raised, and what is read can be answered so that a peer understands it."""
    try:
        request = read_all(command)
    except MalformedCommand:
        return
    if isinstance(request, StoreRequest):
        assert 0 < len(request.sop_instance_uid) <= 64
        answer = decoded_by_pynetdicom(store_response(request, 0xA700, ""))
        assert answer.MessageIDBeingRespondedTo == request.message_id


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(command: bytes) -> None:
    assert_sound_or_refused(command)


GOOD = store_command("1.2.840.10008.5.1.4.1.1.4", "1.2.3.4.5")
MUTATION = st.tuples(
    st.sampled_from(["set", "insert", "delete", "truncate", "duplicate"]),
    st.integers(0, len(GOOD)),
    st.integers(0, 16),
    st.binary(min_size=1, max_size=8),
)


def mutated(command: bytes, mutations: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, at, length, data in mutations:
        after = command[at + length :]
        command = {
            "set": command[:at] + data + command[at + len(data) :],
            "insert": command[:at] + data + command[at:],
            "delete": command[:at] + after,
            "truncate": command[:at],
            "duplicate": command[: at + length] + command[at:],
        }[kind]
    return command


@given(st.lists(MUTATION, min_size=1, max_size=4))
def test_a_mutated_request_is_read_or_refused(mutations: list[tuple[str, int, int, bytes]]) -> None:
    assert_sound_or_refused(mutated(GOOD, mutations))


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


SOUND = {0x0100: b"\x01\x00", 0x0110: b"\x05\x00", 0x0800: b"\x00\x00", 0x0002: b"1.2\0", 0x1000: b"1.2.3\0"}


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0x0100, b""),
        (0x0100, b"\x01"),
        (0x0110, b"\x05\x00\x00\x00"),
        (0x0800, b"\x01\x01"),
        (0x0800, b""),
        (0x0002, b""),
        (0x0002, b"\0\0"),
        (0x0002, b"1" * 66),
        (0x1000, b"\xff.2"),
        (0x1000, b"  "),
    ],
)
def test_what_no_answer_can_do_without_is_asked_for(number: int, value: bytes) -> None:
    sound = b"".join(element(*item) for item in SOUND.items())
    assert read_all(sound) == StoreRequest(5, "1.2", "1.2.3")
    broken = b"".join(element(*item) for item in (SOUND | {number: value}).items())
    with pytest.raises(MalformedCommand, match=f"0000,{number:04X}|without a data set"):
        read_all(broken)


@pytest.mark.parametrize(
    "command",
    [element(0x0100, b"\x01\x00", group=8), element(0x0100, b"\x01\x00")[:-1], element(0x0100, b"")[:7], b"\0"],
    ids=["another group", "value cut short", "header cut short", "one byte"],
)
def test_what_is_no_command_set_is_refused(command: bytes) -> None:
    with pytest.raises(MalformedCommand):
        elements_of(command)


def test_other_messages_are_told_by_their_field() -> None:
    primitive = C_ECHO()
    primitive.MessageID = 9
    primitive.AffectedSOPClassUID = "1.2.840.10008.1.1"
    message = EchoRequestMessage()
    message.primitive_to_message(primitive)
    assert read_all(encoded_by_pynetdicom(message)) == 0x0030
