"""Grades: ordered, complete over the sequence families, and refused where the file or the value is wrong."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality.grades import CUT_POINTS_FILE, Grade, family_of, grade, grade_table, parse_grade_table
from ai.volumes.types import Role

FAMILIES = ("t2w", "dwi", "adc", "dce", "other")
unit = st.floats(0.0, 1.0)


@given(first=unit, second=unit, family=st.sampled_from(FAMILIES))
def test_more_damage_never_gets_a_better_grade(first: float, second: float, family: str) -> None:
    worse, better = sorted((first, second))
    assert grade(worse, family) <= grade(better, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_grades_change_at_the_cut_points(family: str) -> None:
    cut = grade_table().families[family]
    assert grade(1.0, family) is Grade.DIAGNOSTIC
    assert grade(cut.diagnostic_from, family) is Grade.DIAGNOSTIC
    assert grade(cut.diagnostic_from - 1e-9, family) is Grade.LIMITED
    assert grade(cut.non_diagnostic_below, family) is Grade.LIMITED
    assert grade(cut.non_diagnostic_below - 1e-9, family) is Grade.NON_DIAGNOSTIC
    assert grade(0.0, family) is Grade.NON_DIAGNOSTIC


def test_every_role_has_a_family_with_cut_points_and_the_table_says_where_from() -> None:
    table = grade_table()
    assert {family_of(role) for role in Role} == set(FAMILIES) == set(table.families)
    assert family_of("ct") == "other"
    assert table.version
    assert "ssum" in table.source
    assert table.reason


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_value_that_is_no_haarpsi_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        grade(value, "t2w")


def test_a_family_without_cut_points_is_refused() -> None:
    with pytest.raises(KeyError):
        grade(0.5, "ct")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('version = "1"', "", "version"),
        ("[families.dwi]", "[families.dxi]", "no family dwi"),
        ("diagnostic_from = 0.85", "diagnostic_from = 0.5", "t2w must have"),
        ("diagnostic_from = 0.85", 'diagnostic_from = "often"', "wrong kind"),
    ],
)
def test_a_broken_file_is_named(old: str, new: str, words: str) -> None:
    text = CUT_POINTS_FILE.read_text(encoding="utf-8").replace(old, new, 1)
    with pytest.raises(ValueError, match=words):
        parse_grade_table(tomllib.loads(text))
