"""Whether this host can serve: each component's state, for load balancers (terse) and administrators (in words).

What is down and needed to receive makes the host not ready. A worker that is away or a PACS that does not answer does
not: studies are received and wait, and a load balancer that took the host away would only make it worse.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Row, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from node.objects import ABSENT_DIGEST, open_objects
from node.settings import ConfigurationError, Settings
from node.signs_of_life import last_signs
from storage.database import Database
from storage.destinations import all_destinations
from storage.errors import StorageError
from storage.models import Delivery, DeliveryState, RevisionState, StudyRevision, utc_now

State = Literal["ok", "unknown", "degraded", "down"]
_STATES: tuple[State, ...] = ("ok", "unknown", "degraded", "down")

FRESH_S = 2.0
"""Health is looked at anew at most this often, however often it is asked for."""
PATIENCE_S = 5.0
"""A look that takes longer (a database that hangs) is not waited for."""
SILENT_AFTER_S = 30.0
"""A process that has not given a sign of life for this long is taken to hang; signs come every 2 s."""


@dataclass(frozen=True)
class Component:
    """One part of the node. ``needed``: without it nothing can be received here. ``name`` tells several of a kind."""

    kind: str
    state: State
    needed: bool
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Health:
    """The components, and what follows from them."""

    components: tuple[Component, ...]

    @property
    def ready(self) -> bool:
        """Nothing that is needed is down."""
        return not any(component.needed and component.state == "down" for component in self.components)

    def terse(self) -> dict[str, Any]:
        """What everybody may know: the worst state of each kind of component."""
        worst: dict[str, State] = {}
        for component in self.components:
            worst[component.kind] = max(worst.get(component.kind, "ok"), component.state, key=_STATES.index)
        return {"status": "ready" if self.ready else "not-ready", "components": worst}

    def full(self) -> dict[str, Any]:
        """What holders of a token may know."""
        return {
            "status": "ready" if self.ready else "not-ready",
            "components": [
                {
                    "kind": c.kind,
                    "name": c.name,
                    "state": c.state,
                    "needed": c.needed,
                    "detail": c.detail,
                    "figures": c.figures,
                }
                for c in self.components
            ],
        }


class HealthProbe:
    """Looks at the components; several askers share one look."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._lock = threading.Lock()
        self._last: tuple[float, Health] | None = None

    def look(self) -> Health:
        """The host's health, not older than ``FRESH_S``. Never raises, never waits longer than ``PATIENCE_S``."""
        if not self._lock.acquire(timeout=PATIENCE_S):
            return Health((Component("index", "down", True, f"no answer within {PATIENCE_S:g} s"),))
        try:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                self._last = (time.monotonic(), Health(tuple(self._components())))
            return self._last[1]
        finally:
            self._lock.release()

    def _components(self) -> Iterator[Component]:
        settings = self._settings
        yield from _index_queue_and_destinations(settings, self._database)
        yield _bucket(settings) if settings.storage.objects_url else _objects(settings.data_dir / "objects")
        yield _disk(settings)
        yield from _certificates(settings)
        yield from _processes(settings.data_dir)


def _index_queue_and_destinations(settings: Settings, database: Database) -> Iterator[Component]:
    started = time.monotonic()
    try:
        with database.read() as session:
            session.execute(text("SELECT 1"))
            answered_ms = round((time.monotonic() - started) * 1e3, 1)
            found = [_queue(session, settings), *_destinations(session, settings)]
    except (SQLAlchemyError, StorageError) as error:
        yield Component("index", "down", True, f"the index does not answer ({type(error).__name__})")
        return
    yield Component("index", "ok", True, "answers", {"answered_ms": answered_ms})
    yield from found


def _queue(session: Session, settings: Settings) -> Component:
    waiting, since = session.execute(
        select(func.count(), func.min(StudyRevision.closed_at)).where(StudyRevision.state == RevisionState.CLOSED)
    ).one()
    age_s = _age_s(since)
    late = age_s is not None and age_s > settings.monitoring.queue_age_warning_s
    detail = f"{waiting} studies wait or are being processed" + (f", the oldest for {age_s:.0f} s" if age_s else "")
    return Component("queue", "degraded" if late else "ok", False, detail, {"studies": waiting, "oldest_s": age_s})


@dataclass(frozen=True)
class DestinationState:
    """How deliveries to one destination stand."""

    name: str
    pending: int
    failed: int
    oldest_pending_s: float | None
    last_success_s: float | None
    """Seconds since; None: never."""


def destination_states(session: Session, names: tuple[str, ...]) -> list[DestinationState]:
    """Every configured destination, and every other that something still waits for."""
    waiting = {name: (count, _age_s(since)) for name, count, since in _by_destination(session, DeliveryState.PENDING)}
    failed = {name: count for name, count, _ in _by_destination(session, DeliveryState.FAILED)}
    # Not the deliveries' own times: a replay makes them due again and blanks them.
    last_success_at = {row.name: row.last_success_at for row in all_destinations(session)}
    return [
        DestinationState(
            name,
            waiting.get(name, (0, None))[0],
            failed.get(name, 0),
            waiting.get(name, (0, None))[1],
            _age_s(last_success_at.get(name)),
        )
        for name in dict.fromkeys((*names, *sorted(waiting)))
    ]


def _by_destination(session: Session, state: DeliveryState) -> Sequence[Row[str, int, datetime]]:
    """Destination, how many deliveries are in that state, since when the oldest exists."""
    query = select(Delivery.destination, func.count(), func.min(Delivery.created_at))
    return session.execute(query.where(Delivery.state == state).group_by(Delivery.destination)).all()


def _destinations(session: Session, settings: Settings) -> Iterator[Component]:
    for state in destination_states(session, tuple(d.name for d in settings.destinations)):
        stuck = (state.oldest_pending_s or 0) > settings.monitoring.delivery_age_warning_s
        words = [f"{state.pending} pending", f"{state.failed} given up"]
        words.append(
            "nothing delivered yet"
            if state.last_success_s is None
            else f"last success {state.last_success_s:.0f} s ago"
        )
        yield Component(
            "destinations",
            "degraded" if stuck or state.failed else "ok",
            False,
            ", ".join(words),
            {
                "pending": state.pending,
                "given_up": state.failed,
                "oldest_pending_s": state.oldest_pending_s,
                "last_success_s": state.last_success_s,
            },
            state.name,
        )


def _bucket(settings: Settings) -> Component:
    """Ask the object service for an object that it does not have."""
    try:
        open_objects(settings).contains(ABSENT_DIGEST)
    except StorageError as error:
        return Component("objects", "down", True, str(error))
    return Component("objects", "ok", True, "the object service answers")


def _objects(folder: Path) -> Component:
    """Write a byte where objects go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"?")
            probe.flush()
    except OSError as error:
        return Component("objects", "down", True, f"cannot be written: {error.strerror or type(error).__name__}")
    return Component("objects", "ok", True, "can be written")


def _disk(settings: Settings) -> Component:
    low = settings.storage.minimum_free_bytes
    try:
        usage = shutil.disk_usage(settings.data_dir)
    except OSError as error:
        return Component("disk", "down", True, f"cannot be looked at: {error.strerror or type(error).__name__}")
    figures = {"free_bytes": usage.free, "size_bytes": usage.total, "minimum_free_bytes": low}
    words = f"{usage.free / 1e9:.1f} GB free, instances are refused below {low / 1e9:.1f} GB"
    state: State = "down" if usage.free < low else "degraded" if usage.free < 2 * low else "ok"
    return Component("disk", state, True, words, figures)


def _certificates(settings: Settings) -> Iterator[Component]:
    """Where TLS is set up: the certificate or revocation list that ends first. The port without TLS goes on."""
    if not settings.tls.enabled:
        return
    from node.tls import certificate_states

    try:
        states = certificate_states(settings.tls)
    except ConfigurationError as error:
        yield Component("certificates", "down", False, str(error))
        return
    first = min(states, key=lambda state: state.not_after)
    remaining_s = (first.not_after - utc_now()).total_seconds()
    fault = first.fault(settings.tls.expiry_warning_days)
    state: State = "down" if remaining_s <= 0 else "degraded" if fault else "ok"
    detail = fault or f"good until {first.not_after:%Y-%m-%d}"
    yield Component("certificates", state, False, detail, {"remaining_s": round(remaining_s)})


def _processes(data_dir: Path) -> Iterator[Component]:
    """Receivers, workers and the job engine, by the signs of life of this host."""
    signs = last_signs(data_dir)
    supervisor = signs.get("supervisor")
    if supervisor is None:
        yield Component("processes", "unknown", False, "no supervisor has given a sign of life here")
        return
    if supervisor["age_s"] > SILENT_AFTER_S:
        yield Component("processes", "down", True, f"the supervisor is silent for {supervisor['age_s']:.0f} s")
        return
    kinds: dict[str, list[dict[str, Any]]] = {}
    for child in supervisor.get("children", []):
        kinds.setdefault(child["kind"], []).append(child)
    for kind, children in sorted(kinds.items()):
        running = sum(_serves(child, signs.get(child["slot"])) for child in children)
        state: State = "ok" if running == len(children) else "degraded" if running else "down"
        restarts = sum(child["restarts"] for child in children)
        verb = "listen" if kind == "receiver" else "run"
        words = f"{running} of {len(children)} {verb}, restarted {restarts} times"
        figures = {"running": running, "configured": len(children), "restarts": restarts}
        yield Component(f"{kind}s", state, kind == "receiver", words, figures)
    for child in kinds.get("worker", []):
        yield _engine(child["slot"], signs.get(child["slot"]))


def _serves(child: dict[str, Any], sign: dict[str, Any] | None) -> bool:
    """Whether a process runs; a receiver has said itself that it listens, and not a predecessor of it."""
    if not child["running"] or child["kind"] != "receiver":
        return bool(child["running"])
    return sign is not None and sign["age_s"] < SILENT_AFTER_S and sign.get("pid") == child.get("pid")


def _engine(slot: str, sign: dict[str, Any] | None) -> Component:
    """The job engine answers the worker in each of its sweeps."""
    if sign is None:
        return Component("job-engine", "unknown", False, "has not swept yet", name=slot)
    state: State = "ok" if sign["age_s"] < SILENT_AFTER_S else "down"
    age_s = round(sign["age_s"], 1)
    return Component("job-engine", state, False, f"swept {age_s:g} s ago", {"swept_s": age_s}, slot)


def _age_s(at: datetime | None) -> float | None:
    return None if at is None else max((utc_now() - at).total_seconds(), 0.0)
