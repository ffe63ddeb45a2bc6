"""Trains the forest over the image metrics."""

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ai.quality.concepts import CONCEPTS
from ai.quality.forest import DAMAGE, FEATURES, OUTPUTS, Forest, features_of
from ai.training.quality_cases import CaseSet

ROUNDS = 250
PARAMETERS = {
    "objective": "cross_entropy",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 2.0,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
"""Small trees and few features each: the scanner must not be recognised. Chosen once, not searched."""


def train_forest(cases: CaseSet, seed: int) -> Forest:
    """One booster per output, every patient and vendor with the same weight."""
    rows = cases.slices
    features = features_of(rows.metrics, [cases.cases[index].family for index in rows.case])
    weights = slice_weights(cases)
    targets = {DAMAGE: 1.0 - rows.similarity}
    targets |= {str(concept): rows.concepts[:, number] for number, concept in enumerate(CONCEPTS)}
    return Forest({name: _booster(features, targets[name], weights, seed) for name in OUTPUTS})


def _booster(
    features: NDArray[np.float32], target: NDArray[np.float32], weights: NDArray[np.float32], seed: int
) -> lightgbm.Booster:
    known = np.isfinite(target)
    data = lightgbm.Dataset(
        features[known],
        np.clip(target[known], 0.0, 1.0),
        weight=weights[known],
        feature_name=[*FEATURES, "family"],
        params={"max_bin": PARAMETERS["max_bin"], "verbosity": -1},
    )
    return lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)


def slice_weights(cases: CaseSet) -> NDArray[np.float32]:
    """Weights of mean 1 that give every vendor the same total, and within it every patient."""
    vendors = np.array([case.vendor for case in cases.cases])[cases.slices.case]
    patients = np.array([case.patient for case in cases.cases])[cases.slices.case]
    weights = np.ones(len(vendors), np.float64)
    for vendor in np.unique(vendors):
        own = np.unique(patients[vendors == vendor])
        for patient in own:
            rows = (vendors == vendor) & (patients == patient)
            weights[rows] = 1.0 / (rows.sum() * len(own))
    return (weights / weights.mean()).astype(np.float32)
