"""The commands ``evaluate``: what cannot be asked is refused, figures reach table and JSON."""

import json
from pathlib import Path

import pytest

from ai.detection.types import DetectionState
from ai.evaluation import detection, detector_loss, quality
from ai.evaluation.detection import DetectionRecord
from ai.evaluation.detector_loss import Loss
from ai.evaluation.quality import QualityRecord
from ai.quality.types import Verdict
from ai.volumes.types import Role


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verdicts", "--artifacts", "motion,rust"], "unknown artefact rust"),
        (["detector-loss", "--artifacts", "motion,rust"], "unknown artefact rust"),
        (["detection", "--zone", "central"], "unknown zone 'central'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(pacsgate, arguments: list[str], message: str) -> None:
    outcome = pacsgate("evaluate", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_verdict_figures_in_table_and_json(pacsgate, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        QualityRecord(100, "wrap" if severity else None, severity, Role.DWI, Verdict.DIAGNOSTIC, 0.9, gate_open=True)
        for severity in range(6)
    ]
    monkeypatch.setattr(quality, "evaluate_quality", lambda *_: made)
    text = pacsgate("evaluate", "verdicts", "--seeds", 1).stdout
    assert "missed: 100% of dwi with visible wrap" in text
    assert "No clinical result" in text
    document = json.loads(pacsgate("evaluate", "verdicts", "--json").stdout)
    assert document["artifacts"][0]["passed_visible"]["value"] == 1.0
    assert document["cells"][5]["verdicts"] == {"diagnostic": 1}


def test_detection_figures_in_table_and_json(pacsgate, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [DetectionRecord(100, True, DetectionState.SUCCEEDED, (0.6,), 2, 0.81)]
    monkeypatch.setattr(detection, "evaluate_detection", lambda *_: made)
    text = pacsgate("evaluate", "detection").stdout
    assert "0.81, n = 1; least 0.81" in text
    document = json.loads(pacsgate("evaluate", "detection", "--json").stdout)
    assert document["hits"][1]["false_marks_with_lesion"]["value"] == 1.0
    assert document["unmarked_without_lesion"]["value"] is None


def test_losses_of_the_detector_in_table_and_json(pacsgate, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Loss(100, "noise", 3, 0.6), Loss(101, "noise", None, 0.4), Loss(102, "noise", 4, 0.5)]
    monkeypatch.setattr(detector_loss, "detector_losses", lambda *_: iter(made))
    text = pacsgate("evaluate", "detector-loss").stdout
    assert "noise" in text
    assert "0.55" in text
    (artifact,) = json.loads(pacsgate("evaluate", "detector-loss", "--json").stdout)["artifacts"]
    assert (artifact["median_lost_at"], artifact["lost"]["studies"]) == (4, 3)


@pytest.mark.parametrize("command", [("train", "quality"), ("evaluate", "quality")])
def test_a_folder_without_prostates_is_refused(pacsgate, command: tuple[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "note.txt").write_text("no DICOM")
    outcome = pacsgate(*command, "--data", data, "--work", tmp_path / "work", "--out", tmp_path / "out")
    assert outcome.exit_code == 2
    assert "no complete T2-weighted or diffusion series" in outcome.stderr


def test_an_unknown_split_is_refused(pacsgate, tmp_path: Path) -> None:
    options = ("--data", tmp_path, "--work", tmp_path / "work", "--out", tmp_path / "out", "--splits", "vendor,moon")
    outcome = pacsgate("evaluate", "quality", *options)
    assert outcome.exit_code == 2
    assert "unknown split moon" in outcome.stderr
