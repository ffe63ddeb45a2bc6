"""What deploy/ hands to administrators is well-formed, and its configurations are ones the node accepts."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.settings import Role, load_settings
from node.supervisor import DRAIN_S

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CHART = DEPLOY / "helm" / "pacsgate"


def read_yaml(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def test_the_composed_node_starts_with_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = read_yaml(DEPLOY / "compose" / "compose.yaml")
    services = {name: s for name, s in compose["services"].items() if s.get("image") == "pacsgate:latest"}
    roles = {service["command"][-1] for service in services.values()}
    assert roles == {role.value for role in Role}
    for service in services.values():
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, value)
        assert float(service["stop_grace_period"].rstrip("s")) > DRAIN_S
    for line in (DEPLOY / "compose" / "secrets.env.example").read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    settings = load_settings(DEPLOY / "compose" / "pacsgate.toml")
    assert settings.storage.objects_url.startswith("s3://")
    assert settings.database_url.startswith("postgresql+psycopg://")
    assert settings.peers


def test_the_chart_s_configuration_is_accepted(tmp_path: Path) -> None:
    values = read_yaml(CHART / "values.yaml")
    path = tmp_path / "pacsgate.toml"
    path.write_text(values["config"])
    settings = load_settings(path)
    assert (settings.dicom.port, settings.web.port) == (11112, 8080), "the ports that the templates name"
    assert values["worker"]["queues"] == [queue.value for queue in settings.worker.queues]


def test_the_chart_is_linted(tmp_path: Path) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not installed: the chart was not linted")
    run = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "pacsgate.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > DRAIN_S
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: the unit was not verified")
    unit = tmp_path / "pacsgate.service"
    unit.write_text(text.replace("/opt/pacsgate/bin/pacsgate", "/bin/true"))
    run = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_image_holds_every_package_of_the_wheel() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    ignore = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    for package in ("node", "ai", "storage"):
        assert f"COPY {package} {package}" in dockerfile
        assert f"!{package}" in ignore
