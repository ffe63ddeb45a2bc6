"""What an object store offers, whichever kind it is, and which kind a site's configuration asks for.

Objects are immutable and named after the SHA-256 of their content. `storage.objects` keeps them as local files,
`storage.object_store_cloud` in a bucket that several machines share.
"""

from io import BufferedReader
from pathlib import Path
from typing import Protocol

from storage.objects import ObjectStore, StoredObject

CLOUD_SCHEMES = ("s3", "gs", "az")
"""Amazon S3 and servers that speak its protocol, Google Cloud Storage, Azure Blob Storage."""


class ObjectStorage(Protocol):
    """Immutable objects by digest. Every method may raise ObjectStoreUnavailable; readers also ObjectMissing."""

    def adopt(self, path: Path) -> StoredObject:
        """Move the file at ``path`` into the store; return once it is durable. Left there where the store refuses."""

    def keep(self, path: Path, digest: str) -> None:
        """Store the file at ``path``, which has that digest; return once it is durable. ``path`` stays."""

    def put(self, data: bytes) -> StoredObject:
        """Store ``data``; return once it is durable."""

    def contains(self, digest: str) -> bool:
        """Whether the store holds the object. Its content is not checked."""

    def path(self, digest: str) -> Path:
        """A local file that holds the object, for a reader that opens it soon: a shared store copies it here first."""

    def open(self, digest: str) -> BufferedReader:
        """Open the object for reading."""

    def read(self, digest: str) -> bytes:
        """The content, checked against the digest (IntegrityError)."""

    def verify(self, digest: str) -> None:
        """Compare the content with the digest (IntegrityError)."""

    def verified_path(self, digest: str) -> Path:
        """Like `path`, content checked (IntegrityError)."""

    def sweep_temporary(self, older_than_s: float) -> int:
        """Delete temporary local files that a crash left behind; returns how many. Call it at start."""


def open_object_store(objects_url: str, data_dir: Path, endpoint_url: str, cache_max_bytes: int) -> ObjectStorage:
    """The object store that the configuration names.

    Parameters
    ----------
    objects_url
        Empty for files under ``data_dir/objects``; else ``s3://bucket/prefix``, ``gs://...`` or ``az://...``.
        Credentials come from the environment as the cloud's own tools read them.
    data_dir
        The node's data folder; a shared store keeps its cache in ``data_dir/cache``.
    endpoint_url
        Address of an S3 server that is not Amazon's; empty for the cloud's own.
    cache_max_bytes
        Size that the cache is cut back to.

    Raises
    ------
    ObjectStoreUnavailable
        The URL cannot be used, or the package that speaks to clouds is not installed.
    """
    if not objects_url:
        return ObjectStore(data_dir / "objects")
    # Here, so that a node with local files needs no cloud package.
    from storage.object_store_cloud import CloudObjectStore

    return CloudObjectStore(objects_url, data_dir / "cache", endpoint_url, cache_max_bytes)
