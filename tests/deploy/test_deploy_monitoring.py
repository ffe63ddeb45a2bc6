"""Dashboard and alert rules: every metric and label they ask for is in a real scrape; promtool agrees if present."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from node.settings import load_settings
from node.signs_of_life import SignOfLife
from node.web.app import create_app

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OF_PROMETHEUS = {"instance", "job"}
"""Labels that the scrape itself adds."""
SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(\[[^\]]+\])?")
FUNCTIONS = {
    *("sum", "max", "min", "count", "by", "rate", "increase", "histogram_quantile", "or", "and", "unless", "on"),
}


@pytest.fixture(scope="module")
def scraped(judged_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Name of every sample -> its labels, of a node that has judged a study and delivered once."""
    data_dir = tmp_path_factory.mktemp("scraped") / "data"
    shutil.copytree(judged_data_dir, data_dir)
    program = (
        "import sys; from pathlib import Path; from node import telemetry;"
        "telemetry.start(Path(sys.argv[1]), 'worker-0', ['MR1'], ['pacs']);"
        "telemetry.step_ended('study.assess', 1.0, failed=False)"
    )
    subprocess.run([sys.executable, "-c", program, str(data_dir)], check=True)
    children = [
        {"slot": f"{kind}-0", "kind": kind, "running": True, "restarts": 0} for kind in ("receiver", "web", "worker")
    ]
    SignOfLife(data_dir, "supervisor").give(children=children)
    _deliver_one(data_dir)
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    settings = load_settings(storage={"data_dir": data_dir, "database_url": ""}, destinations=[pacs])
    with TestClient(create_app(settings)) as client:
        text = client.get("/metrics").text
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels[sample.name] |= sample.labels.keys()
    return labels


def _deliver_one(data_dir: Path) -> None:
    from storage.database import Database
    from storage.destinations import note_outcomes
    from storage.models import utc_now

    database = Database(load_settings(storage={"data_dir": data_dir, "database_url": ""}).database_url)
    with database.session() as session:
        note_outcomes(session, "pacs", delivered=True, failure="", now=utc_now())
    database.dispose()


def _dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DEPLOY / "grafana" / "pacsgate.json").read_text())
    return document


def _rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def _expressions() -> Iterator[tuple[str, str]]:
    for panel in _dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for rule in _rules():
        yield rule["alert"], rule["expr"]


def _asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Metric name and the labels its selector names. Numbers, functions and grouping labels are left out."""
    without_groups = re.sub(r"\bby\s*\(([^)]*)\)", "", expression)
    for name, selector, _ in SELECTOR.findall(without_groups):
        if name not in FUNCTIONS:
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))


@pytest.mark.parametrize(("title", "expression"), list(_expressions()), ids=lambda value: value[:30])
def test_every_expression_asks_for_what_there_is(title: str, expression: str, scraped: dict[str, set[str]]) -> None:
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    asked = list(_asked(expression))
    assert asked
    for name, labels in asked:
        if name == "up":
            continue
        assert name in scraped, f"{title}: no metric {name}"
        assert labels <= scraped[name] | OF_PROMETHEUS, f"{title}: {name} has no label {labels - scraped[name]}"
    grouping = {label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in group.split(",")}
    known = set().union(*(scraped.get(name, set()) for name, _ in asked)) | OF_PROMETHEUS
    assert grouping <= known, f"{title}: grouped by {grouping - known}"


def test_the_check_itself_finds_what_is_not_there() -> None:
    asked = dict(_asked('sum by (peer) (rate(pacsgate_gone_total{pear="x", status=~"y"}[5m])) > 2 * other_metric'))
    assert asked == {"pacsgate_gone_total": {"pear", "status"}, "other_metric": set()}


def test_dashboard_shows_every_row_and_legends_name_labels(scraped: dict[str, set[str]]) -> None:
    dashboard = _dashboard()
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Receive", "Queue", "Quality", "Delivery", "Disk and processes"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            labels = set().union(*(scraped[name] for name, _ in _asked(target["expr"]))) | OF_PROMETHEUS
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]


def test_every_alert_says_what_to_do() -> None:
    rules = _rules()
    assert {"PacsgateDown", "PacsgateDiskLow", "PacsgateDeliveryStuck", "PacsgateQueueOld"} <= {
        r["alert"] for r in rules
    }
    assert {"PacsgateDeadLetters", "PacsgateAuditDropped"} <= {rule["alert"] for rule in rules}
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
