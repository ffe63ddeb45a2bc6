"""The family classifier: it can learn, and it abstains rather than guess."""

import numpy as np
import pytest
import torch

from ai.quality.network.family_classifier import (
    FAMILIES,
    MINIMUM_PROBABILITY,
    FamilyClassifier,
    decide,
    guess_family,
)
from ai.quality.network.inputs import NetworkInput
from ai.quality.network.maniqa import parameter_count
from ai.quality.prompts import Family


def logits(family: Family, odds: float) -> torch.Tensor:
    row = torch.zeros(len(FAMILIES))
    row[FAMILIES.index(family)] = odds
    return row


def test_classes_are_every_family_that_is_known() -> None:
    assert set(FAMILIES) == set(Family) - {Family.UNKNOWN}


def test_a_clear_series_is_named() -> None:
    guess = decide(torch.stack([logits(Family.ADC, 8.0)] * 3))
    assert guess is not None
    assert guess.family is Family.ADC
    assert MINIMUM_PROBABILITY <= guess.probability < 1.0


def test_doubt_is_no_answer_however_many_slices_share_it() -> None:
    assert decide(logits(Family.T2W, 1.0).expand(50, -1)) is None
    assert decide(torch.stack([logits(Family.T2W, 6.0), logits(Family.ADC, 6.0)])) is None


def test_an_untrained_classifier_abstains() -> None:
    pixels = np.random.default_rng(0).normal(size=(7, 2, 128, 128)).astype(np.float32)
    assert guess_family(FamilyClassifier().eval(), NetworkInput(pixels, 0.6)) is None


def test_it_is_tiny_and_learns_to_tell_textures_apart() -> None:
    classifier = FamilyClassifier()
    assert parameter_count(classifier) < 100_000
    pixels = torch.randn(8, 2, 128, 128)
    pixels[4:] = torch.nn.functional.avg_pool2d(pixels[4:], 5, 1, 2) * 5.0
    classes = torch.tensor([0] * 4 + [3] * 4)
    optimiser = torch.optim.Adam(classifier.parameters(), 3e-3)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(classifier(pixels), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(RuntimeError):
        classifier(pixels[:, :1])
