"""Keeps a flood of equal security alerts from filling the disk: a port scanner makes thousands a second."""

import threading
import time
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 60.0
MAXIMUM_KEYS: Final = 100
"""Addresses counted apart; more than that in one window share a count."""


class AlertLimiter:
    """Lets ``per_minute`` alerts of one key through in each minute and counts the rest."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._window_began = clock()
        self._counts: dict[str, int] = {}

    def admit(self, key: str) -> bool:
        """Count an alert; True if it is to be recorded."""
        with self._lock:
            if key not in self._counts and len(self._counts) >= MAXIMUM_KEYS:
                key = ""
            self._counts[key] = self._counts.get(key, 0) + 1
            return self._counts[key] <= self._per_minute

    def suppressed(self, *, now: bool = False) -> dict[str, int]:
        """Return how many alerts were left out, by key, once the minute is over (or ``now``), and begin a new one."""
        with self._lock:
            if not now and self._clock() - self._window_began < WINDOW_S:
                return {}
            counts, self._counts = self._counts, {}
            self._window_began = self._clock()
        return {key: count - self._per_minute for key, count in counts.items() if count > self._per_minute}
