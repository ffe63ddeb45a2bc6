"""The spool: where incoming bytes land, on the same volume as the object store, until their index row is committed.

A data set is written as it comes and hashed on the way. When it is whole it gets a second name in the object store; its
name here goes when its row is committed. So what a crash leaves here is one of two things: cut short, with one name
(deleted at the next start), or whole, with two names and perhaps no row (indexed at the next start).
"""

import hashlib
import os
import shutil
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from storage.errors import ObjectStoreUnavailable

IMPLEMENTATION_CLASS_UID: Final = "2.25.319740327817519480325118826243297171281"
IMPLEMENTATION_VERSION_NAME: Final = "PACSGATE"
"""Who wrote a file (PS3.10 7.1). Part of an object's digest: with another name every re-sent instance would differ."""
_NOBODY: Final = "unassociated"
_CHECK_INTERVAL_S: Final = 0.25


def part10_prefix(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and file meta information of a data set received by C-STORE (PS3.10 7.1).

    The same for the same three UIDs, whoever sent them, so that equal data sets are equal objects.
    """
    meta = b"".join(
        (
            struct.pack("<HH2s2xL2s", 0x0002, 0x0001, b"OB", 2, b"\0\1"),
            _meta_element(0x0002, b"UI", sop_class_uid),
            _meta_element(0x0003, b"UI", sop_instance_uid),
            _meta_element(0x0010, b"UI", transfer_syntax_uid),
            _meta_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _meta_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(meta)) + meta


def _meta_element(element: int, vr: bytes, value: str) -> bytes:
    data = value.encode("ascii", "replace")
    if len(data) % 2:
        data += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(data)) + data


class SpooledFile:
    """A data set in flight: written piece by piece, hashed on the way. Discard it or have it ingested.

    Raises OSError where the volume refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        view = memoryview(data)
        self._hash.update(view)
        self.size_bytes += len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        """No more will come. Nothing is synced here: the object store does that."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Close and delete; whatever the object store keeps of it stays there. More than once does no harm."""
        self.close()
        self.path.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written, lower-case hexadecimal."""
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.discard()


@dataclass(frozen=True)
class Orphan:
    """A whole data set that a crash left in the spool: perhaps stored and indexed, certainly not acknowledged."""

    path: Path
    association_id: int | None


class Spool:
    """A folder of data sets in flight, one per receiver."""

    def __init__(self, root: Path) -> None:
        self.directory = root
        self.directory.mkdir(parents=True, exist_ok=True)

    def new_file(self, association_id: int | None = None) -> SpooledFile:
        """A new, empty file; raises OSError where the volume refuses.

        ``association_id`` is the index row of the association it comes over: its name remembers it for `recover`.
        """
        owner = _NOBODY if association_id is None else str(association_id)
        return SpooledFile(self.directory / f"{owner}-{uuid.uuid4().hex}.part")

    def recover(self) -> Iterator[Orphan]:
        """Delete what was cut short; yield what is whole, which the caller ingests again or deletes.

        Call it at start, before anything is received: what is here then belongs to nobody.
        """
        for path in sorted(self.directory.iterdir()):
            if not path.is_file():
                continue
            if path.stat().st_nlink < 2:  # never named by the object store: cut short
                path.unlink(missing_ok=True)
                continue
            owner = path.name.partition("-")[0]
            yield Orphan(path, int(owner) if owner.isascii() and owner.isdigit() else None)

    def free_bytes(self) -> int:
        """Free space on the spool's volume."""
        return shutil.disk_usage(self.directory).free


class DiskGuard:
    """Whether there is room to receive: below the low watermark no, until the high watermark is free again.

    The distance between the two keeps a disk at its limit from flapping with each instance (PS3.4 B.2.3: 0xA700).
    """

    def __init__(self, spool: Spool, low_watermark_bytes: int, high_watermark_bytes: int | None = None) -> None:
        self._spool = spool
        self._low = low_watermark_bytes
        self._high = low_watermark_bytes * 3 // 2 if high_watermark_bytes is None else high_watermark_bytes
        self._full = False
        self._looked_at = -_CHECK_INTERVAL_S
        self._lock = threading.Lock()

    def refusal(self, *, now: bool = False) -> str:
        """Why nothing is received at present, empty where there is room. Looked up a few times a second at most.

        ``now`` looks at once: for a data set that has grown by megabytes since the last look.
        """
        with self._lock:
            at = time.monotonic()
            if not now and at - self._looked_at < _CHECK_INTERVAL_S:
                return self._words()
            self._looked_at = at
            try:
                free_bytes = self._spool.free_bytes()
            except OSError as error:
                raise ObjectStoreUnavailable(f"the spool's volume cannot be used: {error.strerror or error}") from error
            self._full = free_bytes < (self._high if self._full else self._low)
            return self._words()

    def _words(self) -> str:
        return f"disk almost full: {self._high >> 20} MiB must become free" if self._full else ""
