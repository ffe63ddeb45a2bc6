"""The quality evaluation: what is simulated, and how records become figures."""

from dataclasses import replace

import pytest

from ai.evaluation.quality import (
    AIMED_AT,
    FULL_PROTOCOLS,
    SHORT_PROTOCOLS,
    QualityRecord,
    aimed_criteria,
    evaluate_quality,
    hit_roles,
)
from ai.evaluation.quality_summary import summarise
from ai.evaluation.simulated import Simulator
from ai.quality.scoring import CRITERIA
from ai.quality.types import Verdict
from ai.simulation.artifacts import ARTIFACTS
from ai.simulation.protocol import DWI, T2_AXIAL
from ai.volumes.types import Role

COARSE_MM = (2.0, 1.0, 1.0)
TINY = (
    replace(T2_AXIAL, slices=10, slice_thickness_mm=6.0, matrix=128, frequency_samples=128, phase_lines=96),
    replace(DWI, slices=4, slice_thickness_mm=15.0, matrix=64, frequency_samples=64, phase_lines=64),
)
D, L, N = Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC


def records(verdicts: list[Verdict], scores: list[float | None], artifact: str = "noise", seed: int = 100):
    """One seed from clean to severity 5 on the DWI."""
    return [
        QualityRecord(seed, artifact if severity else None, severity, Role.DWI, verdict, score, gate_open=not severity)
        for severity, (verdict, score) in enumerate(zip(verdicts, scores, strict=True))
    ]


def test_short_protocols_cover_what_the_full_ones_do() -> None:
    for short, full in zip(SHORT_PROTOCOLS, FULL_PROTOCOLS, strict=True):
        assert short.slices * short.slice_thickness_mm == pytest.approx(full.slices * full.slice_thickness_mm)
        assert replace(short, slices=full.slices, slice_thickness_mm=full.slice_thickness_mm) == full


def test_every_artefact_is_named_and_its_metrics_exist() -> None:
    assert set(AIMED_AT) == set(ARTIFACTS)
    judged = {criterion.metric for criteria in CRITERIA.values() for criterion in criteria}
    assert judged >= {metric for metrics in AIMED_AT.values() for metric in metrics}
    for artifact in ARTIFACTS:
        wanted = AIMED_AT[artifact]
        assert not wanted or any(aimed_criteria(artifact, role) for role in hit_roles(artifact))


def test_distortion_and_motion_hit_what_they_can_happen_in() -> None:
    assert hit_roles("distortion") == (Role.DWI, Role.ADC)
    assert hit_roles("motion") == (Role.T2W_AXIAL,)
    assert hit_roles("noise") == (Role.T2W_AXIAL, Role.DWI, Role.ADC)


@pytest.mark.slow
def test_each_study_is_simulated_once_and_told() -> None:
    told: list[str] = []
    found = list(evaluate_quality([5], ["motion"], [5, 6], Simulator(TINY, COARSE_MM), told.append))
    assert len(told) == 7
    assert told[0] == "1 of 7: seed 5, clean"
    assert told[-1] == "7 of 7: seed 6, clean"
    clean = [record for record in found if record.artifact is None]
    assert sorted((record.seed, record.role) for record in clean) == [
        (seed, role) for seed in (5, 6) for role in sorted((Role.ADC, Role.DWI, Role.T2W_AXIAL))
    ]
    hit = [record for record in found if record.artifact == "motion"]
    assert [(record.severity, record.role) for record in hit] == [(s, Role.T2W_AXIAL) for s in range(1, 6)]


def test_an_unknown_artefact_is_refused_before_anything_is_simulated() -> None:
    with pytest.raises(ValueError, match="unknown artefact rust"):
        next(evaluate_quality([5], ["rust"]))


def test_a_rule_that_works_has_no_misses() -> None:
    summary = summarise(records([D, D, L, L, N, N], [0.9, 0.8, 0.6, 0.5, 0.3, 0.1]))
    (artifact,) = summary.artifacts
    assert artifact.passed_visible.value == 0.0
    assert artifact.passed_ruined.value == 0.0
    assert (artifact.rises, artifact.steps, artifact.largest_rise) == (0, 5, 0.0)
    assert artifact.aimed_at == ("structure_to_noise",)
    assert artifact.can_disqualify
    assert summary.clean_called_diagnostic[Role.DWI].value == 1.0
    assert summary.clean_gate_open.value == 1.0
    assert [cell.verdicts for cell in summary.cells][3] == {"limited": 1}


def test_misses_false_alarms_and_rises_are_reported() -> None:
    first = records([D, D, D, D, L, L], [0.9, 0.95, 0.8, 0.85, 0.5, 0.6], "bias")
    second = records([N, N, N, N, N, N], [0.3, 0.3, 0.2, 0.2, None, 0.1], "bias", seed=101)
    summary = summarise(first + second)
    (artifact,) = summary.artifacts
    assert artifact.passed_visible.value == pytest.approx(1 / 6)
    assert artifact.passed_ruined.value == 0.5
    assert (artifact.rises, artifact.steps) == (3, 10)
    assert artifact.largest_rise == pytest.approx(0.1)
    assert not artifact.can_disqualify
    assert summary.clean_called_diagnostic[Role.DWI].value == 0.5
    assert summary.clean_called_non_diagnostic[Role.DWI].value == 0.5
    assert summary.held_out


def test_tuning_seeds_are_not_called_held_out() -> None:
    assert not summarise(records([D] * 6, [1.0] * 6, seed=2)).held_out
