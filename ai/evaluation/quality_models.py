"""The models that are compared, each trained on the same cases: header only, forest, network, both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import torch
from numpy.typing import NDArray

from ai.quality.forest import Forest, features_of
from ai.quality.network.maniqa import ManiqaMini
from ai.quality.score import ScoreFunction, averaged
from ai.training.quality_cases import CaseSet
from ai.training.quality_forest import PARAMETERS, ROUNDS, slice_weights, train_forest
from ai.training.quality_network import Schedule, predict, train_network

HEADER_ONLY = "header only"
FOREST = "metric forest"
NETWORK = "mini network"
ENSEMBLE = "ensemble"
MODELS = (HEADER_ONLY, FOREST, NETWORK, ENSEMBLE)

HEADER_PARAMETERS = slice(2, None)
"""Columns of the physics labels that a header tells: field, echo time, repetition time, b-value."""


@dataclass(frozen=True)
class Trained:
    """The models of one training set; ``scores`` gives those of each."""

    header: lightgbm.Booster
    forest: Forest
    network: ManiqaMini
    functions: Mapping[str, ScoreFunction]

    def scores(self, cases: CaseSet) -> dict[str, NDArray[np.float64]]:
        """Score 0..1 of every slice, by model."""
        damages = slice_damages(self.forest, self.network, cases)
        scores = {name: self.functions[name](damages[name]) for name in (FOREST, NETWORK, ENSEMBLE)}
        return {HEADER_ONLY: 1.0 - np.asarray(self.header.predict(_header(cases))), **scores}


def slice_damages(forest: Forest, network: ManiqaMini, cases: CaseSet) -> dict[str, NDArray[np.float32]]:
    """Damage per slice, float32 ``[slice, 1 + concept]``, by model."""
    families = [cases.cases[index].family for index in cases.slices.case]
    trees = forest.predict(features_of(cases.slices.metrics, families))
    outputs = list(predict(network, cases))
    damage = torch.cat([torch.sigmoid(output.damage)[:, None] for output in outputs])
    concepts = torch.cat([torch.sigmoid(output.concepts) for output in outputs])
    net = torch.cat([damage, concepts], dim=1).numpy()
    return {FOREST: trees, NETWORK: net, ENSEMBLE: averaged(trees, net)}


def train_all(
    cases: CaseSet, schedule: Schedule, seed: int, progress: Callable[[str], None], checkpoint: Path | None = None
) -> Trained:
    """Train every model on the cases."""
    forest = train_forest(cases, seed)
    network = train_network(cases, ManiqaMini(), schedule, seed, progress, checkpoint=checkpoint)
    weights = slice_weights(cases)
    damages = slice_damages(forest, network, cases)
    functions = {name: ScoreFunction.fit(damages[name], cases.slices.similarity, weights) for name in damages}
    data = lightgbm.Dataset(_header(cases), 1.0 - cases.slices.similarity, weight=weights)
    header = lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)
    return Trained(header, forest, network, functions)


def _header(cases: CaseSet) -> NDArray[np.float32]:
    """What the header tells of a slice: its prompt and the physical parameters."""
    rows = cases.slices
    return np.concatenate([rows.prompts.astype(np.float32), rows.physics[:, HEADER_PARAMETERS]], axis=1)
