"""Command sets of the C-STORE service (PS3.7 6.3, 9.3.1, E.1): the two messages that pass by the thousand.

All other messages are pynetdicom's; it encodes and decodes through a pydicom data set, which takes as long as
everything else that happens to an instance.
"""

import struct
from dataclasses import dataclass
from typing import Final

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
NO_DATA_SET: Final = 0x0101
"""Command Data Set Type of a message without data set; any other value says there is one."""

_AFFECTED_SOP_CLASS_UID: Final = 0x0002
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO: Final = 0x0120
_COMMAND_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_ERROR_COMMENT: Final = 0x0902
_AFFECTED_SOP_INSTANCE_UID: Final = 0x1000

_element = struct.Struct("<HHL")
_unsigned_short = struct.Struct("<H")


class MalformedCommand(ValueError):
    """The bytes are not a command set, or not that of the message they say they are."""


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 table 9.3-1), as far as it matters to who stores."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def elements_of(command: bytes) -> dict[int, bytes]:
    """The raw values of a command set by element number (group 0000). Raises `MalformedCommand`."""
    found: dict[int, bytes] = {}
    at, end = 0, len(command)
    while at < end:
        if end - at < _element.size:
            raise MalformedCommand("the command set ends within an element")
        group, element, length = _element.unpack_from(command, at)
        at += _element.size
        if group != 0 or length > end - at:
            raise MalformedCommand(f"the command set holds an element ({group:04X},{element:04X}) of {length} bytes")
        found[element] = command[at : at + length]
        at += length
    return found


def command_field(elements: dict[int, bytes]) -> int:
    """Which message it is (PS3.7 E.1). Raises `MalformedCommand`."""
    return _number(elements, _COMMAND_FIELD, "Command Field")


def store_request(elements: dict[int, bytes]) -> StoreRequest:
    """Read a C-STORE-RQ. Raises `MalformedCommand` where a part is missing that no answer can do without."""
    if _number(elements, _COMMAND_DATA_SET_TYPE, "Command Data Set Type") == NO_DATA_SET:
        raise MalformedCommand("a C-STORE request without a data set")
    return StoreRequest(
        message_id=_number(elements, _MESSAGE_ID, "Message ID"),
        sop_class_uid=_uid(elements, _AFFECTED_SOP_CLASS_UID, "Affected SOP Class UID"),
        sop_instance_uid=_uid(elements, _AFFECTED_SOP_INSTANCE_UID, "Affected SOP Instance UID"),
    )


def store_response(request: StoreRequest, status: int, error_comment: str) -> bytes:
    """Encode a C-STORE-RSP. ``error_comment`` is a long string (LO), empty for none."""
    body = b"".join(
        (
            _encoded(_AFFECTED_SOP_CLASS_UID, _padded(request.sop_class_uid, b"\0")),
            _encoded(_COMMAND_FIELD, _unsigned_short.pack(C_STORE_RSP)),
            _encoded(_MESSAGE_ID_BEING_RESPONDED_TO, _unsigned_short.pack(request.message_id)),
            _encoded(_COMMAND_DATA_SET_TYPE, _unsigned_short.pack(NO_DATA_SET)),
            _encoded(_STATUS, _unsigned_short.pack(status)),
            _encoded(_ERROR_COMMENT, _padded(error_comment, b" ")) if error_comment else b"",
            _encoded(_AFFECTED_SOP_INSTANCE_UID, _padded(request.sop_instance_uid, b"\0")),
        )
    )
    return _encoded(0x0000, struct.pack("<L", len(body))) + body


def _encoded(element: int, value: bytes) -> bytes:
    return _element.pack(0, element, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _number(elements: dict[int, bytes], element: int, name: str) -> int:
    value = elements.get(element, b"")
    if len(value) != _unsigned_short.size:
        raise MalformedCommand(f"the command set has no {name} (0000,{element:04X})")
    return int(_unsigned_short.unpack(value)[0])


def _uid(elements: dict[int, bytes], element: int, name: str) -> str:
    value = elements.get(element, b"").rstrip(b"\0 ")
    if not value or len(value) > 64 or not value.isascii():
        raise MalformedCommand(f"the command set has no {name} (0000,{element:04X})")
    return value.decode("ascii")
