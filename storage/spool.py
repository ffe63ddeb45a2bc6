"""The spool: where incoming bytes land before they are adopted by the object store, on the same volume as it."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


class Spool:
    """A folder of files in flight. Whatever is in it at start is an orphan of a crash: never acknowledged.

    A receiver that lets a library make the files (pynetdicom's chunked reception) points the library's temporary
    folder at ``directory``.
    """

    def __init__(self, root: Path) -> None:
        self.directory = root
        self.directory.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def new_file(self) -> Iterator[BinaryIO]:
        """A new, empty file, open for writing; its ``name`` is its path. Deleted at the end unless adopted by then.

        Flush it before it is adopted. Raises OSError where the volume refuses.
        """
        with tempfile.NamedTemporaryFile(dir=self.directory, prefix="in-", suffix=".part", delete=False) as file:
            try:
                yield cast(BinaryIO, file)
            finally:
                Path(file.name).unlink(missing_ok=True)

    def sweep(self, older_than_s: float = 0.0) -> int:
        """Delete files not written for ``older_than_s`` seconds; returns how many.

        Call it at start. Where several receivers share the spool, give a time longer than a pause in a transfer.
        """
        limit = time.time() - older_than_s
        swept = 0
        for path in self.directory.iterdir():
            try:
                orphan = path.is_file() and path.stat().st_mtime <= limit
            except FileNotFoundError:
                continue  # its receiver has just adopted or deleted it
            if orphan:
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    def free_bytes(self) -> int:
        """Free space on the spool's volume, for the check before accepting more."""
        return shutil.disk_usage(self.directory).free
