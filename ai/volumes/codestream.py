"""The size an encoded frame says it has, read before a decoder allocates it.

JPEG and JPEG-LS frame headers (ITU-T T.81 B.2.2, T.87 C.2.2) and the JPEG 2000 SIZ segment (ITU-T T.800 A.5.1).
"""

import struct

_JPEG_START = b"\xff\xd8"
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_MAX_BOX_HEADER_BYTES = 4096
"""Within this a JP2 file wrapper reaches its codestream."""
_FRAME_MARKERS = frozenset({0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


def encoded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of an encoded frame; None where it is not JPEG, JPEG-LS or JPEG 2000 or does not say."""
    if frame.startswith(_JPEG_START):
        return _jpeg_size(frame)
    start = frame.find(_JPEG_2000_START, 0, _MAX_BOX_HEADER_BYTES)
    if start < 0 or len(frame) < start + 24:
        return None
    columns, rows, column_offset, row_offset = struct.unpack_from(">4I", frame, start + 8)
    return rows - row_offset, columns - column_offset


def encoded_components(frame: bytes) -> int | None:
    """How many components (samples per pixel) an encoded frame says it has; None where `encoded_size` is None."""
    if frame.startswith(_JPEG_START):
        position = _jpeg_frame_header(frame)
        return None if position is None or len(frame) < position + 10 else frame[position + 9]
    start = frame.find(_JPEG_2000_START, 0, _MAX_BOX_HEADER_BYTES)
    if start < 0 or len(frame) < start + 42:
        return None
    return int(struct.unpack_from(">H", frame, start + 40)[0])


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    position = _jpeg_frame_header(frame)
    if position is None:
        return None
    rows, columns = struct.unpack_from(">2H", frame, position + 5)
    return (rows, columns) if rows and columns else None


def _jpeg_frame_header(frame: bytes) -> int | None:
    """Where the frame header's marker is."""
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _STANDALONE_MARKERS:
            position += 2
        elif marker in _FRAME_MARKERS:
            return position
        else:
            position += 2 + max(int(struct.unpack_from(">H", frame, position + 2)[0]), 2)
    return None
