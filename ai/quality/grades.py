"""Ordinal grades from full-reference damage: what a simulated degradation is called when a model is trained.

The grade has three steps as PI-QUAL version 2 has (de Rooij et al., Eur Radiol 2024), but it is made of a measured
HaarPSI and assumed cut points, not of a reader's judgement: it is PI-QUAL-like and must not be called PI-QUAL.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from ai.volumes.types import Role

CUT_POINTS_FILE = Path(__file__).with_name("data") / "grades.toml"

OTHER = "other"
"""The family of sequences that have no cut points of their own."""

_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys((Role.T2W_AXIAL, Role.T2W_SAGITTAL, Role.T2W_CORONAL), "t2w"),
    Role.DWI: "dwi",
    Role.DWI_CALCULATED: "dwi",
    Role.ADC: "adc",
    Role.DCE: "dce",
}


class Grade(IntEnum):
    """Fitness for reading, ordered: a higher grade is better."""

    NON_DIAGNOSTIC = 1
    LIMITED = 2
    DIAGNOSTIC = 3


@dataclass(frozen=True)
class CutPoints:
    """HaarPSI below which an image is non-diagnostic, and from which it is diagnostic."""

    non_diagnostic_below: float
    diagnostic_from: float


@dataclass(frozen=True)
class GradeTable:
    """Cut points by sequence family, with the version, source and reason that the file gives."""

    version: str
    source: str
    reason: str
    families: Mapping[str, CutPoints]


def family_of(role: str) -> str:
    """Sequence family of a ``Role``: ``t2w``, ``dwi``, ``adc``, ``dce`` or ``other``."""
    return _FAMILIES.get(role, OTHER)


def grade(haarpsi: float, family: str) -> Grade:
    """PI-QUAL-like grade of an image of a sequence family from its HaarPSI against the undamaged image.

    Raises:
        ValueError: HaarPSI is not within 0..1.
        KeyError: the family has no cut points.
    """
    if not 0.0 <= haarpsi <= 1.0:
        raise ValueError(f"a HaarPSI lies within 0..1, this is {haarpsi}")
    cut = grade_table().families[family]
    if haarpsi < cut.non_diagnostic_below:
        return Grade.NON_DIAGNOSTIC
    return Grade.DIAGNOSTIC if haarpsi >= cut.diagnostic_from else Grade.LIMITED


@cache
def grade_table() -> GradeTable:
    """The packaged cut points.

    Raises:
        ValueError: the file is not what it should be.
    """
    return parse_grade_table(tomllib.loads(CUT_POINTS_FILE.read_text(encoding="utf-8")))


def parse_grade_table(document: Mapping[str, Any]) -> GradeTable:
    """The table of a TOML document. Raises ValueError with what is wrong."""
    try:
        families = {
            str(name): CutPoints(float(entry["non_diagnostic_below"]), float(entry["diagnostic_from"]))
            for name, entry in document["families"].items()
        }
        table = GradeTable(str(document["version"]), str(document["source"]), str(document["reason"]), families)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ValueError(f"cut points of grades: {problem!r} is missing or of the wrong kind") from problem
    if missing := sorted({*_FAMILIES.values(), OTHER} - set(families)):
        raise ValueError(f"cut points of grades: no family {', '.join(missing)}")
    for name, cut in families.items():
        if not 0.0 < cut.non_diagnostic_below < cut.diagnostic_from < 1.0:
            raise ValueError(f"cut points of grades: {name} must have 0 < non_diagnostic_below < diagnostic_from < 1")
    return table
