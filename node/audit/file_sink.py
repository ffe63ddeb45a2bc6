"""Audit messages in an append-only file: one message a line, durable batch by batch, rotated by size.

Each process of the node writes a file of its own, so that no two ever rotate the same one. The node deletes none: how
long an audit trail is kept is the site's rule, not ours.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.audit.message import AuditMessage

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


class FileSink:
    """Appends to ``folder/process.log``; a file that would pass ``maximum_bytes`` is renamed with the time, UTC."""

    name = "file"

    def __init__(self, folder: Path, process: str, maximum_bytes: int) -> None:
        self._folder = folder
        self._path = folder / f"{process}.log"
        self._maximum_bytes = maximum_bytes
        self._descriptor: int | None = None

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Append the messages and fsync. Raises OSError with the file as it was before."""
        data = b"".join(message.xml + b"\n" for message in messages)
        descriptor = self._open_file(len(data))
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_file(self, coming_bytes: int) -> int:
        """The file to append to: a new one where the old one is full, or was moved away by another program."""
        if self._descriptor is not None:
            size = os.fstat(self._descriptor).st_size
            if self._is_moved():
                self.close()
            elif size and size + coming_bytes > self._maximum_bytes:
                self.close()
                self._path.rename(self._rotated())
        if self._descriptor is None:
            self._descriptor = self._open()
        return self._descriptor

    def _open(self) -> int:
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, _FILE_MODE)
        os.fchmod(descriptor, _FILE_MODE)
        size = os.fstat(descriptor).st_size
        # A crash may have cut off the last line; what follows begins on its own.
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            _write_all(descriptor, b"\n")
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return descriptor

    def _is_moved(self) -> bool:
        assert self._descriptor is not None
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return found.st_ino != os.fstat(self._descriptor).st_ino

    def _rotated(self) -> Path:
        return self._path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
