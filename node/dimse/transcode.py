"""Decompressing an object for a destination that takes no compression, in a child process with memory and time limits.

Codecs are C code fed with bytes from outside: one that crashes, hangs or swells costs one object its delivery, not the
worker. Frames are decoded one at a time and written as they come, so memory holds the compressed object and one frame.
The object keeps its SOP Instance UID; its pixels are those any reader of the compressed one would see. Where they were
compressed with loss before, Lossy Image Compression (0028,2110) and what belongs to it keep saying so.

Run as a program (``python -m node.dimse.transcode MEMORY_BYTES``) it is that child: one JSON request per line, one
JSON answer per line.
"""

import json
import resource
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import get_decoder  # type: ignore[attr-defined]  # documented, not re-exported
from pydicom.uid import UID, ImplicitVRLittleEndian

MEMORY_BYTES: Final = 3 << 30
"""Address space of the child; interpreter, libraries and their thread stacks map about 1 GiB of it unused."""
_LONGEST_NATIVE_BYTES: Final = 0xFFFFFFFE
"""Value length of Pixel Data in a native transfer syntax (PS3.5 7.1)."""
_PIXEL_DATA: Final = 0x7FE00010
_LONGEST_ANSWER_BYTES: Final = 1 << 16


class TranscodingFailed(Exception):
    """The object cannot be decompressed; the message says why. Trying again would end the same way."""


class Transcoder:
    """The child process, started when first needed and again after it had to be ended. Not for several threads."""

    def __init__(self, maximum_bytes: int, timeout_s: float) -> None:
        self._maximum_bytes = maximum_bytes
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """End the child, if there is one. It starts again when it is needed."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def decompress(self, source: Path, target: Path, transfer_syntax_uid: str) -> None:
        """Write the object at ``source`` to ``target`` in one of the two uncompressed little endian syntaxes.

        Raises
        ------
        TranscodingFailed
        """
        child = self._child or self._start()
        request = {
            "source": str(source),
            "target": str(target),
            "syntax": transfer_syntax_uid,
            "maximum_bytes": self._maximum_bytes,
        }
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except OSError as error:
            self.end()
            raise TranscodingFailed(f"the decoding process ended unexpectedly ({error.strerror})") from error
        answer = self._answer(child)
        if answer["error"]:
            raise TranscodingFailed(answer["error"])

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "node.dimse.transcode", str(MEMORY_BYTES)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        return self._child

    def _answer(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """One line of the child, within the time limit."""
        assert child.stdout is not None
        deadline = time.monotonic() + self._timeout_s
        line = b""
        while not line.endswith(b"\n"):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not select.select([child.stdout], [], [], remaining_s)[0]:
                self.end()
                raise TranscodingFailed(f"decompression took longer than {self._timeout_s:g} s and was ended")
            piece = child.stdout.read(_LONGEST_ANSWER_BYTES)
            if not piece:
                code = child.wait()
                self.end()
                raise TranscodingFailed(f"the decoder crashed on it (exit code {code})")
            line += piece
        return dict(json.loads(line))


def can_decompress(transfer_syntax_uid: str) -> bool:
    """Whether the syntax compresses still images, and a decoder for it is installed."""
    uid = UID(transfer_syntax_uid)
    if not (uid.is_transfer_syntax and uid.is_encapsulated):
        return False
    try:
        return bool(get_decoder(uid).is_available)
    except NotImplementedError:  # video, and what is private
        return False


def decompress(source: Path, target: Path, transfer_syntax_uid: str, maximum_bytes: int) -> None:
    """What the child does with a request, in this process.

    Raises
    ------
    TranscodingFailed
    """
    data_set = dcmread(source)
    if "PixelData" not in data_set:
        raise TranscodingFailed("it has no pixel data")
    if data_set.BitsAllocated % 8:
        raise TranscodingFailed(f"pixels of {data_set.BitsAllocated} bits are not decompressed")
    length = _native_bytes(data_set)
    if length > min(maximum_bytes, _LONGEST_NATIVE_BYTES):
        raise TranscodingFailed(f"decompressed it would have {length} bytes, more than the {maximum_bytes} allowed")
    decoder = get_decoder(UID(data_set.file_meta.TransferSyntaxUID))
    frames = decoder.iter_array(data_set)
    first, properties = next(frames)
    head, tail = _split(data_set)
    head.PhotometricInterpretation = properties["photometric_interpretation"]
    if int(properties["samples_per_pixel"]) > 1:
        head.PlanarConfiguration = properties["planar_configuration"]
    with target.open("wb") as file:
        out = _begin(file, data_set, head, transfer_syntax_uid)
        size = first.nbytes * _number_of_frames(data_set)
        if size != length:
            raise TranscodingFailed(f"its frames have {first.nbytes} bytes each, its header says otherwise")
        _write_pixel_data_header(out, head, size + size % 2)
        file.write(first.tobytes())
        written = first.nbytes
        for frame, _ in frames:
            file.write(frame.tobytes())
            written += frame.nbytes
        if written != size:
            raise TranscodingFailed(f"it holds {written} bytes of pixels where its header announces {size}")
        file.write(b"\x00" * (size % 2))
        write_dataset(out, tail)


def _native_bytes(data_set: Dataset) -> int:
    values = (data_set.Rows, data_set.Columns, data_set.SamplesPerPixel, (data_set.BitsAllocated + 7) // 8)
    length = _number_of_frames(data_set)
    for value in values:
        length *= int(value)
    return length


def _number_of_frames(data_set: Dataset) -> int:
    return int(data_set.get("NumberOfFrames") or 1)


def _split(data_set: Dataset) -> tuple[Dataset, Dataset]:
    """What comes before the pixel data, and what after it: trailing padding, or a digital signature."""
    head, tail = data_set[:_PIXEL_DATA], data_set[_PIXEL_DATA + 1 :]
    # Offsets into the encapsulated stream, which is no more.
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in head:
            del head[keyword]
    return head, tail


def _begin(file: BinaryIO, data_set: Dataset, head: Dataset, transfer_syntax_uid: str) -> DicomFileLike:
    """Preamble, file meta information and everything before the pixel data."""
    meta = data_set.file_meta
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    out = DicomFileLike(file)
    out.is_little_endian, out.is_implicit_VR = True, transfer_syntax_uid == ImplicitVRLittleEndian
    file.write(b"\x00" * 128 + b"DICM")
    out.is_implicit_VR = False
    write_file_meta_info(out, meta, enforce_standard=True)
    out.is_implicit_VR = transfer_syntax_uid == ImplicitVRLittleEndian
    write_dataset(out, head)
    return out


def _write_pixel_data_header(out: DicomFileLike, head: Dataset, length: int) -> None:
    """Tag, VR where it is explicit, and length of Pixel Data."""
    out.write_tag(_PIXEL_DATA)
    if not out.is_implicit_VR:
        out.write((b"OB" if head.BitsAllocated <= 8 else b"OW") + b"\x00\x00")
    out.write_UL(length)


def main() -> None:
    """Be the child: answer requests until the standard input ends."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        error = ""
        try:
            decompress(
                Path(request["source"]), Path(request["target"]), request["syntax"], int(request["maximum_bytes"])
            )
        except MemoryError:
            error = f"decompressing it needs more than the {limit >> 20} MiB of memory allowed"
        except Exception as fault:  # noqa: BLE001  # of decoders and damaged headers alike: it is the answer
            error = str(fault) or type(fault).__name__
        sys.stdout.write(json.dumps({"error": error[:1000].replace("\n", " ")}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
