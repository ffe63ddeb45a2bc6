"""The study of splits on made-up cases: trained once per training, kept, resumed; document and figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.evaluation.quality_document import study_document
from ai.evaluation.quality_figures import write_figures
from ai.evaluation.quality_models import MODELS
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
