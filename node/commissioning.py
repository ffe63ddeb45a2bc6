"""From DICOM series to a sheet people grade them on, and from the graded sheet to what a calibration is fitted on."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ai.quality.assess import assess_series
from ai.quality.calibration import family_of
from ai.quality.commissioning import GRADES, GradedSeries
from ai.quality.types import SeriesAssessment, Verdict
from node.offline import Progress
from node.workflow.context import LoadedStudy

UID_COLUMN: Final = "series_instance_uid"
GRADE_COLUMN: Final = "grade"
PATIENT_COLUMN: Final = "patient"
SHEET_COLUMNS: Final = (UID_COLUMN, GRADE_COLUMN, PATIENT_COLUMN, "study_date", "series_number", "series", "role")
_GRADE_WORDS: Final = {
    **{str(grade): verdict for grade, verdict in GRADES.items()},
    **{v.value: v for v in GRADES.values()},
}


class LabelError(ValueError):
    """The list of grades cannot be used; the message names the line or series and what to do."""


@dataclass(frozen=True)
class Label:
    """What somebody said of one series. ``patient`` is empty where the list has none: the header's then counts."""

    series_instance_uid: str
    grade: Verdict
    patient: str


@dataclass(frozen=True)
class Scored:
    """The graded series with their scores, and those that could not be scored, each with its reason."""

    graded: tuple[GradedSeries, ...]
    without_score: Mapping[str, str]


def read_labels(path: Path) -> list[Label]:
    """Read the list: a CSV file with a head line, commas or semicolons between, in UTF-8.

    Columns: series_instance_uid; grade (1 non-diagnostic, 2 limited, 3 diagnostic, or these words); optional patient.
    A line without a grade is left out.

    Raises:
        LabelError: a column is missing, a grade is not understood, a series occurs twice, there is no line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not in UTF-8; save it as CSV in UTF-8") from error
    head = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(), delimiter=";" if head.count(";") > head.count(",") else ",")
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    if missing := [name for name in (UID_COLUMN, GRADE_COLUMN) if name not in columns]:
        raise LabelError(f"{path}: the first line must name the columns; missing: {', '.join(missing)}")
    labels: dict[str, Label] = {}
    for row in reader:
        cells = {name: (row.get(original) or "").strip() for name, original in columns.items()}
        uid, word = cells[UID_COLUMN], cells[GRADE_COLUMN].lower()
        where = f"{path}, line {reader.line_num}"
        if not word:
            continue
        if word not in _GRADE_WORDS:
            raise LabelError(f"{where}: grade {word!r} is not one of {', '.join(_GRADE_WORDS)}")
        if not uid:
            raise LabelError(f"{where}: no {UID_COLUMN}")
        if uid in labels:
            raise LabelError(f"{where}: series {uid} is graded twice; agree on one grade per series")
        labels[uid] = Label(uid, _GRADE_WORDS[word], cells.get(PATIENT_COLUMN, ""))
    if not labels:
        raise LabelError(f"{path} grades no series")
    return list(labels.values())


def write_sheet(path: Path, studies: Iterable[LoadedStudy]) -> int:
    """Write a sheet with one line per series that can be graded, the grade left empty; returns how many.

    It shows no score: who grades must not know it.

    Raises:
        FileExistsError: the file is there; it may hold grades.
    """
    lines = [line for study in studies for line in _sheet_lines(study)]
    with path.open("x", newline="", encoding="utf-8-sig") as file:
        sheet = csv.writer(file)
        sheet.writerow(SHEET_COLUMNS)
        sheet.writerows(lines)
    return len(lines)


def _sheet_lines(study: LoadedStudy) -> Iterator[tuple[object, ...]]:
    patients = _patients(study)
    dates = {str(header.SeriesInstanceUID): header.get("StudyDate", "") for header in study.headers.values()}
    roles: dict[str, str] = {}
    for entry in study.assembly.stacks:
        uid, acquisition = entry.stack.series_instance_uid, entry.stack.acquisition
        if family_of(entry.role) is None or uid in roles:
            continue
        roles[uid] = entry.role
        description = acquisition.series_description
        yield uid, "", patients[uid], dates[uid], acquisition.series_number, description, str(entry.role)


def score_labels(labels: Sequence[Label], studies: Iterable[LoadedStudy], progress: Progress) -> Scored:
    """Assess the graded series, and no others, in the light of their whole studies.

    Raises:
        LabelError: a graded series is in none of the studies.
    """
    wanted = {label.series_instance_uid: label for label in labels}
    graded, without_score = [], {}
    seen: set[str] = set()
    for study in studies:
        patients = _patients(study)
        present = patients.keys() & wanted.keys()
        if not present:
            continue
        progress(f"{len(seen)} of {len(wanted)} graded series scored")
        seen |= present
        stacks = tuple(entry for entry in study.assembly.stacks if entry.stack.series_instance_uid in present)
        rows = {
            row.series_instance_uid: row
            for row in assess_series(replace(study.assembly, stacks=stacks), study.source, progress)
        }
        for uid in sorted(present):
            label, row = wanted[uid], rows.get(uid)
            if row is None or row.score is None:
                without_score[uid] = row.reason if row is not None else "no images that form a volume"
            else:
                graded.append(_graded(label, row, row.score, patients[uid]))
    if unknown := [uid for uid in wanted if uid not in seen]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise LabelError(f"graded series {unknown[0]}{more} not found under the given paths")
    return Scored(tuple(graded), without_score)


def _graded(label: Label, row: SeriesAssessment, score: float, patient: str) -> GradedSeries:
    return GradedSeries(label.series_instance_uid, label.patient or patient, row.role, score, label.grade)


def _patients(study: LoadedStudy) -> dict[str, str]:
    """Series Instance UID -> Patient ID with its issuer; the study stands for a patient without ID."""
    found = {}
    for header in study.headers.values():
        patient = str(header.get("PatientID", "") or "").strip()
        issuer = str(header.get("IssuerOfPatientID", "") or "").strip()
        name = f"{patient}^{issuer}" if patient else study.study_instance_uid
        found[str(header.SeriesInstanceUID)] = name
    return found
