"""The indexer process: describes received instances, one after the other, as long as there are any.

A process of its own, at a lower priority: converting headers takes more of a core than receiving, and receiving goes
first. It needs no image processing, so a host that only receives has one too.
"""

import os
import threading
from typing import Final

import structlog

from node.objects import open_objects
from node.settings import Settings
from storage.database import Database
from storage.describe import describe_pending
from storage.errors import StorageError

log = structlog.get_logger()

IDLE_S: Final = 0.2
"""Between two looks when nothing waits: a query on an empty partial index."""
TROUBLE_S: Final = 5.0
_NICENESS: Final = 5


def run_indexer(settings: Settings, stop: threading.Event) -> None:
    """Describe until ``stop`` is set. A volume that is away for a while is waited for."""
    os.nice(_NICENESS)
    database = Database(settings.database_url)
    objects = open_objects(settings)
    log.info("indexer.started")
    wait_s = 0.0
    while not stop.wait(wait_s):
        try:
            wait_s = 0.0 if describe_pending(database, objects) else IDLE_S
        except StorageError as error:
            log.error("indexer.waiting", reason=str(error))
            wait_s = TROUBLE_S
    database.dispose()
    log.info("indexer.stopped")
