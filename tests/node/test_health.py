"""Health per component: what is needed and down makes the host not ready; nothing else does, and all of it is told."""

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from node import health
from node.health import HealthProbe
from node.settings import Settings, TlsSettings, load_settings
from node.signs_of_life import SignOfLife, clear, last_signs
from storage.database import Database
from storage.destinations import note_outcomes, remember_destinations
from storage.models import Delivery, DeliveryState, Patient, ResultObject, RevisionState, Study, StudyRevision, utc_now
from tests.fixtures.certificates import Authority

PACS = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings(storage={"data_dir": tmp_path, "database_url": database_url}, destinations=[PACS])


def _components(settings: Settings, database: Database) -> dict[str, dict[str, Any]]:
    found = HealthProbe(settings, database).look()
    return {component["kind"] + component["name"]: component for component in found.full()["components"]}


def _children(number: int = 0, **running: bool) -> list[dict[str, Any]]:
    return [
        {"slot": f"{kind}-{number}", "kind": kind, "running": alive, "pid": 4711, "restarts": 0 if alive else 3}
        for kind, alive in running.items()
    ]


def _listens(settings: Settings, pid: int = 4711) -> None:
    SignOfLife(settings.data_dir, "receiver-0").give(pid=pid)


def _study(database: Database, waited_s: float, delivery: DeliveryState) -> None:
    at = utc_now() - timedelta(seconds=waited_s)
    with database.session() as session:
        patient = Patient(patient_id="1")
        study = Study(patient=patient, study_instance_uid="1.2", first_received_at=at, last_received_at=at)
        revision = StudyRevision(study=study, number=1, state=RevisionState.CLOSED, opened_at=at, closed_at=at)
        result = ResultObject(
            revision=revision,
            kind="quality-report",
            sop_instance_uid="1.3",
            sop_class_uid="1.4",
            series_instance_uid="1.5",
            object_digest="0" * 64,
            size_bytes=1,
            created_at=at,
        )
        session.add(result)
        session.flush()
        session.add(
            Delivery(
                revision_id=revision.id,
                result=result,
                object_digest=result.object_digest,
                destination="pacs",
                priority=2,
                state=delivery,
                created_at=at,
                next_attempt_at=at,
            )
        )


def test_a_node_that_runs_is_ready_and_says_of_what(settings: Settings, database: Database) -> None:
    SignOfLife(settings.data_dir, "supervisor").give(children=_children(receiver=True, web=True, worker=True))
    _listens(settings)
    SignOfLife(settings.data_dir, "worker-0").give()
    look = HealthProbe(settings, database).look()
    assert look.ready
    assert look.terse() == {
        "status": "ready",
        "components": dict.fromkeys(
            ("index", "queue", "destinations", "objects", "disk", "receivers", "webs", "workers", "job-engine"), "ok"
        ),
    }


@pytest.mark.parametrize(
    ("dead", "ready"), [({"receiver": False}, False), ({"worker": False}, True), ({"web": False}, True)]
)
def test_only_receivers_are_needed_to_receive(
    dead: dict[str, bool], ready: bool, settings: Settings, database: Database
) -> None:
    SignOfLife(settings.data_dir, "supervisor").give(
        children=_children(**({"receiver": True, "web": True, "worker": True} | dead))
    )
    _listens(settings)
    look = HealthProbe(settings, database).look()
    (kind,) = dead
    assert look.ready is ready
    assert look.terse()["components"][f"{kind}s"] == "down"
    assert look.terse()["components"]["job-engine"] == "unknown"


def test_one_receiver_of_two_is_limping(settings: Settings, database: Database) -> None:
    SignOfLife(settings.data_dir, "supervisor").give(
        children=[*_children(receiver=True), *_children(1, receiver=False)]
    )
    _listens(settings)
    look = HealthProbe(settings, database).look()
    assert (look.ready, look.terse()["components"]["receivers"]) == (True, "degraded")


def test_a_receiver_that_has_only_started_does_not_count(settings: Settings, database: Database) -> None:
    SignOfLife(settings.data_dir, "supervisor").give(children=_children(receiver=True))
    first = HealthProbe(settings, database).look()
    assert (first.ready, first.terse()["components"]["receivers"]) == (False, "down")
    _listens(settings, pid=4710)
    assert not HealthProbe(settings, database).look().ready, "that was the process before it"
    _listens(settings)
    assert HealthProbe(settings, database).look().ready


def test_a_silent_supervisor_or_worker_is_down(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    SignOfLife(settings.data_dir, "supervisor").give(children=_children(receiver=True, worker=True))
    SignOfLife(settings.data_dir, "worker-0").give()
    assert _components(settings, database)["job-engineworker-0"]["state"] == "ok"
    monkeypatch.setattr(health, "SILENT_AFTER_S", 0.01)
    time.sleep(0.05)
    found = HealthProbe(settings, database).look()
    assert found.terse()["components"]["processes"] == "down"
    assert not found.ready


@pytest.mark.parametrize(
    ("waited_s", "delivery", "queue", "destination"),
    [
        (5, DeliveryState.PENDING, "ok", "ok"),
        (700, DeliveryState.PENDING, "degraded", "ok"),
        (4000, DeliveryState.PENDING, "degraded", "degraded"),
        (5, DeliveryState.FAILED, "ok", "degraded"),
    ],
)
def test_an_old_queue_and_a_dead_pacs_are_said_and_leave_the_host_ready(
    waited_s: float, delivery: DeliveryState, queue: str, destination: str, settings: Settings, database: Database
) -> None:
    _study(database, waited_s, delivery)
    found = _components(settings, database)
    assert (found["queue"]["state"], found["destinationspacs"]["state"]) == (queue, destination)
    assert found["queue"]["figures"]["oldest_s"] == pytest.approx(waited_s, abs=5)
    figures = found["destinationspacs"]["figures"]
    pending = delivery == DeliveryState.PENDING
    assert (figures["pending"], figures["given_up"]) == ((1, 0) if pending else (0, 1))
    assert figures["last_success_s"] is None
    assert HealthProbe(settings, database).look().ready


def test_the_last_success_of_a_destination_is_known(settings: Settings, database: Database) -> None:
    """Also after a replay, when its deliveries are all due again."""
    _study(database, 100, DeliveryState.PENDING)
    with database.session() as session:
        remember_destinations(session, ["pacs"])
        note_outcomes(session, "pacs", delivered=True, failure="", now=utc_now() - timedelta(seconds=60))
    found = _components(settings, database)["destinationspacs"]
    assert found["figures"]["last_success_s"] == pytest.approx(60, abs=5)
    assert (found["state"], "nothing delivered yet" in found["detail"]) == ("ok", False)


@pytest.mark.parametrize(
    ("free_share", "state", "ready"), [(0.5, "down", False), (1.5, "degraded", True), (3, "ok", True)]
)
def test_the_disk_is_held_against_its_watermark(
    free_share: float, state: str, ready: bool, database_url: str, database: Database, tmp_path: Path
) -> None:
    stat = os.statvfs(tmp_path)
    low = int(stat.f_bavail * stat.f_frsize / free_share)
    storage = {"data_dir": tmp_path, "database_url": database_url, "minimum_free_bytes": low}
    look = HealthProbe(load_settings(storage=storage), database).look()
    assert (look.terse()["components"]["disk"], look.ready) == (state, ready)


def test_objects_that_cannot_be_written_make_the_host_not_ready(settings: Settings, database: Database) -> None:
    (settings.data_dir / "objects").write_text("a file where the folder should be")
    found = _components(settings, database)["objects"]
    assert (found["state"], found["needed"]) == ("down", True)
    assert not HealthProbe(settings, database).look().ready


def test_a_database_that_hangs_is_not_waited_for(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One asker hangs with it; the others get an answer."""
    monkeypatch.setattr(health, "PATIENCE_S", 0.1)
    released, begun = threading.Event(), threading.Event()

    def hang(*_: object) -> Any:
        begun.set()
        released.wait(20)
        return iter(())

    monkeypatch.setattr(health, "_index_queue_and_destinations", hang)
    probe = HealthProbe(settings, database)
    first = threading.Thread(target=probe.look)
    first.start()
    begun.wait(10)
    try:
        look = probe.look()
        assert (look.ready, look.terse()["components"]) == (False, {"index": "down"})
    finally:
        released.set()
        first.join()


def test_many_askers_cost_one_look(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(health, "_disk", lambda _: looks.append(1) or health.Component("disk", "ok", True, ""))
    probe = HealthProbe(settings, database)
    for _ in range(50):
        probe.look()
    assert len(looks) == 1


def test_signs_of_life_are_written_when_something_is_new_read_defensively_and_cleared(tmp_path: Path) -> None:
    sign = SignOfLife(tmp_path, "worker-0")
    path = tmp_path / "run" / "worker-0.json"
    sign.give(number=1)
    written = path.stat().st_mtime_ns
    sign.give(number=1)
    assert path.stat().st_mtime_ns == written
    sign.give(number=2)
    assert last_signs(tmp_path)["worker-0"]["number"] == 2, "what is new is said at once"
    for name, content in (("half", '{"at": 1'), ("list", "[]"), ("words", '{"at": "x"}'), ("large", "1" * 100_000)):
        (tmp_path / "run" / f"{name}.json").write_text(content)
    assert set(last_signs(tmp_path)) == {"worker-0"}
    clear(tmp_path)
    assert last_signs(tmp_path) == {}


def test_a_sign_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    SignOfLife(tmp_path, "worker-0").give()


@pytest.mark.parametrize(("valid_days", "expected"), [(200, "ok"), (10, "degraded"), (-1, "down")])
def test_certificates_that_end_are_told_in_time_and_stop_nothing_else(
    settings: Settings, database: Database, tmp_path: Path, valid_days: int, expected: str
) -> None:
    authority = Authority(tmp_path / "authority")
    identity = authority.issue("node.hospital.test", valid_days=valid_days)
    files = {"certificate": identity.certificate, "key": identity.key, "ca": authority.certificate}
    with_tls = settings.model_copy(update={"tls": TlsSettings.model_validate(files)})
    component = _components(with_tls, database)["certificates"]
    assert (component["state"], component["needed"]) == (expected, False)
    assert ("CN=node.hospital.test" in component["detail"]) is (expected != "ok")
