"""Forest and network of one training set, and what they say of other cases."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ai.quality.forest import Forest, features_of
from ai.quality.network.maniqa import ManiqaMini
from ai.quality.score import averaged
from ai.training.quality_cases import CaseSet
from ai.training.quality_forest import train_forest
from ai.training.quality_network import Schedule, predict, train_network


@dataclass(frozen=True)
class Models:
    """The two halves of the ensemble."""

    forest: Forest
    network: ManiqaMini

    def forest_damages(self, cases: CaseSet) -> NDArray[np.float32]:
        """Damage 0..1 per slice by the forest, float32 ``[slice, 1 + concept]``: as a whole, then per concept."""
        families = [cases.cases[index].family for index in cases.slices.case]
        return self.forest.predict(features_of(cases.slices.metrics, families))

    def network_damages(self, cases: CaseSet) -> NDArray[np.float32]:
        """The same by the network."""
        outputs = [torch.cat([said.damage[:, None], said.concepts], dim=1) for said in predict(self.network, cases)]
        return np.asarray(torch.sigmoid(torch.cat(outputs)).numpy(), np.float32)

    def damages(self, cases: CaseSet) -> NDArray[np.float32]:
        """The same by both."""
        return averaged(self.forest_damages(cases), self.network_damages(cases))


def train_models(
    cases: CaseSet, schedule: Schedule, seed: int, progress: Callable[[str], None], checkpoint: Path | None = None
) -> Models:
    """Train both; the same cases and seed give the same models on one machine."""
    torch.manual_seed(seed)
    network = train_network(cases, ManiqaMini(), schedule, seed, progress, checkpoint=checkpoint)
    return Models(train_forest(cases, seed), network)
