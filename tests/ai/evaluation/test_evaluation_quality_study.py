"""The study of splits on made-up cases: trained once per training, kept, resumed; document and figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.evaluation.quality_document import study_document
from ai.evaluation.quality_figures import write_figures
from ai.evaluation.quality_models import MODELS
from ai.evaluation.quality_montage import chosen_cases, write_montages
from ai.evaluation.quality_study import RANDOM, ScoredCase, StudyPlan, run_study
from ai.quality.network.maniqa import ManiqaMini, ManiqaMiniConfig
from ai.training.quality_cases import Case, CaseSet, save
from ai.training.quality_network import Schedule
from tests.ai.training.test_quality_training import TINY, noisy_cases

SHORT = Schedule(upstream_steps=1, downstream_steps=1, batch=4, warm_up=1)
ARTIFACTS = ("noise", "motion", "blur", "spike")


def made_up() -> CaseSet:
    """Two patients of each of two vendors, with every artefact of ``ARTIFACTS`` and one clean series each."""
    known = noisy_cases(series=20, slices=4)
    cases = [
        Case(f"{patient}/t2", patient, vendor, "t2w", ((name, 2.0),) if name else (), 0)
        for vendor in ("One", "Two")
        for patient in (f"{vendor}-a", f"{vendor}-b")
        for name in ("", *ARTIFACTS)
    ]
    clean = np.array([not case.artifacts for case in cases])[known.slices.case]
    similarity = np.where(clean, 1.0, known.slices.similarity).astype(np.float32)
    return CaseSet(tuple(cases), replace(known.slices, similarity=similarity))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPlan:
    path = tmp_path / "made-up.cases.npz"
    save(path, made_up())

    def tiny(config: ManiqaMiniConfig = TINY) -> ManiqaMini:
        return ManiqaMini(config)

    monkeypatch.setattr("ai.training.quality_models.ManiqaMini", tiny)
    return StudyPlan(("vendor", "patient"), (path,), (), tmp_path, SHORT, 1)


def test_the_study_scores_every_split_once_and_goes_on_where_it_stopped(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    scored = run_study(plan, 1, told.append)
    kinds = {(one.kind, one.test, one.model) for one in scored}
    assert {("vendor", vendor, model) for vendor in ("One", "Two") for model in MODELS} <= kinds
    assert any(kind == RANDOM for kind, _, _ in kinds)
    assert all(0 <= one.score <= 1 for one in scored)
    document = study_document(plan, scored)
    assert document["patients_tested"] == {"One": 2, "Two": 2}
    assert not any(name in str(document) for name in ("One-a", "Two-b")), "no patient is named"
    monkeypatch.setattr("ai.evaluation.quality_study.train_compared", None)
    assert run_study(plan, 1, told.append) == scored, "nothing is trained again"
    paths = write_figures(scored, tmp_path / "figures")
    assert len(paths) == 4
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_figures_of_no_split_are_none(tmp_path: Path) -> None:
    one = ScoredCase("random halves", RANDOM, "all", "m", "s", "p", "v", "t2w", "clean", 0, "pacsgate", 1, 1)
    assert write_figures([one], tmp_path) == []


def test_simulators_and_patients_share_trainings_and_montages_show_who_was_held_out(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = made_up()
    elsewhere = tmp_path / "elsewhere.cases.npz"
    save(elsewhere, CaseSet(tuple(replace(case, simulator="other") for case in cases.cases), cases.slices))
    told: list[str] = []
    shared = replace(plan, kinds=("other-simulator", "patient"), elsewhere=(elsewhere,))
    scored = run_study(shared, 1, told.append)
    assert [line.split(":")[0] for line in told if "to train on" in line] == ["fold-0", "fold-1"]
    simulators = {(one.kind, one.simulator) for one in scored}
    assert simulators == {("other-simulator", "other"), ("patient", "pacsgate"), (RANDOM, "pacsgate")}
    monkeypatch.setattr("ai.training.quality_network.ManiqaMini", lambda: ManiqaMini(TINY))
    (montage,) = write_montages(shared, tmp_path)
    assert montage.name == "montage-held-out-patient.png"
    assert write_montages(replace(shared, kept=tmp_path / "untrained"), tmp_path) == []


def test_a_montage_shows_the_clean_case_and_the_gravest_of_each_artefact() -> None:
    cases = made_up()
    graver = replace(cases.cases[0], artifacts=(("noise", 4.0),))
    known = CaseSet((*cases.cases[:-1], graver), cases.slices)
    shown = [known.cases[number] for number in chosen_cases(known)]
    assert [(case.artifact, case.severity) for case in shown] == [
        ("clean", 0.0),
        ("motion", 2.0),
        ("noise", 4.0),
        ("blur", 2.0),
    ]
    assert {case.substrate for case in shown} == {"One-a/t2"}
