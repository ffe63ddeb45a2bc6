"""The object store in a bucket (S3 and servers that speak its protocol, Google Cloud Storage, Azure Blob Storage).

An object is durable when the server has answered its upload; uploads carry a checksum that an S3 server compares.
Readers get local copies out of a bounded cache, each compared with its digest when it arrives. Memory is bounded:
objects travel in parts. No name in the bucket is ever made from a received string.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from storage.errors import IntegrityError, InvalidDigest, ObjectMissing, ObjectStoreUnavailable
from storage.object_cache import ObjectCache
from storage.objects import StoredObject

try:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import from_url
except ImportError as missing:
    raise ObjectStoreUnavailable("objects_url needs the package obstore: pip install 'pacsgate[s3]'") from missing

PART_BYTES = 8 * 1024 * 1024
"""Objects travel in parts of this size."""
PARTS_AT_ONCE = 4
"""With PART_BYTES the memory one upload takes: 32 MiB."""
CONNECT_TIMEOUT = timedelta(seconds=3)
READ_TIMEOUT = timedelta(seconds=15)
"""Longest silence of the server within a request."""
REQUEST_TIMEOUT = timedelta(minutes=10)
"""Longest request in all: 2 GB at 30 Mbit/s."""
RETRY_TIMEOUT = timedelta(seconds=20)
"""No further retry later than this after the first try: a sender that waits for its C-STORE response gives up soon."""
MAX_RETRIES = 10
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MESSAGE_CHARACTERS = 200


class CloudObjectStore:
    """Content-addressed objects below a bucket's prefix: the object ``abcd...`` is ``PREFIX/ab/abcd...``.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``; account and credentials come from
        the environment.
    cache
        Folder of the local copies.
    endpoint_url
        Address of an S3 server that is not Amazon's; ``http://`` only where the network is trusted.
    cache_max_bytes
        See `ObjectCache`.

    Raises
    ------
    ObjectStoreUnavailable
        The URL or the environment's credentials cannot be used.
    """

    def __init__(self, url: str, cache: Path, endpoint_url: str = "", cache_max_bytes: int = 10**10) -> None:
        self._name = url
        self._cache = ObjectCache(cache, cache_max_bytes)
        with self._translated():
            self._store: Any = from_url(
                url,
                client_options={
                    "connect_timeout": CONNECT_TIMEOUT,
                    "read_timeout": READ_TIMEOUT,
                    "timeout": REQUEST_TIMEOUT,
                    "allow_http": endpoint_url.startswith("http://"),
                },
                retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT},
                **_s3_options(url, endpoint_url),
            )

    def adopt(self, path: Path) -> StoredObject:
        """Upload the file at ``path`` and return once the server has it; the file becomes the local copy.

        Idempotent: the same content again replaces itself.

        Raises
        ------
        ObjectStoreUnavailable
            The server refused or did not answer; ``path`` is then still there.
        """
        with self._translated():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                stored = StoredObject(digest, file.tell())
            self._upload(digest, path)
            if _same_volume(path, self._cache.root):
                self._cache.add(path, digest)
            else:
                path.unlink()
        return stored

    def keep(self, path: Path, digest: str) -> None:
        """Upload the file at ``path``, whose SHA-256 is ``digest``, and return once the server has it; ``path`` stays.

        Raises
        ------
        ObjectStoreUnavailable
            The server refused or did not answer.
        """
        with self._translated():
            self._upload(digest, path)
            with self._cache.new_file() as copy:
                if _link(path, copy):
                    self._cache.add(copy, digest)

    def put(self, data: bytes) -> StoredObject:
        """Upload ``data`` and return once the server has it."""
        digest = hashlib.sha256(data).hexdigest()
        with self._translated():
            self._upload(digest, data)
        return StoredObject(digest, len(data))

    def contains(self, digest: str) -> bool:
        """Whether the bucket holds the object."""
        try:
            with self._translated(digest):
                obstore.head(self._store, self._key(digest))
        except ObjectMissing:
            return False
        return True

    def path(self, digest: str) -> Path:
        """The local copy, downloaded where there is none; its content was checked when it arrived.

        It stays for at least `storage.object_cache.IN_USE_S`.

        Raises
        ------
        ObjectMissing, IntegrityError, ObjectStoreUnavailable
        """
        key = self._key(digest)
        with self._translated(digest):
            return self._cache.find(digest) or self._download(digest, key)

    def open(self, digest: str) -> BufferedReader:
        """Open the local copy for reading. Raises as `path` does."""
        path = self.path(digest)
        with self._translated(digest):
            return path.open("rb")

    def read(self, digest: str) -> bytes:
        """The content, checked. Raises as `path` does."""
        path = self.verified_path(digest)
        with self._translated(digest):
            return path.read_bytes()

    def verify(self, digest: str) -> None:
        """Compare the local copy, downloaded where there is none, with the digest. Raises as `path` does."""
        self.verified_path(digest)

    def verified_path(self, digest: str) -> Path:
        """A local copy whose content has just been checked; a damaged one is downloaded anew. Raises as `path` does."""
        key = self._key(digest)
        with self._translated(digest):
            copy = self._cache.find(digest)
            if copy is not None:
                with copy.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                        return copy
                self._cache.drop(digest)
            return self._download(digest, key)

    def sweep_temporary(self, older_than_s: float) -> int:
        """Delete unfinished downloads that a crash left behind; returns how many.

        Unfinished uploads are invisible in the bucket; its lifecycle rule deletes them (docs/many-machines.md).
        """
        return self._cache.sweep_temporary(older_than_s)

    def _key(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise InvalidDigest(f"{digest[:80]!r} is not a SHA-256 in lower-case hexadecimal")
        return f"{digest[:2]}/{digest}"

    def _upload(self, digest: str, content: Path | bytes) -> None:
        key = self._key(digest)
        try:
            obstore.put(self._store, key, content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        except FileNotFoundError as error:  # how the client reports a bucket that does not exist
            raise ObjectStoreUnavailable(f"the object store at {self._name} has no such bucket") from error

    def _download(self, digest: str, key: str) -> Path:
        with self._cache.new_file() as temporary:
            found = hashlib.sha256()
            with temporary.open("wb") as file:
                for part in obstore.get(self._store, key).stream(min_chunk_size=PART_BYTES):
                    found.update(part)
                    file.write(part)
            if found.hexdigest() != digest:
                raise IntegrityError(
                    f"object {digest} in the store at {self._name} is damaged: its content now has the SHA-256 "
                    f"{found.hexdigest()}; restore the object from a backup or have the instance sent again"
                )
            return self._cache.add(temporary, digest)

    @contextmanager
    def _translated(self, digest: str | None = None) -> Iterator[None]:
        """Errors of the client, the server and the cache's volume become ours."""
        try:
            yield
        except FileNotFoundError as error:
            if digest is None:
                raise self._unavailable(error) from error
            raise ObjectMissing(f"object {digest} is not in the store at {self._name}") from error
        except (BaseError, OSError, ValueError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> ObjectStoreUnavailable:
        reason = str(error).strip().partition("\n")[0][:_MESSAGE_CHARACTERS] or type(error).__name__
        return ObjectStoreUnavailable(f"the object store at {self._name} cannot be used: {reason}")


def _s3_options(url: str, endpoint_url: str) -> dict[str, Any]:
    """S3 alone has a checksum header, and servers other than its inventor's."""
    if urlsplit(url).scheme != "s3":
        return {}
    return {"checksum_algorithm": "SHA256", **({"endpoint": endpoint_url} if endpoint_url else {})}


def _same_volume(path: Path, folder: Path) -> bool:
    return path.stat().st_dev == folder.stat().st_dev


def _link(path: Path, copy: Path) -> bool:
    """Give the file a second name in the cache; False on another volume: whoever needs it there downloads it."""
    if not _same_volume(path, copy.parent):
        return False
    os.link(path, copy)
    return True
