"""A bounded folder of local copies of objects, the least recently used deleted first. Processes may share it."""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

IN_USE_S = 300.0
"""A copy asked for within this time is never deleted: somebody may be about to open it."""
_SLACK = 0.05
"""The folder is looked through again when this share of its size has been added."""


class ObjectCache:
    """Copies named after their digest, cut back to ``max_bytes``.

    What was used within `IN_USE_S` stays, so one study larger than the limit exceeds it for as long as it is worked on.

    Parameters
    ----------
    root
        The folder; made where missing.
    max_bytes
        Size that it is cut back to.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self._max_bytes = max_bytes
        self._added_bytes = 0
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def find(self, digest: str) -> Path | None:
        """The copy of the object, now the most recently used one; None where there is none."""
        path = self.root / digest
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    @contextlib.contextmanager
    def new_file(self) -> Iterator[Path]:
        """The path of a file to be written and then given to `add`. Deleted at the end unless it was."""
        temporary = self.root / f"{uuid.uuid4().hex}.part"
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def add(self, path: Path, digest: str) -> Path:
        """Move the file at ``path``, whose content has that digest, into the cache. OSError where it refuses."""
        target = self.root / digest
        size_bytes = path.stat().st_size
        path.replace(target)
        os.utime(target)
        with self._lock:
            self._added_bytes += size_bytes
            due = self._added_bytes > self._max_bytes * _SLACK
            if due:
                self._added_bytes = 0
        if due:
            self.cut_back()
        return target

    def drop(self, digest: str) -> None:
        """Forget a copy, for one that turned out damaged."""
        (self.root / digest).unlink(missing_ok=True)

    def cut_back(self) -> int:
        """Delete the least recently used copies until the rest fits; returns how many bytes went."""
        copies = sorted(self._copies())
        excess = sum(size_bytes for _, size_bytes, _ in copies) - self._max_bytes
        limit, freed = time.time() - IN_USE_S, 0
        for used_at, size_bytes, path in copies:
            if freed >= excess or used_at > limit:
                break
            path.unlink(missing_ok=True)
            freed += size_bytes
        return freed

    def sweep_temporary(self, older_than_s: float) -> int:
        """Delete unfinished copies that a crash left behind; returns how many."""
        limit = time.time() - older_than_s
        orphans = [path for path in self.root.glob("*.part") if path.stat().st_mtime <= limit]
        for orphan in orphans:
            orphan.unlink(missing_ok=True)
        return len(orphans)

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and path of every whole copy."""
        for entry in os.scandir(self.root):
            with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                if not entry.name.endswith(".part"):
                    status = entry.stat()
                    yield status.st_mtime, status.st_size, Path(entry.path)
