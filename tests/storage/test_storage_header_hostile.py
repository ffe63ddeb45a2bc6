"""Header reading against bytes made to break it: bounded in depth, size and memory, and refusing in words."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from storage import part10
from storage.dicom_json import MAX_FAULTS, MAX_NESTING
from storage.errors import UnreadableInstance
from storage.header import InstanceHeader, dataset_from_json, read_header
from tests.fixtures.instances import mr_data_set
from tests.fixtures.instances import part10 as part10_bytes

_SOUND = part10_bytes(mr_data_set(EchoTime=1.5, ImagePositionPatient=[1, 2, 3]))
_IMPLICIT = part10_bytes(mr_data_set(), transfer_syntax_uid=ImplicitVRLittleEndian)
_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
_ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def _read(folder: Path, data: bytes) -> InstanceHeader:
    path = folder / "hostile"
    path.write_bytes(data)
    return read_header(path)


def _inserted(element: bytes, before: int = 0x0010) -> bytes:
    """The sound instance with ``element`` (explicit VR) before its group ``before``."""
    mark = struct.pack("<HH", before, 0x0010) + b"PN"
    assert _SOUND.count(mark) == 1
    return _SOUND.replace(mark, element + mark)


def _sequence(value: bytes, length: int = 0xFFFFFFFF) -> bytes:
    return struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, length) + value


def _nested(depth: int, defined_length: bool) -> bytes:
    value = b""
    for _ in range(depth):
        if defined_length:
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value
            value = _sequence(item, len(item))
        else:
            value = _sequence(_ITEM + value + _ITEM_END + _SEQUENCE_END)
    return value


@pytest.mark.parametrize("defined_length", [True, False])
def test_nesting_is_bounded(tmp_path: Path, defined_length: bool) -> None:
    assert _read(tmp_path, _inserted(_nested(MAX_NESTING, defined_length))).faults == []
    header = _read(tmp_path, _inserted(_nested(MAX_NESTING + 1, defined_length)))
    assert [fault.rsplit(": ")[-1] for fault in header.faults] == ["left out, nested more than 32 sequences deep"]
    assert dataset_from_json(header.json).PatientID == "P1"


def test_nesting_beyond_the_parser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInstance, match="nested too deeply"):
        _read(tmp_path, _inserted(_nested(5000, defined_length=False)))


def test_nesting_of_defined_length_is_not_even_parsed(tmp_path: Path) -> None:
    assert len(_read(tmp_path, _inserted(_nested(5000, defined_length=True))).faults) == 1


@pytest.mark.parametrize("vr", [b"OB", b"UN", b"UT", b"SQ"])
@pytest.mark.parametrize("inside_sequence", [False, True])
def test_a_length_field_allocates_nothing(tmp_path: Path, vr: bytes, inside_sequence: bool) -> None:
    element = struct.pack("<HH2sHL", 0x0008, 0x1190, vr, 0, 0xFFFFFFF0)
    if inside_sequence:
        element = _sequence(_ITEM + element)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableInstance):
            _read(tmp_path, _inserted(element))
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_header_of_millions_of_elements_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10, "MAX_HEADER_READS", 5000)
    empty_items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 6000
    with pytest.raises(UnreadableInstance):
        _read(tmp_path, _inserted(_sequence(empty_items + _SEQUENCE_END)))
    elements = b"".join(struct.pack("<HH2sH", 0x0009, number, b"LO", 0) for number in range(0x1000, 0x1000 + 6000))
    with pytest.raises(UnreadableInstance, match="larger than"):
        _read(tmp_path, _inserted(elements))


def test_a_header_of_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10, "MAX_HEADER_BYTES", 100_000)
    long_text = struct.pack("<HH2sHL", 0x0008, 0x1190, b"UT", 0, 20_000) + b"x" * 20_000
    with pytest.raises(UnreadableInstance):
        _read(tmp_path, _inserted(_sequence((_ITEM + long_text + _ITEM_END) * 6 + _SEQUENCE_END)))


def test_a_deflate_bomb_is_refused_without_inflating_it_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part10, "MAX_INFLATED_BYTES", 50 << 20)
    monkeypatch.setattr(part10, "MAX_HEADER_BYTES", 2 << 20)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(60)) + deflater.flush()
    meta = part10_bytes(mr_data_set(), transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    meta = meta[: 144 + struct.unpack("<L", meta[140:144])[0]]
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableInstance, match="inflates to more than 50 MiB"):
            _read(tmp_path, meta + bomb)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_cut_deflated_data_set_is_refused(tmp_path: Path) -> None:
    data = part10_bytes(mr_data_set(), transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    with pytest.raises(UnreadableInstance, match="cut short"):
        _read(tmp_path, data[:-30])


def test_faults_are_counted_rather_than_listed_without_end(tmp_path: Path) -> None:
    bad = b"".join(struct.pack("<HH2sH", 0x0009, number, b"DS", 2) + b"x " for number in range(0x1000, 0x1000 + 500))
    creator = struct.pack("<HH2sH", 0x0009, 0x0010, b"LO", 2) + b"M "
    faults = _read(tmp_path, _inserted(creator + bad)).faults
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1] == f"and {500 - MAX_FAULTS} more"


def _reads_or_refuses(folder: Path, data: bytes) -> None:
    """`read_header` raises nothing but UnreadableInstance, and what it reads is storable JSON that comes back."""
    try:
        header = _read(folder, data)
    except UnreadableInstance:
        return
    text = orjson.dumps(header.json)
    assert b"\\u0000" not in text
    dataset_from_json(orjson.loads(text))


@given(data=st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_after_the_prefix_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    _reads_or_refuses(folder, data)
    _reads_or_refuses(folder, bytes(128) + b"DICM" + data)
    for sound in (_SOUND, _IMPLICIT):
        _reads_or_refuses(folder, sound[:400] + data)


_PIECES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"SQ", b"UN", b"DS", b"IS", b"PN", b"AT", b"FD", b"US", b"UI", b"OW", b"XX", b"\0\0"]),
    st.sampled_from([_ITEM, _ITEM_END, _SEQUENCE_END, b"\xff\xff\xff\xff", b"\0\0\0\0"]),
)


@given(
    sound=st.sampled_from([_SOUND, _IMPLICIT]),
    changes=st.lists(st.tuples(st.integers(132, len(_SOUND)), _PIECES, st.booleans()), min_size=1, max_size=20),
    length=st.integers(132, len(_SOUND) + 100),
)
@settings(deadline=None, max_examples=300)
def test_any_change_of_a_sound_file_is_read_or_refused(
    sound: bytes,
    changes: list[tuple[int, bytes, bool]],
    length: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = sound
    for position, piece, overwrite in changes:
        data = data[:position] + piece + data[position + (len(piece) if overwrite else 0) :]
    _reads_or_refuses(tmp_path_factory.getbasetemp(), data[:length])


def test_no_file_is_no_header(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInstance, match="DICM"):
        _read(tmp_path, b"")
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "absent")
