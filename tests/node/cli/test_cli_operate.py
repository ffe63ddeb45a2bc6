"""Commands that operate a node through its index: what they print and refuse, and that a token opens the web."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import Result
from fastapi.testclient import TestClient

from node.settings import load_settings
from node.web.app import create_app
from tests.fixtures.calibrations import calibration_of_t2w
from tests.fixtures.dcmtk import free_port
from tests.fixtures.json_contract import check_assessment

Command = Callable[..., Result]

COMMANDS = (
    *("up", "process", "assess", "detect", "simulate", "send", "studies", "studies list", "studies show"),
    *("studies replay", "status", "doctor", "evaluate", "token", "token create", "config", "config show"),
    *("train", "train calibrate", "train grading-sheet"),
    *("destinations", "destinations list", "destinations pause", "destinations resume", "rules", "rules test"),
    *("rules check", "deliveries", "deliveries list", "deliveries retry"),
)


@pytest.fixture
def data_dir(judged_data_dir: Path, tmp_path: Path) -> Path:
    """A node's data folder with one judged study, to be changed at will."""
    return Path(shutil.copytree(judged_data_dir, tmp_path / "data"))


@pytest.fixture
def uid(simulated_files: list[Path]) -> str:
    return str(pydicom.dcmread(simulated_files[0], stop_before_pixels=True).StudyInstanceUID)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(pacsgate: Command, command: str) -> None:
    result = pacsgate(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"pacsgate {command}" in result.stdout
    assert len(result.stdout.splitlines()) > 5


def test_the_list_of_commands_is_the_one_tested(pacsgate: Command) -> None:
    printed = pacsgate("--help").stdout
    for command in COMMANDS:
        assert f" {command.split()[0]} " in printed


def test_studies_are_listed_and_shown(pacsgate: Command, data_dir: Path, uid: str) -> None:
    (listed,) = json.loads(pacsgate("studies", "list", "--data-dir", data_dir, "--json").stdout)
    shown = json.loads(pacsgate("studies", "show", uid, "--data-dir", data_dir, "--json").stdout)
    assert {key: shown[key] for key in listed} == listed
    assert (listed["study_instance_uid"], listed["state"], listed["verdict"]) == (uid, "finished", "diagnostic")
    check_assessment(shown["assessment"])
    assert shown["detection"]["state"] == "succeeded"


def test_a_person_sees_the_same(pacsgate: Command, data_dir: Path, uid: str) -> None:
    listed = pacsgate("studies", "list", "--data-dir", data_dir)
    shown = pacsgate("studies", "show", uid, "--data-dir", data_dir)
    assert (listed.exit_code, shown.exit_code) == (0, 0)
    assert "diagnostic" in listed.stdout
    for words in (uid, "Revision 1 finished: diagnostic", "Detection: succeeded", "t2w-axial", "pacs: pending"):
        assert words in " ".join(shown.stdout.split()), words


def test_an_unknown_study_is_a_refusal(pacsgate: Command, data_dir: Path) -> None:
    for action in ("show", "replay"):
        result = pacsgate("studies", action, "9.9.9", "--data-dir", data_dir)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "study 9.9.9" in result.stderr
    result = pacsgate("studies", "replay", "9.9.9", "--reprocess", "--data-dir", data_dir)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not in this index" in result.stderr


def show(pacsgate: Command, data_dir: Path, uid: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(pacsgate("studies", "show", uid, "--data-dir", data_dir, "--json").stdout)
    return document


def test_a_replay_makes_the_deliveries_due_and_says_so(
    pacsgate: Command, data_dir: Path, uid: str, tmp_path: Path
) -> None:
    before = show(pacsgate, data_dir, uid)
    config = tmp_path / "pacsgate.toml"
    config.write_text('[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n')
    result = pacsgate("studies", "replay", uid, "--data-dir", data_dir, "--config", config)
    assert result.exit_code == 0
    assert "3 deliveries are due again" in result.stdout
    after = show(pacsgate, data_dir, uid)
    assert after["revision"] == 1
    assert after["objects"] == before["objects"], "the same objects under the same UIDs"
    assert [entry["event"] for entry in after["journal"]][-1] == "replayed"


def test_a_replay_without_a_destination_is_refused(pacsgate: Command, data_dir: Path, uid: str) -> None:
    result = pacsgate("studies", "replay", uid, "--data-dir", data_dir)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no result that a configured destination receives" in result.stderr


def test_status_tells_what_judges_image_quality(pacsgate: Command, data_dir: Path, tmp_path: Path) -> None:
    made, config = tmp_path / "record.json", tmp_path / "pacsgate.toml"
    calibration_of_t2w().save(made)
    config.write_text(f'[quality]\ncalibration = "{made}"\n')
    assert "judged by: the cut points as shipped" in pacsgate("status", "--data-dir", data_dir).stdout
    assert (
        "judged by: Skyra, room 2, by Dr Muster"
        in pacsgate("status", "--data-dir", data_dir, "--config", config).stdout
    )
    made.unlink()
    document = json.loads(pacsgate("status", "--data-dir", data_dir, "--config", config, "--json").stdout)
    assert "cannot be read" in document["calibration"]["error"]


def test_the_database_password_is_not_shown(pacsgate: Command, tmp_path: Path) -> None:
    config = tmp_path / "pacsgate.toml"
    config.write_text('[storage]\ndatabase_url = "postgresql+psycopg://gate:secret@db/pacsgate"\n')
    for options in ((), ("--json",)):
        shown = pacsgate("config", "show", "--config", config, *options).stdout
        assert "gate:***@db" in shown
        assert "secret" not in shown


def test_reprocessing_opens_the_next_revision(pacsgate: Command, data_dir: Path, uid: str) -> None:
    result = pacsgate("studies", "replay", uid, "--reprocess", "--data-dir", data_dir)
    assert (result.exit_code, result.stdout) == (0, "revision 2 will be processed\n")
    after = show(pacsgate, data_dir, uid)
    assert (after["revision"], after["state"]) == (2, "closed")
    assert after["verdict"] == "diagnostic", "the last verdict stands until there is a new one"


def test_status_counts(pacsgate: Command, data_dir: Path, simulated_files: list[Path]) -> None:
    status = json.loads(pacsgate("status", "--data-dir", data_dir, "--json").stdout)
    health = status.pop("health")
    assert health["status"] == "ready"
    assert {"index", "objects", "disk"} <= {component["kind"] for component in health["components"]}
    (pacs,) = status.pop("destinations")
    assert (pacs["name"], pacs["address"], pacs["paused_at"], pacs["pending"]) == ("pacs", None, None, 3)
    assert status == {
        "studies": 1,
        "instances": len(simulated_files),
        "open_associations": 0,
        "revisions": {"finished": 1},
        "deliveries": [{"destination": "pacs", "state": "pending", "count": 3}],
        "configuration": None,
        "calibration": None,
    }
    assert "deliveries to pacs pending" in pacsgate("status", "--data-dir", data_dir).stdout


@pytest.mark.parametrize(
    "command", [("studies", "list"), ("studies", "show", "1"), ("studies", "replay", "1"), ("status",)]
)
def test_without_an_index_nothing_is_made(pacsgate: Command, command: tuple[str, ...], tmp_path: Path) -> None:
    result = pacsgate(*command, "--data-dir", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has `pacsgate up` run with this data directory?" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_printed_token_opens_the_web(pacsgate: Command, data_dir: Path, uid: str) -> None:
    result = pacsgate("token", "create", "console", "--role", "viewer", "--data-dir", data_dir)
    (token,) = result.stdout.split()
    settings = load_settings(storage={"data_dir": data_dir, "database_url": ""})
    with TestClient(create_app(settings)) as client:
        answer = client.get("/api/v1/studies", headers={"Authorization": f"Bearer {token}"})
    assert [study["study_instance_uid"] for study in answer.json()] == [uid]
    for index in data_dir.glob("index.db*"):
        assert token.encode() not in index.read_bytes()


def test_a_token_is_refused_by_name(pacsgate: Command, data_dir: Path) -> None:
    create = ("token", "create", "console", "--data-dir", data_dir, "--role")
    wrong = pacsgate(*create, "root")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "unknown role 'root'; choose one of viewer, technologist, radiologist, administrator" in wrong.stderr
    assert pacsgate(*create, "viewer").exit_code == 0
    again = pacsgate(*create, "administrator")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "already a token named 'console'" in again.stderr


def test_the_configuration_is_shown_with_its_reasons(pacsgate: Command, tmp_path: Path) -> None:
    config = tmp_path / "pacsgate.toml"
    config.write_text(
        "[dicom]\nport = 104\n[[destinations]]\nname = 'pacs'\nae_title = 'PACS'\nhost = 'h'\nport = 11\n"
    )
    document = json.loads(pacsgate("config", "show", "--config", config, "--json").stdout)
    assert (document["dicom"]["port"], document["dicom"]["ae_title"]) == (104, "PACSGATE")
    assert document["destinations"][0]["name"] == "pacs"
    printed = " ".join(pacsgate("config", "show", "--config", config, "--data-dir", "/elsewhere").stdout.split())
    for words in ("dicom.port", "104", "/elsewhere", "PACS@h:11", "completion.study_quiet_s"):
        assert words in printed


def test_a_wrong_configuration_is_refused_by_every_command(pacsgate: Command, tmp_path: Path) -> None:
    config = tmp_path / "pacsgate.toml"
    config.write_text("[dicom]\nprot = 104\n")
    for command in (("config", "show"), ("status",), ("doctor",), ("up",)):
        result = pacsgate(*command, "--config", config)
        assert (result.exit_code, result.stdout) == (2, ""), command
        assert "dicom.prot" in result.stderr


def doctor(pacsgate: Command, folder: Path, text: str) -> tuple[int, dict[str, dict[str, str]]]:
    config = folder / "pacsgate.toml"
    config.write_text(f'[storage]\ndata_dir = "{folder / "data"}"\n' + text)
    result = pacsgate("doctor", "--config", config, "--json")
    return result.exit_code, {check["name"]: check for check in json.loads(result.stdout)}


def test_the_doctor_looks_without_touching(pacsgate: Command, tmp_path: Path) -> None:
    port = free_port()
    code, checks = doctor(
        pacsgate,
        tmp_path,
        f"minimum_free_bytes = 1\n[[destinations]]\nname = 'pacs'\nae_title = 'P'\nhost = '127.0.0.1'\nport = {port}",
    )
    assert code == 0
    assert not (tmp_path / "data").exists()
    assert (checks["disk"]["state"], checks["index"]["state"]) == ("ok", "ok")
    assert checks["destination pacs"]["state"] == "warn"
    assert str(port) in checks["destination pacs"]["detail"]


def test_a_full_disk_is_a_failure(pacsgate: Command, tmp_path: Path) -> None:
    code, checks = doctor(pacsgate, tmp_path, f"minimum_free_bytes = {1 << 60}")
    assert (code, checks["disk"]["state"]) == (1, "fail")


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ('database_url = "postgresql+psycopg://nobody@127.0.0.1:1/none"', "index"),
        ('database_url = "mysql://nobody@127.0.0.1/none"', "index"),
        ('database_url = "no url"', "index"),
        ("[web]\nhost = 'no.such.host.invalid'", "web port"),
    ],
)
def test_the_doctor_survives_what_it_finds(pacsgate: Command, tmp_path: Path, text: str, check: str) -> None:
    code, checks = doctor(pacsgate, tmp_path, text)
    assert checks[check]["state"] == "fail"
    assert code == 1


def test_the_doctor_connects_to_no_port_of_ours(pacsgate: Command, tmp_path: Path) -> None:
    """A node that runs would take it for a peer that fails its handshake, and raise the alarm."""
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.setblocking(False)
        taken, free = node.getsockname()[1], free_port()
        _, checks = doctor(pacsgate, tmp_path, f"[dicom]\nport = {taken}\n[web]\nport = {free}")
        assert (checks["DICOM port"]["state"], checks["web port"]["state"]) == ("warn", "ok")
        assert "in use (this node running?)" in checks["DICOM port"]["detail"]
        with pytest.raises(BlockingIOError):
            node.accept()


def test_a_port_that_cannot_be_opened_is_a_failure(pacsgate: Command, tmp_path: Path) -> None:
    _, checks = doctor(pacsgate, tmp_path, "[web]\nhost = '192.0.2.1'")
    assert checks["web port"]["state"] == "fail", "no address of this host (TEST-NET-1)"


def test_the_doctor_knows_ipv6(pacsgate: Command, tmp_path: Path) -> None:
    _, checks = doctor(pacsgate, tmp_path, "[web]\nhost = '::1'")
    assert checks["web port"]["state"] in ("ok", "warn")
