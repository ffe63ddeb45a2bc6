"""The commands ``evaluate``: what cannot be asked is refused, figures reach table and JSON."""

import json

import pytest

from ai.detection.types import DetectionState
from ai.evaluation import detection, quality
from ai.evaluation.detection import DetectionRecord
from ai.evaluation.quality import QualityRecord
from ai.quality.types import Verdict
from ai.volumes.types import Role


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quality", "--artifacts", "motion,rust"], "unknown artefact rust"),
        (["detection", "--zone", "central"], "unknown zone 'central'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(pacsgate, arguments: list[str], message: str) -> None:
    outcome = pacsgate("evaluate", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_quality_figures_in_table_and_json(pacsgate, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        QualityRecord(100, "wrap" if severity else None, severity, Role.DWI, Verdict.DIAGNOSTIC, 0.9, gate_open=True)
        for severity in range(6)
    ]
    monkeypatch.setattr(quality, "evaluate_quality", lambda *_: made)
    text = pacsgate("evaluate", "quality", "--seeds", 1).stdout
    assert "missed: 100% of dwi with visible wrap" in text
    assert "No clinical result" in text
    document = json.loads(pacsgate("evaluate", "quality", "--json").stdout)
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
