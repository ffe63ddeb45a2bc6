"""Signs of life of this host's processes: one small JSON file per slot under ``data_dir/run``, written over and over.

Kept apart from the index on purpose: that a process lives must be visible when the index does not answer.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger()

FOLDER: Final = "run"
INTERVAL_S: Final = 2.0
_MAXIMUM_BYTES: Final = 1 << 16


class SignOfLife:
    """Writes one slot's file: what is new at once, else every ``INTERVAL_S`` seconds.

    A full disk stops the sign, not the process.
    """

    def __init__(self, data_dir: Path, slot: str) -> None:
        self._path = data_dir / FOLDER / f"{slot}.json"
        self._last = -INTERVAL_S
        self._facts: dict[str, Any] = {}
        self._failed = False

    def give(self, **facts: Any) -> None:
        """Say that this process is alive, and ``facts`` of it."""
        now = time.monotonic()
        if facts == self._facts and now - self._last < INTERVAL_S:
            return
        self._last, self._facts = now, facts
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"at": time.time(), **facts}))
            temporary.replace(self._path)
        except OSError as error:
            if not self._failed:
                log.error("sign-of-life.failed", slot=self._path.stem, reason=error.strerror or type(error).__name__)
            self._failed = True
        else:
            self._failed = False


def last_signs(data_dir: Path) -> dict[str, dict[str, Any]]:
    """Slot -> what it said last and ``age_s``, how long ago. What cannot be read is left out."""
    signs = {}
    for path in (data_dir / FOLDER).glob("*.json"):
        try:
            if path.stat().st_size > _MAXIMUM_BYTES:
                continue
            sign = json.loads(path.read_text())
            signs[path.stem] = {**sign, "age_s": max(time.time() - float(sign["at"]), 0.0)}
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("sign-of-life.unreadable", slot=path.stem, reason=type(error).__name__)
    return signs


def clear(data_dir: Path) -> None:
    """Remove the signs of an earlier run."""
    for path in (data_dir / FOLDER).glob("*.json"):
        path.unlink(missing_ok=True)
