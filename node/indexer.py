"""The indexer process: describes received instances, one after the other, as long as there are any.

A process of its own, at a lower priority, which waits for a pause in what arrives: converting headers takes more of a
core than receiving, and writing them holds up who writes the index; receiving goes first. It needs no image processing,
so a host that only receives has one too.
"""

import os
import threading
from typing import Final

import structlog

from node.objects import open_objects
from node.settings import Settings
from storage.database import Database
from storage.describe import describe_pending, waiting_since
from storage.errors import StorageError
from storage.models import utc_now

log = structlog.get_logger()

IDLE_S: Final = 0.2
"""Between two looks when nothing waits: a query on an empty partial index."""
TROUBLE_S: Final = 5.0
PAUSE_S: Final = 0.2
"""Instances that follow each other faster belong to a burst."""
LONGEST_WAIT_S: Final = 10.0
"""A burst that goes on for longer is not waited for."""
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
            wait_s = IDLE_S
            if not _in_burst(database) and describe_pending(database, objects):
                wait_s = 0.0
        except StorageError as error:
            log.error("indexer.waiting", reason=str(error))
            wait_s = TROUBLE_S
    database.dispose()
    log.info("indexer.stopped")


def _in_burst(database: Database) -> bool:
    """Whether instances are arriving one after the other, and none has waited long."""
    waiting = waiting_since(database)
    if waiting is None:
        return False
    oldest_s, newest_s = ((utc_now() - at).total_seconds() for at in waiting)
    return newest_s < PAUSE_S and oldest_s < LONGEST_WAIT_S
