"""Prompts: read from the header, never the maker, and honest about what is unknown."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.quality.prompts import (
    LEVELS,
    VOCABULARY,
    Anatomy,
    Dimension,
    Family,
    FamilyGuess,
    FieldStrength,
    Modality,
    PlaneLevel,
    Prompt,
    prompt_of,
    settle_family,
)
from ai.quality.types import Severity
from ai.volumes.types import Role, RoledStack

prompts = st.builds(Prompt, *(st.sampled_from(field) for field in VOCABULARY))


def test_the_vocabulary_is_frozen() -> None:
    """Weights know levels by their place: whoever changes this must bump VOCABULARY_VERSION and train again."""
    assert {field.__name__: [level.value for level in field] for field in VOCABULARY} == {
        "Dimension": ["unknown", "2d", "3d"],
        "Modality": ["unknown", "MR", "CT", "CR", "DX", "MG", "US", "XA", "other"],
        "Anatomy": [
            *("unknown", "prostate", "pelvis", "abdomen", "chest"),
            *("head", "spine", "breast", "extremity", "other"),
        ],
        "Family": ["unknown", "t2w", "dwi-low", "dwi-high", "adc", "dce", "t1w", "other"],
        "PlaneLevel": ["unknown", "axial", "sagittal", "coronal", "oblique"],
        "FieldStrength": ["unknown", "low", "1.5T", "3T", "ultra-high"],
    }


def test_nothing_known_is_all_zero() -> None:
    assert Prompt().indices() == (0,) * len(VOCABULARY)


@given(first=prompts, second=prompts)
def test_indices_are_in_range_and_distinguish_prompts(first: Prompt, second: Prompt) -> None:
    assert all(0 <= index < levels for index, levels in zip(first.indices(), LEVELS, strict=True))
    assert (first.indices() == second.indices()) == (first == second)


def entry(made, role: str, b_value: float | None = None, **acquisition) -> RoledStack:
    return RoledStack(made.stack((20, 64, 64), b_value=b_value, **acquisition), role, ())


def test_a_prostate_t2(made) -> None:
    header = {"body_part_examined": "Prostate", "magnetic_field_strength_t": 2.89, "echo_time_ms": 100.0}
    assert prompt_of(entry(made, Role.T2W_AXIAL, **header)) == Prompt(
        Dimension.VOLUME, Modality.MR, Anatomy.PROSTATE, Family.T2W, PlaneLevel.AXIAL, FieldStrength.T3
    )


def test_the_maker_is_never_told(made) -> None:
    told = {prompt_of(entry(made, Role.ADC, manufacturer=maker)) for maker in ("SIEMENS", "Philips", "GE", "")}
    assert len(told) == 1


@pytest.mark.parametrize(
    ("role", "b_value", "family"),
    [
        (Role.DWI, 0.0, Family.DWI_LOW),
        (Role.DWI, 800.0, Family.DWI_HIGH),
        (Role.DWI_CALCULATED, 1400.0, Family.DWI_HIGH),
        (Role.DWI, None, Family.UNKNOWN),
        (Role.T2W_SAGITTAL, None, Family.T2W),
        (Role.LOCALIZER, None, Family.OTHER),
        (Role.OTHER, None, Family.UNKNOWN),
    ],
)
def test_families(made, role: str, b_value: float | None, family: Family) -> None:
    assert prompt_of(entry(made, role, b_value)).family is family


def test_a_sequence_the_header_tells_and_no_role_fits_is_other(made) -> None:
    header = {"scanning_sequence": ("SE",), "echo_time_ms": 20.0, "repetition_time_ms": 3000.0}
    assert prompt_of(entry(made, Role.OTHER, **header)).family is Family.OTHER


@pytest.mark.parametrize(
    ("tesla", "level"), [(0.064, "low"), (1.494, "1.5T"), (3.0, "3T"), (7.0, "ultra-high"), (None, "unknown")]
)
def test_field_strength_classes(made, tesla: float | None, level: str) -> None:
    assert prompt_of(entry(made, Role.T1W, magnetic_field_strength_t=tesla)).field_strength == level


def test_other_modalities_have_no_sequence(made) -> None:
    prompt = prompt_of(entry(made, "ct", modality="CT", body_part_examined="CHEST"))
    assert (prompt.modality, prompt.family, prompt.anatomy) == (Modality.CT, Family.OTHER, Anatomy.CHEST)
    assert prompt_of(entry(made, "pt", modality="PT")).modality is Modality.OTHER
    assert settle_family(prompt, FamilyGuess(Family.T2W, 0.99)).prompt == prompt


def test_the_image_fills_in_where_the_header_is_silent() -> None:
    settled = settle_family(Prompt(modality=Modality.MR), FamilyGuess(Family.ADC, 0.95))
    assert settled.prompt.family is Family.ADC
    assert not settled.findings


def test_header_and_image_that_disagree_give_an_advisory_finding_and_the_header_stays() -> None:
    prompt = Prompt(modality=Modality.MR, family=Family.DWI_LOW)
    settled = settle_family(prompt, FamilyGuess(Family.DWI_HIGH, 0.97))
    assert settled.prompt == prompt
    (finding,) = settled.findings
    assert finding.severity is Severity.ADVISORY
    assert "dwi-low" in finding.text
    assert "dwi-high" in finding.text


@pytest.mark.parametrize("guess", [None, FamilyGuess(Family.T2W, 0.99), FamilyGuess(Family.OTHER, 0.99)])
def test_agreement_abstention_and_other_change_nothing(guess: FamilyGuess | None) -> None:
    prompt = Prompt(modality=Modality.MR, family=Family.T2W)
    assert settle_family(prompt, guess).prompt == prompt
    assert not settle_family(replace(prompt, family=Family.T2W), guess).findings
