"""The commands ``train``: recipes are listed, refusals say what is needed, a calibration changes what is said."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from click.testing import Result

from ai.quality.calibration import SHIPPED
from ai.simulation.export import write_study
from ai.simulation.protocol import T2_AXIAL
from ai.simulation.study import simulate_study

Command = Callable[..., Result]
pytestmark = pytest.mark.slow

PATIENTS = 3
"""Of each class: as many as an error rate of 30 % needs."""


@pytest.fixture(scope="module")
def examinations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small T2 examinations: good ones and ruined ones in two folders."""
    folder = tmp_path_factory.mktemp("examinations")
    protocol = replace(T2_AXIAL, slices=12, slice_thickness_mm=4.5)
    for seed in range(2 * PATIENTS):
        ruined = seed < PATIENTS
        study = simulate_study(
            seed, artifact="motion" if ruined else None, severity=5, protocols=(protocol,), spacing_mm=(3.0, 1.5, 1.5)
        )
        write_study(folder / ("ruined" if ruined else "good") / str(seed), study)
    return folder


@pytest.fixture(scope="module")
def labels(examinations: Path) -> Path:
    """Grades of all of them."""
    path = examinations.parent / "labels.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["series_instance_uid", "grade", "patient"])
        for study in sorted(examinations.glob("*/*")):
            first = next(study.rglob("*.dcm"))
            header = pydicom.dcmread(first, stop_before_pixels=True)
            rows.writerow([header.SeriesInstanceUID, 1 if study.parent.name == "ruined" else 3, f"p{study.name}"])
    return path


@pytest.fixture(scope="module")
def record(pacsgate: Command, examinations: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commissioning record of them."""
    out = tmp_path_factory.mktemp("records") / "room2.json"
    done = pacsgate("train", "calibrate", labels, examinations, "--by", "Dr Muster", "--out", out, "--alpha", 0.3)
    assert done.exit_code == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert words.index("not used for them (cross-fitted)") < words.index("flatters, for comparison only")
    assert "exchangeable" in words
    assert "calibration = " in words
    return out


def test_without_a_recipe_they_are_listed_and_unknown_ones_refused(pacsgate: Command) -> None:
    listed = pacsgate("train").stdout
    assert "calibrate: fit the quality score" in listed
    assert "grading-sheet: list the series" in listed
    assert "lesion detector" in listed
    assert pacsgate("train", "soup").exit_code == 2


def test_a_calibration_gives_probabilities_verdicts_and_its_name(
    pacsgate: Command, examinations: Path, record: Path, tmp_path: Path
) -> None:
    configuration = tmp_path / "pacsgate.toml"
    configuration.write_text(f'[quality]\ncalibration = "{record}"\n')
    folder = examinations / "good" / str(PATIENTS)
    without = json.loads(pacsgate("assess", folder, "--json").stdout)
    assert without["calibration"]["name"] == SHIPPED.name
    assert without["series"][0]["probability_non_diagnostic"] is None
    assert without["series"][0]["calibration"] is None
    with_it = json.loads(pacsgate("assess", folder, "--config", configuration, "--json").stdout)
    assert {key: with_it["calibration"][key] for key in ("name", "by")} == {"name": "room2", "by": "Dr Muster"}
    assert with_it["series"][0]["probability_non_diagnostic"] < 0.5
    assert with_it["series"][0]["score"] == without["series"][0]["score"]
    ruined = pacsgate("assess", examinations / "ruined" / "0", "--config", configuration)
    assert "non-diagnostic" in ruined.stdout
    assert "Judged by: room2, by Dr Muster" in ruined.stdout
    shown = pacsgate("config", "show", "--config", configuration).stdout
    assert "Image quality is judged by: room2, by Dr Muster" in shown
    checked = pacsgate("doctor", "--config", configuration, "--data-dir", tmp_path, "--json")
    assert {"name": "calibration", "state": "ok"}.items() <= json.loads(checked.stdout)[-1].items()


def test_a_calibration_that_was_tampered_with_is_refused_everywhere(
    pacsgate: Command, examinations: Path, record: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.json"
    spoilt.write_text(record.read_text().replace("Dr Muster", "Dr Other"))
    configuration = tmp_path / "pacsgate.toml"
    configuration.write_text(f'[quality]\ncalibration = "{spoilt}"\n')
    for command in (
        ("assess", examinations / "good" / str(PATIENTS)),
        ("up", "--data-dir", tmp_path),
        ("config", "show"),
    ):
        refused = pacsgate(*command, "--config", configuration)
        assert refused.exit_code == 2
        assert "quality.calibration" in refused.stderr
        assert "changed after it was made" in refused.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("series_instance_uid,grade\n9.9,1\n", "graded series 9.9 not found"),
        ("series_instance_uid,grade\n9.9,7\n", "grade '7' is not one of 1, 2, 3"),
        (None, "1 patients with diagnostic or limited series; an error rate of 30% needs 3 of each"),
    ],
    ids=["unknown series", "unknown grade", "too few"],
)
def test_what_cannot_be_calibrated_is_refused_and_nothing_written(
    pacsgate: Command, examinations: Path, labels: Path, tmp_path: Path, text: str | None, complaint: str
) -> None:
    lines = labels.read_text().splitlines(keepends=True)
    path, out = tmp_path / "labels.csv", tmp_path / "record.json"
    path.write_text("".join(lines[:2]) if text is None else text)
    refused = pacsgate("train", "calibrate", path, examinations / "good", "--by", "x", "--out", out, "--alpha", 0.3)
    assert refused.exit_code == 2
    assert complaint in refused.stderr
    assert not out.exists()


def test_a_record_is_neither_anonymous_nor_overwritten(
    pacsgate: Command, examinations: Path, labels: Path, record: Path, tmp_path: Path
) -> None:
    again = pacsgate("train", "calibrate", labels, examinations, "--by", "x", "--out", record)
    assert "never overwritten" in again.stderr
    nobody = pacsgate("train", "calibrate", labels, examinations, "--by", " ", "--out", tmp_path / "new.json")
    assert "--by is empty" in nobody.stderr
    nowhere = pacsgate("train", "calibrate", labels, examinations, "--by", "x", "--out", tmp_path / "no" / "new.json")
    assert "is no folder" in nowhere.stderr
