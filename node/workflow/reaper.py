"""The reaper: what a dead host had begun moves to the living within the silence allowed plus one round.

Every worker runs it; a turn in the index lets one at a time declare others dead.
"""

import structlog

from node.workflow.engine import JobEngine
from storage.database import Database
from storage.executors import bury, live_slots, silent_executors
from storage.turns import Turn, take_turn

log = structlog.get_logger()


def reap(database: Database, engine: JobEngine, silent_s: float) -> int:
    """Bury processes silent for longer than ``silent_s``, put their jobs back into the queues, return how many.

    A receiver's associations are closed with it, so that its studies complete. Jobs are looked for by owner, not by
    the dead: also those of a host that was renamed, or that died while the index was restored, are found.
    """
    with database.session() as session:
        if take_turn(session, Turn.REAP):
            for dead in silent_executors(session, silent_s):
                bury(session, dead, silent_s)
                log.error("executor.lost", slot=dead.slot, host=dead.host, silent_for_more_than_s=silent_s)
    # Owners first: one that enters the list in between and begins to work is then not mistaken for an orphan's owner.
    owners = engine.owners()
    with database.read() as session:
        orphaned = sorted(owners - live_slots(session))
    if not orphaned:
        return 0
    recovered = engine.recover(orphaned)
    log.warning("jobs.recovered", of=orphaned, jobs=recovered)
    return recovered
