"""The HTTP interface: health for everybody, patient data for holders of a token, a plain "no" for anything else."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pydicom
import pytest
from fastapi.testclient import TestClient

from node.settings import load_settings
from node.web.app import create_app
from storage.database import Database
from storage.ingest import Reception, ingest
from storage.models import utc_now
from storage.objects import ObjectStore
from storage.tokens import create_token
from tests.fixtures.instances import mr_file

API = ("/api/v1/status", "/api/v1/health", "/api/v1/studies", "/api/v1/studies/1.2.3")
HOSTILE_UIDS = (
    *("9.9.9", "1.2.3'--", "1.2.3' OR '1'='1", "%", "_", "*", "null", "..%2f..", "../../etc/passwd", "..\\..\\etc"),
    *("\x00", "1.2.3\x00", "1.2.3\n", " 1.2.3", "١.٢.٣", "\U0001f4a3", "1" * 65, "1." * 4000, "{}", "${x}"),
)

HOSTILE_AUTHORIZATIONS = (
    *("", "Bearer", "Bearer ", "Bearer wrong", "Bearer \x80\xff", "Basic dXNlcjpwYXNz", "Bearer ' OR 1=1"),
    "Bearer " + "x" * 9000,
)


@pytest.fixture
def client(database: Database, database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """An index with one study on either engine. A server error reaches the test as the client would see it."""
    ingest(database, ObjectStore(tmp_path / "objects"), mr_file(tmp_path), Reception("MR1", "10.0.0.1", utc_now()))
    settings = load_settings(storage={"data_dir": tmp_path, "database_url": database_url})
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def token(database: Database) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_token(database, 'console', 'viewer')}"}


def test_health_and_readiness_need_no_token(client: TestClient) -> None:
    assert (client.get("/healthz").status_code, client.get("/healthz").json()) == (200, {"status": "ok"})
    assert client.get("/readyz").status_code == 200
    assert client.get("/readyz").json() == {
        "status": "ready",
        "components": {"index": "ok", "queue": "ok", "objects": "ok", "disk": "ok", "processes": "unknown"},
    }


def test_not_ready_without_an_index(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    settings = load_settings(storage={"data_dir": tmp_path, "database_url": url})
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "not-ready"
        assert answer.json()["components"]["index"] == "down"
        assert "nobody" not in answer.text
        metrics = client.get("/metrics")
        assert metrics.status_code == 200
        assert {"pacsgate_index_answers 0.0", "pacsgate_ready 0.0"} <= set(metrics.text.splitlines())


def test_metrics_count_and_name_nobody(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert "pacsgate_studies 1.0" in lines
    assert "pacsgate_instances 1.0" in lines
    assert 'pacsgate_study_revisions{state="receiving"} 1.0' in lines


def test_nothing_about_a_patient_without_a_token(client: TestClient, token: dict[str, str]) -> None:
    """Every address the application has, not only those known to this test."""
    schema = client.get("/openapi.json").json()
    addresses = [path.replace("{study_instance_uid}", "1.2.3") for path in schema["paths"]]
    assert set(API) <= set(addresses)
    for address in [*addresses, "/", "/openapi.json", "/docs", "/api/v1", "/api/v1/studies/", "/static/index.db"]:
        answer = client.get(address)
        assert "Doe" not in answer.text
        assert "1.2.3.4" not in answer.text
        if address.startswith("/api/v1/"):
            assert answer.status_code in (401, 404, 307), address
    assert "Doe^Jane" in client.get("/api/v1/studies", headers=token).text


def test_any_other_authorization_is_refused(client: TestClient) -> None:
    for authorization in HOSTILE_AUTHORIZATIONS:
        for address in API:
            answer = client.get(address, headers={"Authorization": authorization.encode("latin-1")})
            assert answer.status_code == 401, authorization
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json() == {"detail": "a valid bearer token is needed"}


def test_a_bad_request_without_a_token_learns_nothing(client: TestClient) -> None:
    assert client.get("/api/v1/studies?limit=x").status_code == 401


def test_a_token_in_the_address_is_no_token(client: TestClient, token: dict[str, str]) -> None:
    """Addresses end up in logs."""
    bare = token["Authorization"].removeprefix("Bearer ")
    assert client.get(f"/api/v1/studies?token={bare}&access_token={bare}").status_code == 401


def test_a_study_is_listed_and_shown(client: TestClient, token: dict[str, str]) -> None:
    (listed,) = client.get("/api/v1/studies", headers=token).json()
    assert (listed["study_instance_uid"], listed["patient_name"], listed["instances"]) == ("1.2.3", "Doe^Jane", 1)
    assert (listed["revision"], listed["state"], listed["verdict"]) == (1, "receiving", None)
    shown = client.get("/api/v1/studies/1.2.3", headers=token).json()
    assert {key: shown[key] for key in listed} == listed
    assert [(series["series_instance_uid"], series["instances"]) for series in shown["series"]] == [("1.2.3.4", 1)]
    assert (shown["assessment"], shown["detection"], shown["objects"]) == (None, None, [])
    status = client.get("/api/v1/status", headers=token).json()
    assert (status["studies"], status["instances"], status["revisions"]) == (1, 1, {"receiving": 1})


def test_the_list_is_bounded(client: TestClient, token: dict[str, str]) -> None:
    for limit, status in (("1", 200), ("1000", 200), ("0", 422), ("1001", 422), ("-1", 422), ("x", 422)):
        assert client.get(f"/api/v1/studies?limit={limit}", headers=token).status_code == status, limit


def test_a_uid_that_is_none_is_not_found(client: TestClient, token: dict[str, str]) -> None:
    for uid in HOSTILE_UIDS:
        for encoded in (quote(uid, safe=""), quote(uid)):
            answer = client.get(f"/api/v1/studies/{encoded}", headers=token)
            assert answer.status_code == 404, (uid, answer.text)
            assert "Doe" not in answer.text


def test_the_interface_only_reads(client: TestClient, token: dict[str, str]) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/v1/studies/1.2.3", headers=token).status_code == 405


def test_a_judged_study_is_shown_in_full(judged_data_dir: Path, simulated_files: list[Path]) -> None:
    settings = load_settings(storage={"data_dir": judged_data_dir, "database_url": ""})
    database = Database(settings.database_url)
    authorization = {"Authorization": f"Bearer {create_token(database, 'full', 'radiologist')}"}
    database.dispose()
    uid = str(pydicom.dcmread(simulated_files[0], stop_before_pixels=True).StudyInstanceUID)
    with TestClient(create_app(settings)) as client:
        shown = client.get(f"/api/v1/studies/{uid}", headers=authorization).json()
    assert (shown["state"], shown["verdict"], shown["gate_open"]) == ("finished", "diagnostic", True)
    assert sum(series["instances"] for series in shown["series"]) == len(simulated_files)
    assert [item["kind"] for item in shown["objects"]] == ["quality-report", "segmentation", "lesion-report"]
    waiting = {"destination": "pacs", "state": "pending", "attempts": 0, "status": ""}
    for item in shown["objects"]:
        assert item["deliveries"] == [waiting | {"sent_as": "", "rules": "", "delivered_at": None}]
    assert shown["originals"] == []
    events = [entry["event"] for entry in shown["journal"]]
    steps = ["study-closed", "assembled", "assessed", "gate-opened", "detected", "reported"]
    assert [event for event in events if event in steps] == steps
    assert "Patient" not in str(shown["journal"])
