"""The child process that runs the decoders of compressed pixel data (PS3.5 A.4): other people's C code, kept apart.

It reads one request after the other from the socket that is its standard input, and answers each with the decoded
frame or with what the decoder said. It limits itself before it takes the first one: address space, no files written,
and an alarm that ends the process when a frame takes too long, also when nobody is left to end it from outside.
`ai.volumes.decoding` is the other end. Nothing here writes a log: headers and messages go back over the socket.
"""

import argparse
import json
import resource
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

Decode = Callable[[str, dict[str, Any], bytes], NDArray[Any]]

LENGTHS: Final = struct.Struct(">II")
"""Every message: length of its JSON head and of its payload, then both."""
READY: Final = b"R"
"""Sent once, when the limits stand."""
ALARM_MARGIN_S: Final = 2.0
"""The alarm goes off this long after the other end has given up: it is for orphans."""
_MAXIMUM_WORDS: Final = 300


def decode_frame(transfer_syntax_uid: str, options: dict[str, Any], frame: bytes) -> NDArray[Any]:
    """One encoded frame as the stored values that pydicom's decoders make of it, ``[row, column(, sample)]``.

    ``options`` are those of `pydicom.pixels.utils.as_pixel_options`, for a single frame. Raises what decoders raise.
    """
    decoder = get_decoder(UID(transfer_syntax_uid))
    pixels, _ = decoder.as_array(encapsulate([frame], has_bot=False), index=0, raw=True, **options)
    return pixels


def main(decode: Decode = decode_frame) -> None:
    """Serve requests on standard input until the other end closes it.

    ``decode`` replaces the decoders in tests of what happens when one of them goes wrong.
    """
    parser = argparse.ArgumentParser(prog="ai.volumes.decoder_process")
    parser.add_argument("--memory-bytes", type=int, required=True, help="what decoding may allocate")
    parser.add_argument("--deadline-s", type=float, required=True, help="what one frame may take")
    arguments = parser.parse_args()
    _limit(arguments.memory_bytes)
    with socket.socket(fileno=0) as connection:
        connection.sendall(READY)
        while (head := _receive(connection, LENGTHS.size)) is not None:
            head_bytes, frame_bytes = LENGTHS.unpack(head)
            request, frame = _receive(connection, head_bytes), _receive(connection, frame_bytes)
            if request is None or frame is None:
                return
            signal.setitimer(signal.ITIMER_REAL, arguments.deadline_s + ALARM_MARGIN_S)
            _answer(connection, decode, json.loads(request), frame)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(memory_bytes: int) -> None:
    """Take the limits upon us. Everything is imported by now; what is in use already does not count."""
    # The worker decides when we end: by closing the socket. A SIGTERM to its whole group must not cost it a frame.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    in_use_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = in_use_bytes + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(connection: socket.socket, decode: Decode, request: dict[str, Any], frame: bytes) -> None:
    try:
        pixels = np.ascontiguousarray(decode(request["transfer_syntax_uid"], request["options"], frame))
    except MemoryError:
        return _send(connection, {"error": "it needs more memory than a frame may"}, b"")
    except Exception as error:  # noqa: BLE001 (it is answered)
        # The decoders are other people's C and Python; what they raise for damaged data is not documented.
        return _send(connection, {"error": " ".join(str(error).split())[:_MAXIMUM_WORDS] or type(error).__name__}, b"")
    _send(connection, {"dtype": pixels.dtype.str, "shape": pixels.shape}, pixels.data.cast("B"))


def _send(connection: socket.socket, head: dict[str, Any], payload: bytes | memoryview) -> None:
    encoded = json.dumps(head).encode()
    connection.sendall(LENGTHS.pack(len(encoded), len(payload)) + encoded)
    connection.sendall(payload)


def _receive(connection: socket.socket, size: int) -> bytes | None:
    """Exactly ``size`` bytes; None when the other end has closed."""
    received = bytearray(size)
    view, filled = memoryview(received), 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if count == 0:
            return None
        filled += count
    return bytes(received)


if __name__ == "__main__":
    main()
