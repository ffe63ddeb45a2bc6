"""Decodes the frames of a stack into a volume (PS3.3 C.7.6.3, C.11.1): bounded, one frame at a time.

Uncompressed frames are read here; compressed ones are decoded in a process of their own (`ai.volumes.decoding`).
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from ai.volumes.codestream import encoded_components, encoded_size
from ai.volumes.decoding import FrameDecoder, shared_decoder
from ai.volumes.frames import TooManyFrames, frame_count, frame_header
from ai.volumes.geometry import MAX_VOXELS
from ai.volumes.header import UNREADABLE_ELEMENT, Header
from ai.volumes.types import PixelSource, PixelsUnavailable, SliceReference, Stack, Volume

MAX_FRAME_PIXELS = 2**26
"""The largest detectors (mammography, chest) stay below 2**25 pixels."""
MAX_INSTANCE_PIXELS = 2**31
"""Rows x Columns x frames of one instance: 4 GiB at 16 bit, what PS3.5 lets native pixel data have."""
MAX_INSTANCE_BYTES = 2**32
"""The same in bytes, which other bit depths than 16 reach earlier or later."""
MAX_BITS_ALLOCATED = 64
"""Double float pixel data (PS3.3 C.7.6.25)."""
MIN_ENCODED_FRAME_BYTES = 10
"""An item with its header (PS3.5 A.4) and the least a frame can have in it."""
RLE_HEADER_BYTES, RLE_MAX_RATIO = 64, 64
"""PS3.5 G.3: two bytes stand for at most 128."""
MAX_FILE_BYTES = 2**32
"""The largest value length of native pixel data (PS3.5 7.1.1)."""
MAX_INFLATED_BYTES = 2**31
"""Data sets sent deflated are small in practice (structured reports, single images); an archive bomb is not."""

UNREADABLE_FILE = (InvalidDicomError, MemoryError, zlib.error, *UNREADABLE_ELEMENT)
"""What pydicom raises for a file that is damaged beyond its header."""

_GROUP_LENGTH_END = 144
"""Preamble, prefix and the File Meta Information Group Length element (PS3.10 7.1)."""
_CHUNK_BYTES = 2**20


class DicomFileSource(PixelSource):
    """Pixels from DICOM files; keeps the last file open in memory, since multi-frame stacks ask for it frame by frame.

    Not thread-safe: one source per thread.
    """

    def __init__(self, paths: Mapping[str, Path], decoder: FrameDecoder | None = None) -> None:
        """``paths`` maps SOP Instance UID to file; ``decoder`` is the shared one of this process by default."""
        self._paths = paths
        self._decoder = decoder
        self._last: tuple[str, Dataset] | None = None

    def frame(self, reference: SliceReference) -> NDArray[np.float32]:
        """The stored values of one frame, rescaled: float32 ``[row, column]``.

        Raises:
            PixelsUnavailable: no such file, or its pixels cannot be decoded; the message names the instance and says
                why.
        """
        uid = reference.sop_instance_uid
        dataset = self._dataset(uid)
        try:
            return decode_frame(dataset, reference.frame_number, self._decoder)
        except PixelsUnavailable as error:
            raise PixelsUnavailable(f"instance {uid}: {error}") from error

    def _dataset(self, uid: str) -> Dataset:
        if self._last is not None and self._last[0] == uid:
            return self._last[1]
        path = self._paths.get(uid)
        if path is None:
            raise PixelsUnavailable(f"instance {uid} is not among the files given")
        dataset = read_file(path)
        self._last = (uid, dataset)
        return dataset


def read_file(path: Path) -> Dataset:
    """A whole DICOM file, also one without preamble.

    Raises:
        PixelsUnavailable: the file cannot be read as DICOM or is larger than ``MAX_FILE_BYTES``.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PixelsUnavailable(f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
        _check_inflation(path)
        return pydicom.dcmread(path, force=True)
    except UNREADABLE_FILE as error:
        raise PixelsUnavailable(f"{path.name} cannot be read: {error}") from error


def _check_inflation(path: Path) -> None:
    """Refuses a deflated data set (PS3.5 A.5) that grows beyond ``MAX_INFLATED_BYTES``; keeps nothing of it."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    group_length = Header((meta,)).integer("FileMetaInformationGroupLength")
    if group_length is None or group_length < 0:
        raise PixelsUnavailable(f"{path.name} is deflated and does not say where its data set begins")
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(_GROUP_LENGTH_END + group_length)
        chunk = file.read(_CHUNK_BYTES)
        while chunk and not inflater.eof:
            inflated += len(inflater.decompress(chunk, _CHUNK_BYTES))
            if inflated > MAX_INFLATED_BYTES:
                raise PixelsUnavailable(f"{path.name} inflates to more than {MAX_INFLATED_BYTES} bytes")
            chunk = inflater.unconsumed_tail or file.read(_CHUNK_BYTES)


def load_volume(stack: Stack, source: PixelSource) -> Volume:
    """The stack with its pixels, NaN in missing slices; a stack without geometry gets one row per slice.

    Raises:
        PixelsUnavailable: a frame cannot be decoded, has another size than the header said, or the volume is larger
            than ``MAX_VOXELS``.
    """
    length = stack.geometry.shape[0] if stack.geometry is not None else len(stack.slices)
    shape = (length, stack.rows, stack.columns)
    if length * stack.rows * stack.columns > MAX_VOXELS:
        raise PixelsUnavailable(f"volume of {' x '.join(map(str, shape))} has more than {MAX_VOXELS} voxels")
    # The first frame proves that there are pixels before the volume is allocated.
    first = _frame(stack, stack.slices[0], source)
    pixels = np.full(shape, np.nan, dtype=np.float32)
    pixels[stack.slice_indices[0]] = first
    for index, reference in zip(stack.slice_indices[1:], stack.slices[1:], strict=True):
        pixels[index] = _frame(stack, reference, source)
    return Volume(stack, pixels)


def decode_frame(
    dataset: Dataset, frame_number: int | None, decoder: FrameDecoder | None = None
) -> NDArray[np.float32]:
    """One frame of an instance (counting from 1; None for a single-frame one), rescaled: float32 ``[row, column]``.

    Raises:
        PixelsUnavailable: no or colour pixels, implausible size, damaged or unsupported encoding, damaged rescale.
    """
    _check_size(dataset)
    slope, intercept = _rescale(frame_header(dataset, frame_number))
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        raise PixelsUnavailable("the file does not name its transfer syntax")
    index = (frame_number or 1) - 1
    try:
        stored = _stored_values(dataset, syntax, index, decoder)
    except PixelsUnavailable:
        raise
    except Exception as error:
        # pydicom's decoding of damaged data raises what it happens to meet; it is not documented.
        raise PixelsUnavailable(f"cannot be decoded: {_one_line(error)}") from error
    if stored.ndim != 2:
        raise PixelsUnavailable(f"pixel array of shape {stored.shape} is not a grey image")
    return np.asarray(stored.astype(np.float32) * np.float32(slope) + np.float32(intercept))


def _stored_values(dataset: Dataset, syntax: UID, index: int, decoder: FrameDecoder | None) -> NDArray[Any]:
    pixel_data = _pixel_data(dataset)
    if not syntax.is_encapsulated:
        stored, _ = get_decoder(syntax).as_array(dataset, index=index, raw=True)
        return stored
    frame = _encoded_frame(dataset, pixel_data, index)
    _check_encoded(dataset, syntax, frame)
    options = as_pixel_options(dataset, number_of_frames=1)
    options.pop("extended_offsets", None)
    return (decoder or shared_decoder()).decode(str(syntax), options, frame)


def _frame(stack: Stack, reference: SliceReference, source: PixelSource) -> NDArray[np.float32]:
    frame = source.frame(reference)
    if frame.shape != (stack.rows, stack.columns):
        raise PixelsUnavailable(
            f"instance {reference.sop_instance_uid} has {frame.shape[0]} x {frame.shape[1]} pixels, "
            f"its header said {stack.rows} x {stack.columns}"
        )
    return frame


def _check_size(dataset: Dataset) -> None:
    """Refuses sizes no scanner makes, and sizes the bytes at hand cannot hold, before anything is decoded."""
    root = Header((dataset,))
    rows, columns = root.integer("Rows"), root.integer("Columns")
    if rows is None or columns is None or rows < 1 or columns < 1:
        raise PixelsUnavailable(f"Rows x Columns is {rows} x {columns}")
    if (root.integer("SamplesPerPixel") or 1) != 1 or root.text("PhotometricInterpretation") == "PALETTE COLOR":
        raise PixelsUnavailable("a colour image has no single value per pixel")
    try:
        frames = frame_count(dataset)
    except TooManyFrames as error:
        raise PixelsUnavailable(str(error)) from error
    bits = root.integer("BitsAllocated") or 8
    if not 1 <= bits <= MAX_BITS_ALLOCATED:
        raise PixelsUnavailable(f"Bits Allocated is {bits}")
    pixels = rows * columns * frames
    if rows * columns > MAX_FRAME_PIXELS or pixels > MAX_INSTANCE_PIXELS or pixels * bits // 8 > MAX_INSTANCE_BYTES:
        raise PixelsUnavailable(f"{frames} frames of {rows} x {columns} pixels of {bits} bit are implausible")


def _pixel_data(dataset: Dataset) -> bytes:
    root = Header((dataset,))
    values = (root.value(keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    pixel_data = next((value for value in values if isinstance(value, bytes) and value), None)
    if pixel_data is None:
        raise PixelsUnavailable("there is no pixel data")
    return pixel_data


def _encoded_frame(dataset: Dataset, pixel_data: bytes, index: int) -> bytes:
    """The bytes of one frame, all fragments joined (PS3.5 A.4)."""
    frames = frame_count(dataset)
    if len(pixel_data) < frames * MIN_ENCODED_FRAME_BYTES:
        raise PixelsUnavailable(f"{len(pixel_data)} encoded bytes cannot be {frames} frames")
    options = as_pixel_options(dataset)
    return get_frame(pixel_data, index, number_of_frames=frames, extended_offsets=options.get("extended_offsets"))


def _check_encoded(dataset: Dataset, syntax: UID, frame: bytes) -> None:
    """Refuses a frame whose encoding says another size than the header, or cannot hold that size."""
    root = Header((dataset,))
    rows, columns = root.integer("Rows") or 0, root.integer("Columns") or 0
    encoded = encoded_size(frame)
    if encoded is not None and encoded != (rows, columns):
        raise PixelsUnavailable(
            f"the encoded image has {encoded[0]} x {encoded[1]} pixels, the header says {rows} x {columns}"
        )
    components = encoded_components(frame)
    if components is not None and components != 1:
        # GDCM writes all of them into a buffer of the header's size.
        raise PixelsUnavailable(f"the encoded image has {components} components, the header says 1")
    decoded_bytes = rows * columns * (((root.integer("BitsAllocated") or 8) + 7) // 8)
    if syntax == RLELossless and (len(frame) - RLE_HEADER_BYTES) * RLE_MAX_RATIO < decoded_bytes:
        raise PixelsUnavailable(
            f"cannot be decoded: {len(frame)} bytes of RLE cannot be {decoded_bytes} bytes of image"
        )


def _rescale(header: Header) -> tuple[float, float]:
    """Rescale Slope and Intercept; 1 and 0 where absent. A damaged one is no reason to guess."""
    values: list[float] = []
    for keyword, absent in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        number = header.number(keyword)
        if number is None and header.text(keyword):
            raise PixelsUnavailable(f"{keyword} is not a number")
        values.append(absent if number is None else number)
    slope, intercept = values
    if slope == 0:
        raise PixelsUnavailable("Rescale Slope is 0")
    if max(abs(slope), abs(intercept)) > float(np.finfo(np.float32).max) / 2**32:
        raise PixelsUnavailable(f"rescale of {slope} and {intercept} is implausible")
    return slope, intercept


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
