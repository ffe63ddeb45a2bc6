"""Counts the instances one association brings, for one audit message per study and outcome instead of one each.

PS3.15 A.5.3.7 tells apart, by its Event Action Code, instances that were new to the receiver, that it already held, and
that replaced what it held: so the duplicate policy's decisions are in the trail.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from node.audit.codes import Action

MAXIMUM_COUNTS: Final = 100
"""Different (study, action, SOP class) triples kept before they are reported: bounds memory and message length."""


@dataclass(frozen=True)
class Transfer:
    """Instances of one study that went over, counted by SOP Class UID; ``patient_id`` is kept only where allowed."""

    study_instance_uid: str
    action: Action
    instances: dict[str, int]
    patient_id: str = ""


@dataclass
class TransferCounter:
    """The tally of one association. ``report`` is given all transfers at the latest after ``interval_s`` seconds."""

    report: Callable[[list[Transfer]], None]
    interval_s: float
    clock: Callable[[], float] = time.monotonic
    _counts: Counter[tuple[str, Action, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = 0.0

    def count(self, study_instance_uid: str, sop_class_uid: str, action: Action) -> None:
        """Count one instance."""
        with self._lock:
            if not self._counts:
                self._began = self.clock()
            self._counts[study_instance_uid, action, sop_class_uid] += 1
            due = len(self._counts) >= MAXIMUM_COUNTS or self.clock() - self._began >= self.interval_s
        if due:
            self.flush()

    def flush(self) -> None:
        """Report what was counted since the last time; nothing if there is nothing."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        grouped: dict[tuple[str, Action], dict[str, int]] = {}
        for (study, action, sop_class), count in counts.items():
            grouped.setdefault((study, action), {})[sop_class] = count
        if grouped:
            self.report([Transfer(study, action, instances) for (study, action), instances in grouped.items()])
