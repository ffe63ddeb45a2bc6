"""A quick look at the header of a received instance: the index's attributes alone, in one pass over the elements.

The receiver needs some twenty attributes before it may answer; converting the whole header takes ten times as long and
is done later (`storage.describe`). What is plain and well-formed is read here (PS3.5 7.1, 7.5); at the first thing that
is not, this says so, and `storage.header.read_header` decides with all its care. Both agree on all that this accepts.
"""

import mmap
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from storage.part10 import MAX_HEADER_BYTES, UNDEFINED_LENGTH

_LONG_FORM: Final = frozenset(re.findall(rb"\w\w", b"OB OD OF OL OV OW SQ SV UC UN UR UT UV"))
"""VRs whose length has 32 bits (PS3.5 table 7.1-1)."""
_SHORT_FORM: Final = frozenset(re.findall(rb"\w\w", b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US"))
"""VRs whose length has 16 bits (PS3.5 table 7.1-2)."""
_SYNTAX_IMPLICIT: Final = "1.2.840.10008.1.2"
_NOT_EXPLICIT_LITTLE_ENDIAN: Final = frozenset(("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", ""))
_DATA_SET: Final = range(0x00030000, 1 << 32)
_PIXEL_DATA: Final = range(0x7FE00008, 0x7FE10000)
"""Where the thorough reader stops, too; padding (FFFC,FFFC) may follow without any (PS3.10 7.2)."""
_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITATION: Final = 0xFFFEE00D
_SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
_TRANSFER_SYNTAX: Final = 0x00020010
_META_BYTES: Final = 132
_LAST_BEFORE_META: Final = 0x0001FFFF
_MAX_NESTING: Final = 16
_MAX_ELEMENTS: Final = 200_000
"""More are left to the thorough reader, which has a budget of its own."""

PLAIN_TEXT: Final = re.compile(rb"(?:[!-<>-\[\]-~][ !-<>-\[\]-~]*)?")
"""Printable ASCII without ``\\`` and ``=``, which divide values, and without a leading space."""

_TWO_CAPITALS: Final = re.compile(rb"[A-Z]{2}")

_explicit = struct.Struct("<HH2sH")
_implicit = struct.Struct("<HHL")
_long = struct.Struct("<L")


class _NotPlain(Exception):
    """Something that only the thorough reader may judge."""


def scan(path: Path, wanted: Mapping[int, bytes]) -> tuple[str, dict[int, bytes]] | None:
    """Find the elements of a Part 10 file without converting anything.

    Parameters
    ----------
    path
        The file; its pages are mapped, not read: pixel data are never touched.
    wanted
        Tag -> VR of the elements asked for, all of the data set's top level.

    Returns
    -------
    The transfer syntax and, by tag, the raw values found; None where the thorough reader must look: another encoding
    than explicit or implicit VR little endian, elements out of order or cut short, a VR other than the wanted one, or
    a header larger than any ordinary one.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                return _scan(buffer, wanted)
        except (_NotPlain, ValueError, struct.error):  # ValueError: an empty file cannot be mapped
            return None


def _scan(buffer: mmap.mmap, wanted: Mapping[int, bytes]) -> tuple[str, dict[int, bytes]]:
    if buffer[128:132] != b"DICM":
        raise _NotPlain
    walk = _Walk(buffer, implicit=False)
    meta, at = walk.elements(_META_BYTES, {_TRANSFER_SYNTAX: b"UI"}, until=_DATA_SET, last=_LAST_BEFORE_META)
    syntax = meta.get(_TRANSFER_SYNTAX, b"").rstrip(b"\0").decode("ascii", "replace")
    if syntax in _NOT_EXPLICIT_LITTLE_ENDIAN:
        raise _NotPlain
    implicit = syntax == _SYNTAX_IMPLICIT
    if implicit and _TWO_CAPITALS.fullmatch(buffer[at + 4 : at + 6]):  # explicit after all: some senders do that
        raise _NotPlain
    found, _ = _Walk(buffer, implicit=implicit).elements(at, wanted, until=_PIXEL_DATA)
    return syntax, found


class _Walk:
    """A walk over encoded elements; raises `_NotPlain` or struct.error where it must not go on."""

    def __init__(self, buffer: mmap.mmap, *, implicit: bool) -> None:
        self._buffer = buffer
        self._end = len(buffer)
        self._implicit = implicit
        self._left = _MAX_ELEMENTS

    def elements(
        self, at: int, wanted: Mapping[int, bytes], until: range, last: int = -1
    ) -> tuple[dict[int, bytes], int]:
        """The raw values of ``wanted`` elements from ``at`` on, and where the first with a tag in ``until`` begins.

        ``last`` is the tag that all must follow.
        """
        found: dict[int, bytes] = {}
        buffer, end, implicit = self._buffer, self._end, self._implicit
        while at < end:
            if implicit:
                group, element, length = _implicit.unpack_from(buffer, at)
                vr, value_at = b"", at + 8
            else:
                group, element, vr, length = _explicit.unpack_from(buffer, at)
                value_at = at + 8
            tag = group << 16 | element
            if vr in _LONG_FORM:
                (length,) = _long.unpack_from(buffer, value_at)
                value_at += 4
            if tag in until:
                return found, at
            if vr and vr not in _LONG_FORM and vr not in _SHORT_FORM:
                raise _NotPlain
            self._left -= 1
            if tag <= last or not self._left or value_at > MAX_HEADER_BYTES:
                raise _NotPlain
            last = tag
            if tag in wanted:
                if vr not in (b"", wanted[tag]) or length == UNDEFINED_LENGTH or value_at + length > end:
                    raise _NotPlain
                found[tag] = buffer[value_at : value_at + length]
            at = self._after_sequence(value_at, tag, vr, 0) if length == UNDEFINED_LENGTH else value_at + length
        if at != end:
            raise _NotPlain
        return found, at

    def _after_sequence(self, at: int, tag: int, vr: bytes, depth: int) -> int:
        """Where the sequence ``tag`` of undefined length whose items begin at ``at`` has ended."""
        if vr not in (b"", b"SQ") or depth >= _MAX_NESTING:
            raise _NotPlain
        if not vr and dictionary_has_tag(tag) and dictionary_VR(tag) != "SQ":
            raise _NotPlain
        while True:
            item_tag, length = self._item(at)
            at += 8
            if item_tag == _SEQUENCE_DELIMITATION:
                return at
            if item_tag != _ITEM:
                raise _NotPlain
            at = self._after_item(at, depth, None if length == UNDEFINED_LENGTH else at + length)

    def _after_item(self, at: int, depth: int, end: int | None) -> int:
        """Where the item whose elements begin at ``at`` has ended: at ``end``, or behind its delimitation.

        Also where ``end`` is known its elements are looked at: the thorough reader does, and may go astray in them.
        """
        buffer = self._buffer
        while at != end:
            self._left -= 1
            if not self._left:
                raise _NotPlain
            tag, length = self._item(at)
            at += 8
            if tag == _ITEM_DELIMITATION:
                if end is not None or length:
                    raise _NotPlain
                return at
            vr = b""
            if not self._implicit:
                vr = buffer[at - 4 : at - 2]
                if vr in _LONG_FORM:
                    (length,) = _long.unpack_from(buffer, at)
                    at += 4
                elif vr in _SHORT_FORM:
                    length >>= 16
                else:
                    raise _NotPlain
            at = self._after_sequence(at, tag, vr, depth + 1) if length == UNDEFINED_LENGTH else at + length
            if end is not None and at > end:
                raise _NotPlain
        return at

    def _item(self, at: int) -> tuple[int, int]:
        group, element, length = _implicit.unpack_from(self._buffer, at)
        return group << 16 | element, length


def plain_text(value: bytes) -> str | None:
    """The text of a value that needs no conversion, None where it does."""
    stripped = value.rstrip(b"\0 ")
    return stripped.decode("ascii") if PLAIN_TEXT.fullmatch(stripped) else None


def plain_integer(value: bytes) -> int | None:
    """The number of an integer string (VR IS) of one value, None where it is none."""
    text: Any = value.strip(b" ").rstrip(b"\0 ")
    return int(text) if re.fullmatch(rb"[+-]?[0-9]{1,10}", text) else None
