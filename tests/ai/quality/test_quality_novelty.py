"""Novelty: the shrinkage formula, a limit that holds for new patients, files that are refused when they do not fit."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf as reference_ledoit_wolf

from ai.quality.model_files import UnusableModel
from ai.quality.novelty import Envelope, fit_envelope, ledoit_wolf, load_envelope, novelty, save_envelope

NAMES = tuple(f"metric {index}" for index in range(8))


def cohort(seed: int, patients: int) -> tuple[np.ndarray, list[str]]:
    """Two correlated series per patient."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(8, 8))
    own = rng.normal(size=(patients, 1, 8)) + 0.5 * rng.normal(size=(patients, 2, 8))
    return (own @ mixing * 10.0 + 3.0).reshape(-1, 8), [str(index // 2) for index in range(2 * patients)]


@pytest.fixture(scope="module")
def envelope() -> Envelope:
    return fit_envelope(*cohort(0, 60), NAMES, "v1", quantile=0.9)


def test_shrinkage_is_ledoit_and_wolfs() -> None:
    values, _ = cohort(3, 10)
    centred = values - values.mean(axis=0)
    expected, _ = reference_ledoit_wolf(centred, assume_centered=True)
    assert ledoit_wolf(centred) == pytest.approx(expected)


def test_the_limit_holds_for_patients_it_was_not_set_on(envelope: Envelope) -> None:
    values, _ = cohort(1, 300)
    novel = np.mean([novelty(envelope, row).is_novel for row in values])
    assert 0.04 < novel < 0.2


def test_far_away_is_novel_and_says_what_is_far(envelope: Envelope) -> None:
    far = envelope.centre.copy()
    far[5] += 12.0 * envelope.scale[5]
    found = novelty(envelope, far)
    assert found.is_novel
    assert found.outlying[0] == ("metric 5", pytest.approx(12.0))
    assert "metric 5 (+12.0 SD)" in found.text


def test_broken_correlation_is_novel_although_every_value_is_ordinary(envelope: Envelope) -> None:
    _, _, directions = np.linalg.svd(envelope.training @ np.linalg.inv(envelope.whitening))
    odd = envelope.centre + 2.0 * directions[-1] * envelope.scale
    assert np.abs((odd - envelope.centre) / envelope.scale).max() <= 2.0
    assert novelty(envelope, odd).is_novel


def test_a_missing_value_is_named_and_brings_no_distance(envelope: Envelope) -> None:
    values = envelope.centre.copy()
    values[2] = np.nan
    found = novelty(envelope, values)
    assert found.missing == ("metric 2",)
    assert found.distance == novelty(envelope, envelope.centre).distance


def test_units_of_the_features_do_not_matter(envelope: Envelope) -> None:
    scales = np.logspace(-4, 4, 8)
    values, patients = cohort(0, 60)
    scaled = fit_envelope(values * scales, patients, NAMES, "v1", quantile=0.9)
    probe = cohort(2, 1)[0][0]
    assert novelty(scaled, probe * scales).distance == pytest.approx(novelty(envelope, probe).distance)


def test_a_feature_that_never_varied_or_is_often_missing_is_no_obstacle() -> None:
    values, patients = cohort(4, 12)
    values[:, 0] = 7.0
    values[::3, 1] = np.nan
    found = novelty(fit_envelope(values, patients, NAMES, "v1"), values[1])
    assert np.isfinite(found.distance)


def test_too_little_to_fit_from_is_said() -> None:
    values, patients = cohort(0, 9)
    with pytest.raises(ValueError, match="needs 10 patients, there are 9"):
        fit_envelope(values, patients, NAMES, "v1")
    values, patients = cohort(0, 10)
    values[:, 3] = np.nan
    with pytest.raises(ValueError, match="no series has a value of metric 3"):
        fit_envelope(values, patients, NAMES, "v1")


def test_a_stored_envelope_gives_the_same_distances(envelope: Envelope, tmp_path) -> None:
    save_envelope(tmp_path / "envelope.npz", envelope)
    stored = load_envelope(tmp_path / "envelope.npz", "v1")
    probe = cohort(5, 1)[0][0]
    assert novelty(stored, probe) == novelty(envelope, probe)


def test_files_that_do_not_fit_are_refused(envelope: Envelope, tmp_path) -> None:
    path = tmp_path / "envelope.npz"
    save_envelope(path, envelope)
    with pytest.raises(UnusableModel, match="metrics version v1, this installation has v2"):
        load_envelope(path, "v2")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnusableModel, match="no envelope"):
        load_envelope(path, "v1")
    with pytest.raises(UnusableModel, match="no envelope"):
        load_envelope(tmp_path / "absent.npz", "v1")
    np.savez(path, allow_pickle=True, words=np.array([{}], dtype=object))
    with pytest.raises(UnusableModel, match="no envelope"):
        load_envelope(path, "v1")
