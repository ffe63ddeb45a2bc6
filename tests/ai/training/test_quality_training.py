"""Forest and network learn what they are shown, the same way twice; pairs are of one slice; a run can be resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ai.quality.concepts import CONCEPTS, Concept
from ai.quality.definitions import METRIC_NAMES
from ai.quality.forest import FEATURES, OUTPUTS, Forest, features_of
from ai.quality.model_files import UnusableModel
from ai.quality.network.maniqa import ManiqaMini, ManiqaMiniConfig
from ai.training.quality_cases import CaseSet
from ai.training.quality_forest import slice_weights, train_forest
from ai.training.quality_network import Sampler, Schedule, predict, rank_loss, train_network
from tests.ai.training.test_quality_cases import made

TINY = ManiqaMiniConfig(channels=(8, 16, 16), depths=(1, 1, 1), width=16, heads=2, condition=8)
SHORT = Schedule(upstream_steps=2, downstream_steps=4, batch=8, warm_up=2, checkpoint_every=3)


def noisy_cases(series: int = 6, slices: int = 40) -> CaseSet:
    """Series whose first scale-free metric and whose network input tell their damage."""
    cases = made([f"patient-{number}" for number in range(series)], slices)
    rng = np.random.default_rng(0)
    damage = rng.random(len(cases.slices)).astype(np.float32)
    metrics = rng.random(cases.slices.metrics.shape).astype(np.float32)
    metrics[:, METRIC_NAMES.index(FEATURES[0])] = damage
    concepts = np.zeros_like(cases.slices.concepts)
    concepts[:, CONCEPTS.index(Concept.NOISE)] = damage
    noise = rng.standard_normal(cases.slices.inputs.shape, np.float32) * damage[:, None, None, None]
    rows = replace(
        cases.slices,
        similarity=1 - damage,
        metrics=metrics,
        concepts=concepts,
        inputs=noise.astype(np.float16),
    )
    return CaseSet(cases.cases, rows)


@pytest.fixture(scope="module")
def cases() -> CaseSet:
    return noisy_cases()


@pytest.fixture(scope="module")
def forest(cases: CaseSet) -> Forest:
    return train_forest(cases, seed=1)


def test_the_forest_finds_the_metric_that_tells(cases: CaseSet, forest: Forest) -> None:
    damages = forest.predict(features_of(cases.slices.metrics, ["t2w"] * len(cases.slices)))
    assert np.corrcoef(damages[:, 0], 1 - cases.slices.similarity)[0, 1] > 0.95
    noise = damages[:, OUTPUTS.index(str(Concept.NOISE))]
    assert np.corrcoef(noise, 1 - cases.slices.similarity)[0, 1] > 0.95
    assert damages[:, OUTPUTS.index(str(Concept.WRAP))].max() < 0.05


def test_a_stored_forest_says_the_same(cases: CaseSet, forest: Forest, tmp_path: Path) -> None:
    path = tmp_path / "forest.json.gz"
    forest.save(path)
    features = features_of(cases.slices.metrics, ["t2w"] * len(cases.slices))
    assert np.array_equal(Forest.load(path).predict(features), forest.predict(features))


def test_a_forest_of_other_metrics_is_refused(forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "forest.json.gz"
    forest.save(path)
    monkeypatch.setattr("ai.quality.forest.METRICS_VERSION", "other")
    with pytest.raises(UnusableModel, match="train it again"):
        Forest.load(path)
    with pytest.raises(UnusableModel, match="no forest"):
        Forest.load(tmp_path / "absent")


def test_vendors_and_patients_weigh_alike() -> None:
    cases = made(["a", "b", "c"], slices=3)
    vendors = ("One", "One", "Two")
    cases = CaseSet(
        tuple(replace(case, vendor=vendor) for case, vendor in zip(cases.cases, vendors, strict=True)), cases.slices
    )
    weights = slice_weights(cases)
    assert weights[:6].sum() == pytest.approx(weights[6:].sum())
    assert weights.mean() == pytest.approx(1)


def test_partners_are_the_same_slice(cases: CaseSet) -> None:
    rows = Sampler(cases, 0).rows(32)
    position = np.arange(len(cases.slices)) % 40
    names = np.array([cases.cases[number].substrate for number in cases.slices.case])
    assert np.array_equal(position[rows[:16]], position[rows[16:]])
    assert np.array_equal(names[rows[:16]], names[rows[16:]])


def test_a_wrong_order_costs_more_than_a_right_one() -> None:
    damage = torch.tensor([0.1, 0.5, 0.9, 0.5])
    right = rank_loss(torch.tensor([-2.0, 0.0, 2.0, 0.0]), damage, 0.02)
    wrong = rank_loss(torch.tensor([2.0, 0.0, -2.0, 0.0]), damage, 0.02)
    assert right < wrong
    assert rank_loss(torch.zeros(4), torch.full((4,), 0.3), 0.02) == 0


def test_training_is_repeatable_and_can_be_resumed(cases: CaseSet, tmp_path: Path) -> None:
    torch.manual_seed(5)
    start = ManiqaMini(TINY).state_dict()

    def run(schedule: Schedule, checkpoint: Path | None = None) -> torch.Tensor:
        model = ManiqaMini(TINY)
        model.load_state_dict(start)
        trained = train_network(cases, model, schedule, 7, lambda _: None, torch.device("cpu"), checkpoint)
        return next(iter(predict(trained, cases.where([True] + [False] * 5)))).damage

    whole = run(SHORT)
    assert torch.equal(whole, run(SHORT))
    path = tmp_path / "state"
    run(SHORT, path)
    assert path.exists()
    assert torch.equal(run(SHORT, path), whole), "a finished run is only loaded"
