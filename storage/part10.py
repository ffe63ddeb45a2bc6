"""Bounded reading of DICOM Part 10 files (PS3.10 7): nothing is allocated because a length field says so.

pydicom does the parsing; it is fed through `BoundedReader`, which gives it no more than is there and stops it when a
header is larger than any real one. Deflated data sets (PS3.5 A.5) are inflated under a limit first, because pydicom
would inflate them without one.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError

# pydicom's own reader of the file meta information takes a path only; this is the part of it that takes a file.
from pydicom.filereader import _read_file_meta_info, read_dataset, read_sequence
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from storage.errors import UnreadableInstance

MAX_HEADER_BYTES = 128 << 20
"""Bytes of a header that are read into memory. An enhanced MR of 10,000 frames has about 20 MiB of them."""
MAX_HEADER_READS = 4_000_000
"""Reads of the parser, two or three per element: room for 10,000 frames of 100 elements each."""
MAX_INLINE_BYTES = 32 << 10
"""A value above this, unless a sequence, is bulk data: it stays in the object and out of the index.

Enough for the private headers that hold b-values (Siemens CSA image header: up to about 16 KiB).
"""
MAX_INFLATED_BYTES = 512 << 20
"""A deflated data set may not be larger: 4,000 CT slices, and a second or so of inflating."""
_INFLATE_CHUNK_BYTES = 1 << 20
_PIXEL_DATA_GROUP = 0x7FE0
_FIRST_PIXEL_DATA_ELEMENT = 0x0008
UNDEFINED_LENGTH = 0xFFFFFFFF

PARSING_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on broken bytes, as found by fuzzing it."""


class ReadBudget:
    """How much of one header may still be read, over all its readers."""

    def __init__(self) -> None:
        self._bytes = MAX_HEADER_BYTES
        self._reads = MAX_HEADER_READS

    def spend(self, size: int) -> None:
        """Account for one read of ``size`` bytes; raises `UnreadableInstance` beyond the bounds."""
        self._bytes -= size
        self._reads -= 1
        if self._bytes < 0 or self._reads < 0:
            raise UnreadableInstance(
                f"the header is larger than {MAX_HEADER_BYTES >> 20} MiB or has more than about "
                f"{MAX_HEADER_READS // 2:,} elements; no imaging object is known to need that"
            )


class BoundedReader(io.BufferedIOBase):
    """A read-only view of a seekable file that never allocates more than the file still holds."""

    def __init__(self, file: BinaryIO, budget: ReadBudget) -> None:
        self._file = file
        self.budget = budget
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes, and never more than are left."""
        left = max(0, self._size - self._file.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        self.budget.spend(wanted)
        return self._file.read(wanted)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    @property
    def as_file(self) -> BinaryIO:
        """Itself, for a parser that is typed to want a file and uses only what is here."""
        return cast(BinaryIO, self)

    @property
    def size_bytes(self) -> int:
        """Length of the whole file."""
        return self._size


@dataclass(frozen=True)
class Part10Header:
    """A parsed, not yet converted header.

    ``data_set`` ends before pixel data. A large value of defined length is not read: it is in ``data_set`` as a raw
    element with the value None, its place in ``reader`` being known. ``size_bytes`` is the length of the inflated
    data set, with whatever precedes it in ``reader``.
    """

    file_meta: FileMetaDataset
    data_set: Dataset
    transfer_syntax_uid: str
    size_bytes: int
    reader: BoundedReader
    faults: list[str]

    def read_sequence(self, raw: RawDataElement, encoding: str | MutableSequence[str]) -> Sequence:
        """Parse a sequence of defined length under the bounds of this module; raises any of `PARSING_ERRORS`."""
        # A sequence of VR UN is implicit VR little endian, whatever surrounds it (PS3.5 6.2.2).
        implicit = raw.is_implicit_VR or raw.VR == "UN"
        little = raw.is_little_endian or raw.VR == "UN"
        if raw.value is None:
            self.reader.seek(raw.value_tell)
            return read_sequence(self.reader.as_file, implicit, little, raw.length, encoding)
        reader = BoundedReader(io.BytesIO(raw.value), self.reader.budget)
        return read_sequence(reader.as_file, implicit, little, len(raw.value), encoding)


@contextmanager
def open_part10(path: Path) -> Iterator[Part10Header]:
    """Parse the header of the Part 10 file at ``path`` and keep the file open for its sequences.

    Raises
    ------
    UnreadableInstance
        Not DICOM, without transfer syntax, broken beyond parsing, or larger than the bounds of this module.
    OSError
        The file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            header = _parse(file)
        except RecursionError as error:
            raise UnreadableInstance("its sequences are nested too deeply to be read") from error
        except PARSING_ERRORS as error:
            raise UnreadableInstance(f"it cannot be parsed as DICOM ({type(error).__name__}: {error})") from error
        yield header


def _parse(file: BinaryIO) -> Part10Header:
    budget = ReadBudget()
    reader = BoundedReader(file, budget)
    if reader.read(132)[128:] != b"DICM":
        raise UnreadableInstance("it is not a DICOM Part 10 file: the prefix DICM is missing (PS3.10 7.1)")
    file_meta = _read_file_meta_info(reader.as_file)
    syntax = UID(str(file_meta.get("TransferSyntaxUID", "") or ""))
    if not syntax:
        raise UnreadableInstance("its file meta information names no transfer syntax, so its bytes cannot be read")
    size_bytes = reader.size_bytes
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated, size_bytes = _inflate(file)
        reader = BoundedReader(inflated, budget)
    faults: list[str] = []

    def at_pixel_data(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if not (tag.group == _PIXEL_DATA_GROUP and tag.elem >= _FIRST_PIXEL_DATA_ELEMENT):
            return False
        left = size_bytes - reader.tell()
        if length != UNDEFINED_LENGTH and length > left:
            faults.append(f"{tag} pixel data: cut short, {left} of {length} bytes are there")
        return True

    data_set = read_dataset(
        reader.as_file,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
        stop_when=at_pixel_data,
        defer_size=MAX_INLINE_BYTES,
    )
    return Part10Header(file_meta, data_set, str(syntax), size_bytes, reader, faults)


def _inflate(file: BinaryIO) -> tuple[BinaryIO, int]:
    """Inflate the rest of ``file``: the part in which the header must lie, and the length of the whole."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    kept = io.BytesIO()
    size_bytes = 0
    while not inflater.eof:
        piece = inflater.unconsumed_tail or file.read(_INFLATE_CHUNK_BYTES)
        if not piece:
            raise UnreadableInstance("its deflated data set (PS3.5 A.5) is cut short")
        data = inflater.decompress(piece, _INFLATE_CHUNK_BYTES)
        size_bytes += len(data)
        if size_bytes > MAX_INFLATED_BYTES:
            raise UnreadableInstance(f"its deflated data set inflates to more than {MAX_INFLATED_BYTES >> 20} MiB")
        if kept.tell() < MAX_HEADER_BYTES:
            kept.write(data)
    return kept, size_bytes
