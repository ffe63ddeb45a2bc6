"""The quick look at a header and the thorough reader agree: whatever the first accepts, the second reads alike."""

import logging
import struct
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from storage.errors import UnreadableInstance
from storage.header import IndexAttributes, _quick_attributes, read_header, read_index_attributes
from storage.spool import part10_prefix
from tests.fixtures.instances import mr_data_set, part10

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
UNDEFINED = 0xFFFFFFFF
LONG_FORM = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
MR = MRImageStorage.encode()

Element = tuple[int, str, Any]
"""Tag, VR, and the value: bytes, or for a sequence its items with how their lengths are given."""


def encoded(element: Element, *, implicit: bool) -> bytes:
    """One element (PS3.5 7.1)."""
    tag, vr, value = element
    length, data = (len(value), value) if isinstance(value, bytes) else encoded_items(*value, implicit=implicit)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<L", length) + data
    if vr in LONG_FORM:
        return head + struct.pack("<2sHL", vr.encode(), 0, length) + data
    return head + struct.pack("<2sH", vr.encode(), length & 0xFFFF) + data


def encoded_items(
    items: Sequence[Sequence[Element]], defined_sequence: bool, defined_items: bool, *, implicit: bool
) -> tuple[int, bytes]:
    """Length field and value of a sequence (PS3.5 7.5)."""
    data = b""
    for item in items:
        body = encoded_all(item, implicit=implicit)
        length = len(body) if defined_items else UNDEFINED
        data += struct.pack("<HHL", *ITEM, length) + body
        data += b"" if defined_items else struct.pack("<HHL", *ITEM_END, 0)
    if defined_sequence:
        return len(data), data
    return UNDEFINED, data + struct.pack("<HHL", *SEQUENCE_END, 0)


def encoded_all(elements: Sequence[Element], *, implicit: bool) -> bytes:
    ordered = sorted(elements, key=lambda element: element[0])
    return b"".join(encoded(element, implicit=implicit) for element in ordered)


def file_bytes(elements: Sequence[Element], syntax: str) -> bytes:
    """A file as the receiver writes it."""
    return part10_prefix(MRImageStorage, "1.2.3.4.5", syntax) + encoded_all(
        elements, implicit=syntax == ImplicitVRLittleEndian
    )


def agree(path: Path) -> bool:
    """Assert that both readers agree on a file; whether the quick one accepted it.

    The thorough one may name faults: only attributes are the quick one's business.
    """
    quick = _quick_attributes(path)
    if quick is None:
        try:
            read_index_attributes(path)
        except UnreadableInstance:
            return False
        return False
    thorough = read_header(path)
    for name in (field.name for field in fields(IndexAttributes) if field.name != "faults"):
        assert getattr(quick, name) == getattr(thorough, name), name
    return True


# Values as senders write them: plain, padded, several, in other character sets, and not fitting their VR.

PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.encode)
SPECIAL = st.lists(
    st.sampled_from([b"\\", b"=", b"^", b" ", b"\0", b"\t", b"\x1b$B", b"~", b"\xe9", b"\xc3\xa9", b"\x83\x84", b"a"]),
    max_size=8,
).map(b"".join)
PADDING = st.sampled_from([b"", b" ", b"  ", b"\0", b"\0\0", b" \0", b"\0 "])
TEXT = st.tuples(PADDING, PLAIN | SPECIAL, PADDING).map(b"".join)
UID_VALUES = st.tuples(
    st.lists(st.integers(0, 999).map(lambda n: str(n).encode()), min_size=1, max_size=6).map(b".".join)
    | st.sampled_from([b"1.2\\1.3", b"", b"1.2.x", b"1" * 64, b"1" * 65, b"1..2", b"01.2"]),
    PADDING,
).map(b"".join)
NUMBERS = st.one_of(
    st.integers(-(2**33), 2**33).map(lambda n: str(n).encode()),
    st.sampled_from(
        [b"", b"+5", b"-0", b"007", b"1.0", b"1e3", b"1\\2", b"\\1", b"x", b"2147483647", b"2147483648", b"-2147483648"]
    ),
)
INTEGER_STRINGS = st.tuples(PADDING, NUMBERS, PADDING).map(b"".join)
CHARACTER_SETS = st.sampled_from(
    [
        b"ISO_IR 100",
        b"ISO_IR 192",
        b"ISO_IR 13 ",
        b"GB18030",
        b"GBK",
        b"\\ISO 2022 IR 87",
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\\ISO 2022 IR 149",
        b"ISO 2022 IR 6\\ISO 2022 IR 58",
        b"ISO-IR 100",
        b"ISO_IR 999",
        b"",
        # Names of Python's codecs, which pydicom takes for character sets.
        b"utf_16",
        b"cp037",
        b"utf_7 ",
        b"hex ",
        b"idna",
    ]
)
TEXTS = {
    0x00100010: "PN",
    0x00100020: "LO",
    0x00100021: "LO",
    0x00100030: "DA",
    0x00100040: "CS",
    0x00080020: "DA",
    0x00080030: "TM",
    0x00200010: "SH",
    0x00080050: "SH",
    0x00081030: "LO",
    0x00080090: "PN",
    0x00080060: "CS",
    0x0008103E: "LO",
    0x00180015: "CS",
    0x00080070: "LO",
    0x00081010: "SH",
}
INTEGERS = {0x00200011: "IS", 0x00200013: "IS", 0x00280008: "IS"}
UIDS = {0x0020000D: b"1.2.3", 0x0020000E: b"1.2.3.4", 0x00080018: b"1.2.3.4.5", 0x00080016: MR}
OTHER_VRS = st.sampled_from(["UN", "LO", "OB", "ST", "UT", "US", "DS", "XX", "OW"])


def some(strategies: dict[int, st.SearchStrategy[Element]]) -> st.SearchStrategy[list[Element]]:
    """Any of the elements."""
    return st.fixed_dictionaries({}, optional=strategies).map(lambda found: list(found.values()))


def valued(tag: int, vr: str, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[Element]:
    """An element, once in a while with a VR that is not its own."""
    ours = st.tuples(st.just(tag), st.just(vr), values)
    return st.one_of(*[ours] * 15, st.tuples(st.just(tag), OTHER_VRS, values))


def sequence(tag: int, inside: st.SearchStrategy[list[Element]]) -> st.SearchStrategy[Element]:
    items = st.lists(inside, max_size=3)
    return st.tuples(st.just(tag), st.just("SQ"), st.tuples(items, st.booleans(), st.booleans()))


BYTES = st.binary(max_size=12)
INSIDE = {
    0x00080005: st.tuples(st.just(0x00080005), st.just("CS"), CHARACTER_SETS),
    0x00080018: st.tuples(st.just(0x00080018), st.just("UI"), UID_VALUES),
    0x00090010: st.tuples(st.just(0x00090010), st.just("LO"), PLAIN),
    0x00091001: st.tuples(st.just(0x00091001), OTHER_VRS, BYTES),
    0x00100010: st.tuples(st.just(0x00100010), st.just("PN"), TEXT),
    0x00281052: st.tuples(st.just(0x00281052), st.just("DS"), BYTES),
}
NESTED = st.recursive(
    some(INSIDE),
    lambda inside: st.tuples(some(INSIDE), sequence(0x00081140, inside), sequence(0x00191002, inside)).map(
        lambda parts: [*parts[0], *parts[1:]]
    ),
    max_leaves=6,
)
OPTIONAL = {
    0x00080000: st.tuples(st.just(0x00080000), st.just("UL"), st.just(b"\x10\0\0\0")),
    0x00080005: st.tuples(st.just(0x00080005), st.just("CS"), CHARACTER_SETS),
    **{tag: valued(tag, vr, TEXT) for tag, vr in TEXTS.items()},
    **{tag: valued(tag, vr, INTEGER_STRINGS) for tag, vr in INTEGERS.items()},
    0x00081115: sequence(0x00081115, NESTED),
    0x00090010: st.tuples(st.just(0x00090010), st.just("LO"), PLAIN),
    0x00091001: st.tuples(st.just(0x00091001), OTHER_VRS, BYTES),
    0x00191002: sequence(0x00191002, NESTED),
    0x00280010: st.tuples(st.just(0x00280010), st.just("US"), st.just(b"\2\0")),
    0x7FE00010: st.tuples(st.just(0x7FE00010), st.just("OW"), st.binary(max_size=8)),
    0xFFFCFFFC: st.tuples(st.just(0xFFFCFFFC), st.just("OB"), st.just(b"\0" * 8)),
}
PLAIN_DATA_SET: list[Element] = [
    *((tag, "UI", value) for tag, value in UIDS.items()),
    *((tag, vr, b"A-1 ") for tag, vr in TEXTS.items()),
    *((tag, vr, b"12") for tag, vr in INTEGERS.items()),
    (0x00080005, "CS", b"ISO_IR 100"),
    (0x00090010, "LO", b"MAKER "),
    (0x00091001, "UN", b"\1\2"),
    (0x7FE00010, "OW", bytes(8)),
]
ODD = st.lists(st.one_of(*OPTIONAL.values(), *(valued(tag, "UI", UID_VALUES) for tag in UIDS)), max_size=4)
DATA_SETS = ODD.map(lambda odd: [*{element[0]: element for element in (*PLAIN_DATA_SET, *odd)}.values()])
"""Plain ones with a few odd elements: the quick reader accepts about half of them."""


@pytest.fixture(scope="module", autouse=True)
def _quiet_pydicom() -> Iterator[None]:
    """It describes every odd value in its log, which takes longer than reading it."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scan") / "instance"


@given(elements=DATA_SETS, syntax=st.sampled_from(SYNTAXES))
@settings(deadline=None, max_examples=1000)
def test_both_readers_agree_on_any_data_set(path: Path, elements: list[Element], syntax: str) -> None:
    path.write_bytes(file_bytes(elements, syntax))
    agree(path)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=["explicit", "implicit"])
@pytest.mark.parametrize("defined_sequence", [True, False])
@pytest.mark.parametrize("defined_items", [True, False])
def test_plain_data_sets_take_the_quick_way(
    path: Path, syntax: str, defined_sequence: bool, defined_items: bool
) -> None:
    inner: Element = (0x00081150, "UI", b"1.2")
    lengths = defined_sequence, defined_items
    nested: Element = (0x00081199, "SQ", ([[inner], [inner]], *lengths))
    outer: Element = (0x00081115, "SQ", ([[inner, nested], []], *lengths))
    path.write_bytes(file_bytes([*PLAIN_DATA_SET, outer], syntax))
    assert agree(path)


def test_implicit_bytes_under_an_explicit_syntax_and_the_reverse(path: Path) -> None:
    """Some senders do that, and pydicom notices: the quick way must not read something else out of it."""
    for declared, used in (SYNTAXES, SYNTAXES[::-1]):
        body = encoded_all(PLAIN_DATA_SET, implicit=used == ImplicitVRLittleEndian)
        path.write_bytes(part10_prefix(MRImageStorage, "1.2.3.4.5", declared) + body)
        assert not agree(path)
        assert read_header(path).patient["patient_name"] == "A-1"


SOUND = tuple(
    data
    for syntax in SYNTAXES
    for data in (
        part10(mr_data_set(SpecificCharacterSet="ISO_IR 100"), syntax),
        file_bytes(
            [
                *PLAIN_DATA_SET,
                (
                    0x00081115,
                    "SQ",
                    ([[(0x00081199, "SQ", ([[(0x00081150, "UI", b"1.2\0")]], True, True))]], False, True),
                ),
                (0x00081140, "SQ", ([[(0x00081199, "SQ", ([[], []], False, False))]], False, False)),
            ],
            syntax,
        ),
    )
)
PIECES = st.one_of(
    st.binary(min_size=1, max_size=4),
    st.sampled_from(
        [
            b"\xff\xff\xff\xff",
            struct.pack("<HHL", *ITEM, 0),
            struct.pack("<HHL", *ITEM_END, 0),
            struct.pack("<HHL", *SEQUENCE_END, 0),
            b"SQ\0\0",
            b"UN\0\0",
            b"OB\0\0",
            b"\0\0\0\0",
        ]
    ),
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete"]), st.integers(132, 900), PIECES), min_size=1, max_size=6
)


@given(sound=st.sampled_from(SOUND), changes=CHANGES, length=st.integers(132, 1200))
@settings(deadline=None, max_examples=1000)
def test_both_readers_agree_on_mutated_files(
    path: Path, sound: bytes, changes: list[tuple[str, int, bytes]], length: int
) -> None:
    """Nothing but `UnreadableInstance` is raised, and what the quick reader accepts the thorough one reads alike."""
    data = sound
    for kind, at, piece in changes:
        rest = {"set": data[at + len(piece) :], "insert": data[at:], "delete": data[at + len(piece) :]}[kind]
        data = data[:at] + (b"" if kind == "delete" else piece) + rest
    path.write_bytes(data[:length] if length < 700 else data)
    agree(path)


@pytest.mark.parametrize("sound", SOUND)
def test_files_cut_short_anywhere(path: Path, sound: bytes) -> None:
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        agree(path)


@pytest.mark.parametrize("sound", SOUND[1::2])
def test_each_byte_set_to_the_extremes(path: Path, sound: bytes) -> None:
    for at in range(132, len(sound)):
        for value in (0xFF, sound[at] ^ 1):
            path.write_bytes(sound[:at] + bytes([value]) + sound[at + 1 :])
            agree(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_index_attributes(tmp_path / "nothing")


@pytest.mark.real_data
def test_both_readers_agree_on_real_files(shared_data: Path) -> None:
    quick = total = 0
    for file in sorted(shared_data.rglob("*")):
        if file.is_file() and file.suffix not in (".md", ".csv"):
            total += 1
            quick += agree(file)
    assert total > 1500
    assert quick > total / 2, "the quick way is not taken by ordinary files"
