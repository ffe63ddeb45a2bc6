"""The model cards name the algorithms, constants and artefacts that the code has."""

from pathlib import Path

import pytest

from ai.detection.baseline import ALGORITHM, MINIMUM_OVERLAP, OPERATING_POINT
from ai.detection.candidates import MAXIMUM_CANDIDATES, MAXIMUM_VOLUME_ML, MINIMUM_VOLUME_ML
from ai.detection.suspicion import CHANCE_Z, MEDIAN_GLAND_ML, WEIGHTS
from ai.evaluation.quality import SHORT_PROTOCOLS, TUNING_SEEDS
from ai.quality.scoring import LIMITED_BELOW, NON_DIAGNOSTIC_BELOW
from ai.simulation.artifacts import ARTIFACTS

MODELS = Path(__file__).parents[2] / "docs" / "models"


def card(name: str) -> str:
    return (MODELS / name).read_text(encoding="utf-8")


def test_detector_card_states_the_constants_of_the_code() -> None:
    text = card("baseline-detector.md")
    assert MAXIMUM_CANDIDATES == 5
    for statement in (
        f"`{ALGORITHM.name}` {ALGORITHM.version}",
        f"score {OPERATING_POINT:g}:",
        f"at least {MINIMUM_OVERLAP:.0%} overlap".replace("%", " %"),
        f"{MINIMUM_VOLUME_ML:g} to {MAXIMUM_VOLUME_ML:g} ml",
        f"{MEDIAN_GLAND_ML:g} ml gland",
        f"z = {CHANCE_Z:.2f}",
        " : ".join(f"{weight:g}" for weight in WEIGHTS.values()),
    ):
        assert statement in text, statement


def test_quality_card_states_the_cut_points_and_names_every_artefact() -> None:
    text = card("quality-rules.md")
    assert f"Below {LIMITED_BELOW:g} is *limited*, below {NON_DIAGNOSTIC_BELOW:g} *non-diagnostic*" in text
    assert {1, 2} == TUNING_SEEDS
    t2, dwi = SHORT_PROTOCOLS
    stacks = f"{t2.slices} of {t2.slice_thickness_mm:g} mm, {dwi.slices} of {dwi.slice_thickness_mm:g} mm"
    assert stacks in text
    for artifact in ARTIFACTS:
        assert artifact in text


@pytest.mark.parametrize("name", ["baseline-detector.md", "quality-rules.md"])
def test_every_card_says_what_it_is_for_and_prints_its_command(name: str) -> None:
    text = card(name)
    assert "research only" in text
    assert "    pacsgate evaluate " in text
    assert "{{" not in text
