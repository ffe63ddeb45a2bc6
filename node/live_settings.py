"""Settings that follow the configuration file while the node runs: validated before they count, else nothing changes.

Every process asks for ``current`` when it needs settings. The file is looked at once a second at most; what it says is
taken as a whole or not at all. Sections that a running process cannot change (ports, storage ...) keep their values
until the restart, and the change says which those are. The last accepted file is kept beside the index, so that a
process which is restarted while the file is faulty still starts.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel

from node.settings import ConfigurationError, Settings, load_settings, refuse_unsafe

log = structlog.get_logger()

LIVE_SECTIONS = ("peers", "destinations", "rules", "completion", "delivery")
"""What takes effect without a restart."""
ACCEPTED_FILE = "configuration.accepted.toml"
POLL_S = 1.0
SETTLE_S = 0.3
"""A file that was changed this short a time ago may still be being written."""
MAXIMUM_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class ConfigurationChange:
    """What became of a changed configuration file."""

    refused: bool
    message: str
    file_sha256: str
    needs_restart: tuple[str, ...] = ()


class LiveSettings:
    """The settings of a process. Without a file they never change.

    Args:
        settings: those the process started with.
        config_file: where they came from.
        keep_accepted: keep a copy of each accepted file in the data directory (one process of a node is enough).
    """

    def __init__(
        self,
        settings: Settings,
        config_file: Path | None = None,
        *,
        keep_accepted: bool = False,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.last_good = settings
        """The settings in force, without a look at the file."""
        self.last_change: ConfigurationChange | None = None
        self.on_change: Callable[[ConfigurationChange], None] | None = None
        self._file = config_file
        self._keep_accepted = keep_accepted
        self._poll_s, self._settle_s = poll_s, settle_s
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._seen = self._stat()
        self._digest = self._content()[1]
        if keep_accepted:
            self._keep(settings)

    @classmethod
    def of_process(cls, settings: Settings) -> "LiveSettings":
        """Of a child process: the file is named by its environment. The worker keeps the accepted copy."""
        path = os.environ.get("PACSGATE_CONFIG")
        return cls(settings, Path(path) if path else None, keep_accepted=bool(path))

    @property
    def current(self) -> Settings:
        """The settings in force. Takes a changed file into account first, if it is valid."""
        if self._file is not None and time.monotonic() - self._looked_at >= self._poll_s:
            self._look()
        return self.last_good

    def _look(self) -> None:
        """Reload if the file changed. One thread does; the others go on with what is in force."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._looked_at = time.monotonic()
            stat = self._stat()
            if stat == self._seen or (stat is not None and time.time() - stat[0] / 1e9 < self._settle_s):
                return
            content, digest = self._content()
            if self._stat() != stat:
                return  # it is being written; the next look finds it whole
            self._seen = stat
            if digest == self._digest:
                return
            self._digest = digest
            change = self._reload(content, digest)
        finally:
            self._lock.release()
        self.last_change = change
        log.log(
            30 if change.refused else 20,
            "configuration.refused" if change.refused else "configuration.reloaded",
            reason=change.message,
            file_sha256=change.file_sha256,
            needs_restart=list(change.needs_restart),
        )
        if self.on_change is not None:
            self.on_change(change)

    def _reload(self, content: bytes | None, digest: str) -> ConfigurationChange:
        if content is None:
            return ConfigurationChange(True, f"{self._file} cannot be read; the settings stay as they are", digest)
        before = self.last_good
        try:
            # The data directory may be a command-line option, which the file does not know.
            found = load_settings(self._file)
            kept = {name: getattr(before, name) for name in type(before).model_fields if name not in LIVE_SECTIONS}
            merged = before.model_copy(update={name: getattr(found, name) for name in LIVE_SECTIONS})
            refuse_unsafe(merged)
        except ConfigurationError as error:
            return ConfigurationChange(True, f"nothing was changed: {error}", digest)
        needs_restart = tuple(
            option for name, section in kept.items() for option in _differences(name, section, getattr(found, name))
        )
        self.last_good = merged
        if self._keep_accepted:
            self._keep(merged)
        changed = [name for name in LIVE_SECTIONS if getattr(before, name) != getattr(merged, name)]
        message = f"in force now: {', '.join(changed) or 'no change that concerns a running node'}"
        if needs_restart:
            message += f"; needs a restart: {', '.join(needs_restart)}"
        return ConfigurationChange(False, message, digest, needs_restart)

    def _keep(self, settings: Settings) -> None:
        """Copy the accepted file into the data directory, as a whole or not at all, readable for its owner alone."""
        content, _ = self._content()
        if content is None:
            return
        target = settings.data_dir / ACCEPTED_FILE
        temporary = target.with_suffix(f".{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            temporary.replace(target)
        except OSError as error:
            log.warning("configuration.not-kept", file=str(target), reason=error.strerror)

    def _stat(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _content(self) -> tuple[bytes | None, str]:
        if self._file is None:
            return None, ""
        try:
            with self._file.open("rb") as file:
                content = file.read(MAXIMUM_FILE_BYTES + 1)
        except OSError:
            return None, ""
        if len(content) > MAXIMUM_FILE_BYTES:
            return None, "too-long"
        return content, hashlib.sha256(content).hexdigest()


def settings_at_start() -> Settings:
    """The settings of a child process; the last accepted ones where the file has become faulty since.

    Raises:
        ConfigurationError: the file is faulty, and no accepted one is known.
    """
    try:
        return load_settings()
    except ConfigurationError as error:
        data_dir = os.environ.get("PACSGATE_STORAGE__DATA_DIR")
        accepted = Path(data_dir) / ACCEPTED_FILE if data_dir else None
        if accepted is None or not accepted.is_file():
            raise
        log.error("configuration.refused", reason=str(error), in_force=str(accepted))
        return load_settings(accepted)


def _differences(name: str, before: object, after: object) -> list[str]:
    """The options of a section that differ, by their names in the file."""
    if not (isinstance(before, BaseModel) and isinstance(after, BaseModel)):
        return [name] if before != after else []
    fields = type(before).model_fields
    return [f"{name}.{key}" for key in fields if getattr(before, key) != getattr(after, key)]
