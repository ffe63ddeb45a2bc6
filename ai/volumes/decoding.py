"""Decodes compressed frames in a child process with limits, so that a decoder that crashes, balloons or hangs costs one
frame and never the worker. Uncompressed frames need no decoder and never come here.

One child process serves a whole worker; it is started for the first compressed frame and again after each death.
"""

import atexit
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from ai.volumes.decoder_process import LENGTHS, READY
from ai.volumes.types import PixelsUnavailable

log = structlog.get_logger()

START_DEADLINE_S: Final = 60.0
"""Starting takes half a second on an idle machine."""
ATTEMPTS: Final = 2
"""A frame is given up when it has killed two fresh processes: one may have died of something else."""
WORN_SHARE: Final = 4
"""Between frames a process may keep this part of a frame's memory; decoders leak over damaged data."""
_UNREADABLE_ANSWER: Final = (ValueError, TypeError, LookupError)
"""What reading an answer raises that a decoder gone wild has written over."""
_MAXIMUM_HEAD_BYTES: Final = 65_536
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DecoderLimits:
    """What decoding one frame may cost.

    ``memory_bytes``: address space beyond what the idle process has. The largest frame we take (2**26 pixels of 16 bit)
    needs 128 MiB for its result and about four times that inside JPEG 2000.
    """

    memory_bytes: int = 1 << 30
    deadline_s: float = 30.0


class _ProcessDied(Exception):
    """The child process is gone; the message says how it ended."""


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    connection: socket.socket
    idle_bytes: int = 0
    """Its address space before the first frame."""

    def address_space_bytes(self) -> int:
        """What counts against its limit; 0 when it is gone."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[0]
        except OSError:
            return 0
        return int(pages) * resource.getpagesize()


class FrameDecoder:
    """A persistent child process that decodes frames. Thread-safe: one frame at a time."""

    def __init__(self, limits: DecoderLimits | None = None, module: str = "ai.volumes.decoder_process") -> None:
        """``module`` is what the child process runs."""
        self.limits = limits or DecoderLimits()
        self._module = module
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def decode(self, transfer_syntax_uid: str, options: dict[str, Any], frame: bytes) -> NDArray[Any]:
        """The stored values of one encoded frame, ``[row, column]`` or ``[row, column, sample]``.

        Args:
            transfer_syntax_uid: how it is encoded.
            options: of `pydicom.pixels.utils.as_pixel_options`; sizes within the caller's bounds.
            frame: the encoded frame, without item headers.

        Raises:
            PixelsUnavailable: it is damaged, or its decoder crashed, took too long or wanted too much memory.
        """
        request = json.dumps({"transfer_syntax_uid": transfer_syntax_uid, "options": options}).encode()
        shape = _expected_shape(options)
        with self._lock:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return self._exchange(request, frame, shape)
                except TimeoutError:
                    self._end()
                    log.warning("decoder.ended", reason="deadline", deadline_s=self.limits.deadline_s)
                    raise PixelsUnavailable(
                        f"cannot be decoded: its decoder was stopped after {self.limits.deadline_s:g} s"
                    ) from None
                except _ProcessDied as death:
                    log.warning("decoder.died", reason=str(death), attempt=attempt)
                    if attempt == ATTEMPTS:
                        raise PixelsUnavailable(f"cannot be decoded: its decoder crashed ({death})") from death
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the child process. The next frame starts a new one."""
        with self._lock:
            self._end()

    def _exchange(self, request: bytes, frame: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        child = self._fresh_child()
        deadline = time.monotonic() + self.limits.deadline_s
        try:
            child.connection.settimeout(self.limits.deadline_s)
            child.connection.sendall(LENGTHS.pack(len(request), len(frame)) + request)
            child.connection.sendall(frame)
            head_bytes, payload_bytes = LENGTHS.unpack(_receive(child.connection, LENGTHS.size, deadline))
            if head_bytes > _MAXIMUM_HEAD_BYTES:
                raise _ProcessDied(f"its answer of {head_bytes} bytes is none; {self._end()}")
            head = json.loads(_receive(child.connection, head_bytes, deadline))
            if "error" in head:
                raise PixelsUnavailable(f"cannot be decoded: {head['error']}")
            dtype = np.dtype(head["dtype"])
            if tuple(head["shape"]) != shape or dtype.kind not in "iuf" or payload_bytes != _size(shape, dtype):
                # What it sends cannot be told from the next answer: a new process is the way back in step.
                self._end()
                raise PixelsUnavailable(f"decoded to an array of shape {head['shape']}, the header says {list(shape)}")
            pixels = np.empty(shape, dtype)
            _receive_into(child.connection, pixels.data.cast("B"), deadline)
        except (ConnectionError, EOFError, *_UNREADABLE_ANSWER) as error:
            raise _ProcessDied(self._end()) from error
        return pixels

    def _fresh_child(self) -> _Child:
        """The child process; a new one where decoders have leaked so much that a good frame could lack memory."""
        child = self._child
        if (
            child is not None
            and child.address_space_bytes() - child.idle_bytes > self.limits.memory_bytes // WORN_SHARE
        ):
            log.info("decoder.worn", pid=child.process.pid)
            self._end()
        return self._child or self._start()

    def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", self._module]
            limits = ["--memory-bytes", str(self.limits.memory_bytes), "--deadline-s", str(self.limits.deadline_s)]
            process = subprocess.Popen(
                [*command, *limits],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # C libraries print what they find in the data
                env=_environment(),
            )
        self._child = _Child(process, ours)
        try:
            if _receive(ours, len(READY), time.monotonic() + START_DEADLINE_S) != READY:
                raise _ProcessDied(f"it did not start; {self._end()}")
        except (ConnectionError, EOFError, TimeoutError) as error:
            raise _ProcessDied(f"it did not start; {self._end()}") from error
        self._child.idle_bytes = self._child.address_space_bytes()
        log.info("decoder.started", pid=process.pid)
        return self._child

    def _end(self) -> str:
        """Kill what is left of the child process; return how it ended."""
        if self._child is None:
            return "not running"
        child, self._child = self._child, None
        child.connection.close()
        try:
            # It ends by itself when the socket closes, or is dead already and only its exit code is to be had.
            code = child.process.wait(0.5)
        except subprocess.TimeoutExpired:
            child.process.kill()
            code = child.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


@cache
def shared_decoder() -> FrameDecoder:
    """The decoder of this process, with the default limits, for whoever has no limits of his own."""
    decoder = FrameDecoder()
    atexit.register(decoder.close)
    return decoder


def _environment() -> dict[str, str]:
    """Our environment without the node's settings, which hold passwords, and with our own code first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PACSGATE_")}
    paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _expected_shape(options: dict[str, Any]) -> tuple[int, ...]:
    rows, columns, samples = (int(options[key]) for key in ("rows", "columns", "samples_per_pixel"))
    return (rows, columns) if samples == 1 else (rows, columns, samples)


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    received = bytearray(size)
    _receive_into(connection, memoryview(received), deadline)
    return bytes(received)


def _receive_into(connection: socket.socket, view: memoryview, deadline: float) -> None:
    """Fill ``view``. Raises EOFError when the process is gone, TimeoutError at the deadline (monotonic clock)."""
    filled = 0
    while filled < len(view):
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        connection.settimeout(remaining_s)
        count = connection.recv_into(view[filled:])
        if count == 0:
            raise EOFError
        filled += count
