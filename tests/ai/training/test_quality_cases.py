"""Cases: joined, chosen and stored without mixing up whose slice is whose; concept labels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ai.quality.concepts import CONCEPTS, Concept
from ai.quality.definitions import METRIC_NAMES
from ai.quality.network.inputs import CHANNELS, SIZE
from ai.quality.network.physics import PHYSICS
from ai.quality.prompts import VOCABULARY
from ai.simulation.artifacts import ARTIFACTS
from ai.training.quality_cases import (
    CONCEPT_OF_ARTIFACT,
    Case,
    CaseSet,
    Slices,
    concept_damage,
    join,
    load,
    save,
)


def made(patients: list[str], slices: int = 2, vendor: str = "Maker") -> CaseSet:
    """A set of one case per name, whose slices carry the number of their case as similarity / 100."""
    cases = tuple(
        Case(f"{name}/series", name, vendor, "t2w", (("noise", 1.0),), seed) for seed, name in enumerate(patients)
    )
    rows = len(cases) * slices
    owner = np.repeat(np.arange(len(cases), dtype=np.int32), slices)

    def zeros(*shape: int) -> NDArray[np.float32]:
        return np.zeros((rows, *shape), np.float32)

    return CaseSet(
        cases,
        Slices(
            case=owner,
            similarity=owner.astype(np.float32) / 100,
            second_opinion=zeros(),
            concepts=zeros(len(CONCEPTS)),
            physics=zeros(len(PHYSICS)),
            metrics=zeros(len(METRIC_NAMES)),
            prompts=zeros(len(VOCABULARY)).astype(np.int8),
            inputs=zeros(CHANNELS, SIZE, SIZE).astype(np.float16),
            pixel_mm=zeros() + 0.5,
        ),
    )


def test_choosing_cases_keeps_their_slices() -> None:
    chosen = made(["a", "b", "c"]).where([True, False, True])
    assert [case.patient for case in chosen.cases] == ["a", "c"]
    assert chosen.slices.case.tolist() == [0, 0, 1, 1]
    assert chosen.slices.similarity.tolist() == pytest.approx([0, 0, 0.02, 0.02])


def test_joined_sets_do_not_share_numbers() -> None:
    both = join([made(["a"]), made(["b", "c"], slices=1)])
    assert both.slices.case.tolist() == [0, 0, 1, 2]
    assert [both.cases[number].patient for number in both.slices.case] == ["a", "a", "b", "c"]
    with pytest.raises(ValueError, match="no cases"):
        join([])


def test_stored_cases_come_back(tmp_path: Path) -> None:
    path = tmp_path / "some.cases.npz"
    cases = made(["a", "b"])
    save(path, cases)
    again = load(path)
    assert again.cases == cases.cases
    assert np.array_equal(again.slices.similarity, cases.slices.similarity)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_every_artefact_has_a_concept() -> None:
    assert set(ARTIFACTS) <= set(CONCEPT_OF_ARTIFACT)


def test_damage_belongs_to_the_only_concept() -> None:
    labels = concept_damage([("noise", 2.0)], 0.4)
    assert labels[CONCEPTS.index(Concept.NOISE)] == pytest.approx(0.4)
    assert labels.sum() == pytest.approx(0.4)


def test_shares_of_a_mixture_are_not_known() -> None:
    labels = concept_damage([("noise", 2.0), ("motion", 1.0)], 0.4)
    unknown = {CONCEPTS[index] for index in np.flatnonzero(np.isnan(labels))}
    assert unknown == {Concept.NOISE, Concept.MOTION}
    assert np.nansum(labels) == 0


def test_two_artefacts_of_one_concept_are_one() -> None:
    labels = concept_damage([("noise", 2.0), ("low-averages", 1.0)], 0.4)
    assert labels[CONCEPTS.index(Concept.NOISE)] == pytest.approx(0.4)
