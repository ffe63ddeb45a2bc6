"""The models that are compared, trained on the same cases: header only, forest, network, both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ai.quality.score import ScoreFunction, averaged
from ai.training.quality_cases import CaseSet
from ai.training.quality_forest import PARAMETERS, ROUNDS, slice_weights
from ai.training.quality_models import Models, train_models
from ai.training.quality_network import Schedule

HEADER_ONLY = "header only"
FOREST = "metric forest"
NETWORK = "mini network"
ENSEMBLE = "ensemble"
MODELS = (HEADER_ONLY, FOREST, NETWORK, ENSEMBLE)

TOLD_BY_HEADER = slice(2, None)
"""Columns of the physics labels that a header tells: field, echo time, repetition time, b-value."""


@dataclass(frozen=True)
class Compared:
    """The models of one training set; ``scores`` gives those of each."""

    header: lightgbm.Booster
    models: Models
    functions: Mapping[str, ScoreFunction]

    def scores(self, cases: CaseSet) -> dict[str, NDArray[np.float64]]:
        """Score 0..1 of every slice, by model."""
        damages = _damages(self.models, cases)
        by_header = 1.0 - np.asarray(self.header.predict(_header(cases), num_threads=1), np.float64)
        return {HEADER_ONLY: by_header, **{name: self.functions[name](damages[name]) for name in damages}}


def train_compared(
    cases: CaseSet, schedule: Schedule, seed: int, progress: Callable[[str], None], checkpoint: Path | None = None
) -> Compared:
    """Train every model on the cases."""
    models = train_models(cases, schedule, seed, progress, checkpoint)
    weights = slice_weights(cases)
    damages = _damages(models, cases)
    functions = {name: ScoreFunction.fit(damages[name], cases.slices.similarity, weights) for name in damages}
    data = lightgbm.Dataset(_header(cases), 1.0 - cases.slices.similarity, weight=weights)
    header = lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)
    return Compared(header, models, functions)


def _damages(models: Models, cases: CaseSet) -> dict[str, NDArray[np.float32]]:
    trees, net = models.forest_damages(cases), models.network_damages(cases)
    return {FOREST: trees, NETWORK: net, ENSEMBLE: averaged(trees, net)}


def _header(cases: CaseSet) -> NDArray[np.float32]:
    """What the header tells of a slice: its prompt and the physical parameters."""
    rows = cases.slices
    return np.concatenate([rows.prompts.astype(np.float32), rows.physics[:, TOLD_BY_HEADER]], axis=1)
