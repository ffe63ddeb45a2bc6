"""The object store: immutable files named after the SHA-256 of their content, on a local disk.

A file is written under a temporary name, synced, renamed into place and its folder synced: after `adopt` or `put`
returns, the object survives a power cut. No path is ever made from a received string.
"""

import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from storage.errors import IntegrityError, InvalidDigest, ObjectMissing, ObjectStoreUnavailable

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".temporary"
_CHUNK_BYTES = 1 << 20
_NAMES_GO_WITH_FILES = frozenset(("ext4", "xfs"))
"""File systems whose journal holds a new name and its file together: to sync the file is to sync the name.

POSIX does not promise that, so elsewhere the folder is synced as well, at the cost of another flush per instance.
"""


@dataclass(frozen=True)
class StoredObject:
    """An object that is durably stored."""

    digest: str
    """SHA-256 of the content, lower-case hexadecimal."""
    size_bytes: int


def digest_of(path: Path) -> StoredObject:
    """Digest and size of a file; raises OSError."""
    with path.open("rb") as file:
        return StoredObject(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


class ObjectStore:
    """Content-addressed files below ``root``: the object ``abcd...`` is the file ``root/ab/abcd...``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary = root / _TEMPORARY
        self._temporary.mkdir(parents=True, exist_ok=True)
        # All folders now: made as needed, each would cost an acknowledged instance two more syncs. One level of 256
        # holds tens of millions of objects on the indexed folders of ext4 and xfs.
        for number in range(256):
            (root / f"{number:02x}").mkdir(exist_ok=True)
        _sync_folder(root)
        self._syncs_folders = file_system_of(root) not in _NAMES_GO_WITH_FILES

    def adopt(self, path: Path) -> StoredObject:
        """Move the file at ``path`` into the store and return once it is durable there.

        Idempotent: the same content again replaces itself, which also heals a damaged object.

        Raises
        ------
        ObjectStoreUnavailable
            The volume refused; ``path`` is then still there.
        """
        try:
            stored = self._sync_and_hash(path)
            self._place(path, stored.digest)
        except OSError as error:
            raise _unavailable(self.root, error) from error
        return stored

    def keep(self, path: Path, digest: str) -> None:
        """Give the file at ``path``, whose SHA-256 is ``digest``, its name in the store; return once it is durable.

        ``path`` stays: the caller deletes it when nothing refers to it any more. Content that is there already is
        synced, not written anew, so a whole object is never replaced by one that is not synced yet; a damaged one is.

        Raises
        ------
        ObjectStoreUnavailable
            The volume refused.
        """
        try:
            self._link(path, self.path(digest))
        except OSError as error:
            raise _unavailable(self.root, error) from error

    def _link(self, path: Path, target: Path) -> None:
        try:
            os.link(path, target)
        except FileExistsError:
            if not self._holds(target):
                self._copy_into_place(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_into_place(path, target)
        _sync(target)
        if self._syncs_folders:
            _sync_folder(target.parent)

    def _holds(self, target: Path) -> bool:
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == target.name

    def put(self, data: bytes) -> StoredObject:
        """Store ``data`` and return once it is durable."""
        temporary = self._new_temporary()
        try:
            temporary.write_bytes(data)
            return self.adopt(temporary)
        except OSError as error:
            raise _unavailable(self.root, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the object of ``digest`` is or would be. Not checked; see `verified_path`."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidDigest(f"{digest[:80]!r} is not a SHA-256 in lower-case hexadecimal")
        return self.root / digest[:2] / digest

    def contains(self, digest: str) -> bool:
        """Whether the store holds an object of this digest. Its content is not checked."""
        return self.path(digest).is_file()

    def open(self, digest: str) -> BufferedReader:
        """Open the object for reading. The content is not checked; see `verify`.

        Raises
        ------
        ObjectMissing, ObjectStoreUnavailable
        """
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise ObjectMissing(f"object {digest} is not in the store at {self.root}") from error
        except OSError as error:
            raise _unavailable(self.root, error) from error

    def read(self, digest: str) -> bytes:
        """The content of an object, checked against its digest.

        Raises
        ------
        ObjectMissing, IntegrityError, ObjectStoreUnavailable
        """
        with self.open(digest) as file:
            try:
                data = file.read()
            except OSError as error:
                raise _unavailable(self.root, error) from error
        self._compare(digest, hashlib.sha256(data).hexdigest())
        return data

    def verify(self, digest: str) -> None:
        """Read the whole object in pieces and compare it with its digest.

        Raises
        ------
        ObjectMissing, IntegrityError, ObjectStoreUnavailable
        """
        with self.open(digest) as file:
            try:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _unavailable(self.root, error) from error
        self._compare(digest, found)

    def verified_path(self, digest: str) -> Path:
        """The path of an object whose content has just been verified."""
        self.verify(digest)
        return self.path(digest)

    def sweep_temporary(self, older_than_s: float) -> int:
        """Delete temporary files that a crash left behind; returns how many. Call it at start."""
        limit = time.time() - older_than_s
        orphans = [path for path in self._temporary.iterdir() if path.stat().st_mtime <= limit]
        for orphan in orphans:
            orphan.unlink(missing_ok=True)
        return len(orphans)

    def _new_temporary(self) -> Path:
        return self._temporary / f"{uuid.uuid4().hex}.part"

    def _sync_and_hash(self, path: Path) -> StoredObject:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return StoredObject(digest, file.tell())

    def _place(self, path: Path, digest: str) -> None:
        target = self.path(digest)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_into_place(path, target)
            path.unlink()
        _sync_folder(target.parent)

    def _copy_into_place(self, path: Path, target: Path) -> None:
        """For a ``path`` on another volume, where a rename or link cannot reach, and in place of a damaged object."""
        temporary = self._new_temporary()
        try:
            with path.open("rb") as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            self._compare(target.name, self._sync_and_hash(temporary).digest)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _compare(self, digest: str, found: str) -> None:
        if found != digest:
            raise IntegrityError(
                f"object {digest} in the store at {self.root} is damaged: its content now has the SHA-256 {found}; "
                "restore the file from a backup or have the instance sent again"
            )


def file_system_of(path: Path) -> str:
    """The type of the file system that holds ``path`` (proc(5), mountinfo); empty where it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    types = {line.split(" - ")[1].split()[0] for line in lines if line.split()[2] == number}
    return types.pop() if len(types) == 1 else ""


def _sync_folder(folder: Path) -> None:
    _sync(folder, os.O_DIRECTORY)


def _sync(path: Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(root: Path, error: OSError) -> ObjectStoreUnavailable:
    return ObjectStoreUnavailable(f"the object store at {root} cannot be used: {error.strerror or error}")
