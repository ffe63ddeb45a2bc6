"""The object store that the node's settings name, for the processes that use it."""

from typing import Final

from node.settings import Settings
from storage.object_store import ObjectStorage, open_object_store

ABSENT_DIGEST: Final = "0" * 64
"""No content is known that has it: asking for it shows that the store answers."""


def open_objects(settings: Settings) -> ObjectStorage:
    """Local files or a bucket. Raises ObjectStoreUnavailable where the settings or the installation do not allow it."""
    storage = settings.storage
    return open_object_store(
        storage.objects_url, settings.data_dir, storage.objects_endpoint_url, storage.cache_max_bytes
    )
