"""The list of grades: what is understood, and what is refused with the line."""

from pathlib import Path

import pytest

from ai.quality.types import Verdict
from node.commissioning import Label, LabelError, read_labels, score_labels, write_sheet
from node.offline import read_folder

D, L, N = Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "series_instance_uid,grade\n1.1,1\n1.2,2\n1.3,3\n",
        "\ufeffSeries_Instance_UID; Grade ;patient\r\n1.1;non-diagnostic;\r\n1.2; Limited;\r\n1.3;DIAGNOSTIC;\r\n",
        "grade,reader,series_instance_uid\n1,A,1.1\n2,A,1.2\n3,A,1.3\n",
    ],
    ids=["plain", "as a spreadsheet writes it", "other columns"],
)
def test_lists_are_read_however_they_were_saved(tmp_path: Path, text: str) -> None:
    assert read_labels(write(tmp_path, text)) == [Label("1.1", N, ""), Label("1.2", L, ""), Label("1.3", D, "")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1.1,1\n", "missing: series_instance_uid, grade"),
        ("", "missing: series_instance_uid, grade"),
        ("series_instance_uid,grade\n", "grades no series"),
        ("series_instance_uid,grade\n1.1,1\n1.2,4\n", "line 3: grade '4' is not one of 1, 2, 3"),
        ("series_instance_uid,grade\n1.1\n1.2,\n", "grades no series"),
        ("series_instance_uid,grade\n,2\n", "line 2: no series_instance_uid"),
        ("series_instance_uid,grade\n1.1,2\n1.1,3\n", "line 3: series 1.1 is graded twice"),
    ],
)
def test_a_faulty_list_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(LabelError, match=complaint):
        read_labels(write(tmp_path, text))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="save it as CSV in UTF-8"):
        read_labels(write(tmp_path, "series_instance_uid,grade,größe\n", "latin-1"))
    with pytest.raises(LabelError, match="cannot be read"):
        read_labels(tmp_path / "absent.csv")


def test_a_sheet_lists_what_can_be_graded_without_scores_and_reads_back(
    simulated_files: list[Path], tmp_path: Path
) -> None:
    (study,) = read_folder(simulated_files, lambda _: None).studies
    path = tmp_path / "sheet.csv"
    assert write_sheet(path, [study]) == 3
    text = path.read_text(encoding="utf-8-sig")
    assert "score" not in text
    for role in ("t2w-axial", "dwi", "adc"):
        assert text.count(f",{role}") == 1
    with pytest.raises(FileExistsError):
        write_sheet(path, [study])
    with pytest.raises(LabelError, match="grades no series"):
        read_labels(path)
    path.write_text(text.replace(",,", ",2,", 1), encoding="utf-8-sig")
    (label,) = read_labels(path)
    assert label.grade is L
    assert label.patient


def test_only_graded_series_are_scored_and_each_without_score_says_why(simulated_files: list[Path]) -> None:
    (study,) = read_folder(simulated_files, lambda _: None).studies
    by_role = {entry.role: entry.stack.series_instance_uid for entry in study.assembly.stacks}
    told: list[str] = []
    labels = [Label(by_role["adc"], D, ""), Label(by_role["dwi"], L, "someone")]
    scored = score_labels(labels, [study], told.append)
    assert {(entry.role, entry.grade) for entry in scored.graded} == {("adc", D), ("dwi", L)}
    assert {entry.patient for entry in scored.graded} >= {"someone"}
    assert len(told) == 3
    assert all(0 <= entry.score <= 1 for entry in scored.graded)
    with pytest.raises(LabelError, match=r"series 9\.9 and 1 more not found"):
        score_labels([*labels, Label("9.9", D, ""), Label("9.8", D, "")], [study], told.append)
