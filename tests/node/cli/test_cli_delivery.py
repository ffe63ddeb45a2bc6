"""Commands of delivery and routing, on a node that holds one judged study whose results wait for "pacs"."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import Result
from sqlalchemy import update

from storage.database import Database, sqlite_url
from storage.models import Delivery, DeliveryState

Command = Callable[..., Result]

PACS = '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'
ARCHIVE = '[[destinations]]\nname = "archive"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = 2\nreceives = []\n'
RULES = """
[[rules]]
name = "night"
when.time_of_day = "18:00-07:00"
when.modality = ["CT", "M?"]
unless.verdict = "diagnostic"
destinations = ["archive"]
[[rules]]
name = "good-images"
when.verdict = ["diagnostic", "limited"]
when.role = "t2w-*"
objects = ["original"]
priority = "high"
destinations = ["pacs", "archive"]
"""


@pytest.fixture
def data_dir(judged_data_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(judged_data_dir, tmp_path / "data"))


@pytest.fixture
def uid(simulated_files: list[Path]) -> str:
    return str(pydicom.dcmread(simulated_files[0], stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture
def config(tmp_path: Path, data_dir: Path) -> Path:
    path = tmp_path / "pacsgate.toml"
    path.write_text(f'[storage]\ndata_dir = "{data_dir}"\n' + PACS + ARCHIVE)
    return path


def asked(pacsgate: Command, config: Path, *command: str) -> Any:
    result = pacsgate(*command, "--config", config, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def give_up(data_dir: Path) -> None:
    database = Database(sqlite_url(data_dir / "index.db"))
    with database.session() as session:
        session.execute(update(Delivery).values(state=DeliveryState.FAILED, status="refused", attempts=1))
    database.dispose()


def test_a_destination_is_paused_and_resumed(pacsgate: Command, config: Path) -> None:
    paused = pacsgate("destinations", "pause", "pacs", "--reason", "new disks", "--drain", "--config", config)
    assert paused.exit_code == 0, paused.stderr
    assert "nothing is on its way to pacs" in paused.stdout
    (pacs, archive) = asked(pacsgate, config, "destinations", "list")
    assert (pacs["paused_reason"], pacs["pending"], archive["paused_at"]) == ("new disks", 3, None)
    assert "paused: new disks" in pacsgate("destinations", "list", "--config", config).stdout
    assert "pacs is paused" in pacsgate("status", "--config", config).stdout
    assert "3 deliveries are due" in pacsgate("destinations", "resume", "pacs", "--config", config).stdout
    assert asked(pacsgate, config, "destinations", "list")[0]["paused_at"] is None


def test_an_unknown_destination_is_refused(pacsgate: Command, config: Path) -> None:
    for command in (("pause", "pax", "--reason", "typo"), ("resume", "pax")):
        result = pacsgate("destinations", *command, "--config", config)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "no destination is named 'pax'; there are: archive, pacs" in result.stderr


def test_what_was_given_up_is_listed_with_its_reason_and_tried_again(
    pacsgate: Command, config: Path, data_dir: Path, uid: str
) -> None:
    give_up(data_dir)
    failed = asked(pacsgate, config, "deliveries", "list", "--state", "failed")
    assert [(row["kind"], row["status"], row["study_instance_uid"]) for row in failed] == [
        ("lesion-report", "refused", uid),
        ("segmentation", "refused", uid),
        ("quality-report", "refused", uid),
    ]
    assert "refused" in pacsgate("deliveries", "list", "--state", "failed", "--config", config).stdout
    one = pacsgate("deliveries", "retry", str(failed[0]["id"]), "--config", config)
    assert "1 deliveries are due again" in one.stdout
    rest = pacsgate("deliveries", "retry", "--destination", "pacs", "--config", config)
    assert "2 deliveries are due again" in rest.stdout
    assert asked(pacsgate, config, "deliveries", "list", "--state", "failed") == []
    assert {row["round"] for row in asked(pacsgate, config, "deliveries", "list")} == {2}


def test_a_retry_says_what(pacsgate: Command, config: Path) -> None:
    assert "say which" in pacsgate("deliveries", "retry", "--config", config).stderr
    assert "nothing that was given up" in pacsgate("deliveries", "retry", "--all", "--config", config).stderr
    assert "unknown state" in pacsgate("deliveries", "list", "--state", "lost", "--config", config).stderr


def test_rules_are_explained_on_a_study(pacsgate: Command, config: Path, uid: str) -> None:
    config.write_text(config.read_text() + RULES)
    document = asked(pacsgate, config, "rules", "test", uid)
    night, good = document["results"]["rules"]
    conditions = {c["condition"]: c for c in (*night["when"], *night["unless"])}
    assert night["holds"] is False
    assert (conditions["modality"]["seen"], conditions["modality"]["met"]) == (["MR"], True)
    assert (conditions["verdict"]["seen"], conditions["verdict"]["met"]) == (["diagnostic"], True)
    assert good["holds"] is True
    sends = {(send["kind"], send["destination"], send["because"]) for send in document["results"]["sends"]}
    assert sends == {(kind, "pacs", "receives") for kind in ("quality-report", "segmentation", "lesion-report")}
    t2 = [s for s in document["originals"] if "T2" in s["series_description"].upper()]
    assert len(t2) == 1
    to_pacs, to_archive = t2[0]["sends"]
    assert (to_pacs["destination"], to_pacs["objects"], to_pacs["priority"]) == ("pacs", 16, "high")
    assert (to_archive["objects"], to_archive["not_sent_back"]) == (0, 16), "SCANNER at this address sent them"
    others = [s for s in document["originals"] if s not in t2]
    assert others
    assert all(s["sends"] == [] and s["nowhere"] == ["original"] for s in others)
    printed = pacsgate("rules", "test", uid, "--config", config).stdout
    for words in ("unless verdict", "not met", "16 original to pacs, high, because of rule good-images", "original to"):
        assert words in printed, words


def test_testing_changes_nothing(pacsgate: Command, config: Path, uid: str) -> None:
    before = asked(pacsgate, config, "studies", "show", uid)
    config.write_text(config.read_text() + RULES)
    pacsgate("rules", "test", uid, "--config", config)
    assert asked(pacsgate, config, "studies", "show", uid) == before


def test_an_unknown_study_cannot_be_tested(pacsgate: Command, config: Path) -> None:
    result = pacsgate("rules", "test", "9.9.9", "--config", config)
    assert (result.exit_code, "study 9.9.9 is not in this index" in result.stderr) == (2, True)


def test_rules_are_checked(pacsgate: Command, config: Path) -> None:
    config.write_text(
        config.read_text()
        + '[[rules]]\nname = "all"\ndestinations = []\nlast = true\n'
        + '[[rules]]\nname = "never"\ndestinations = ["pacs"]\n'
        + 'objects = ["quality-report"]\nhold_until_verdict = true\n'
    )
    checked = asked(pacsgate, config, "rules", "check")
    assert checked["rules"] == 2
    told = " / ".join(checked["shortcomings"])
    for words in ("all names no destination", "never is never reached", "concerns original images", "archive receives"):
        assert words in told, words
    config.write_text(config.read_text().replace('"pacs"]', '"pax"]'))
    refused = pacsgate("rules", "check", "--config", config)
    assert (refused.exit_code, "no [[destinations]] entry is named pax" in refused.stderr) == (2, True)


def test_a_replay_follows_the_rules_of_today(pacsgate: Command, config: Path, uid: str) -> None:
    config.write_text(config.read_text() + RULES)
    replayed = pacsgate("studies", "replay", uid, "--originals", "--config", config)
    assert f"{3 + 16} deliveries are due again" in replayed.stdout, "three results, and the T2 but not to its sender"
    shown = asked(pacsgate, config, "studies", "show", uid)
    assert shown["originals"] == [{"destination": "pacs", "state": "pending", "count": 16, "status": ""}]
    assert "16 original images to pacs: pending" in pacsgate("studies", "show", uid, "--config", config).stdout


def test_the_configuration_is_shown_with_its_rules(pacsgate: Command, config: Path) -> None:
    config.write_text(config.read_text() + RULES)
    printed = pacsgate("config", "show", "--config", config).stdout
    assert "[[rules]] good-images" in printed
    assert "pacs, archive" in printed
