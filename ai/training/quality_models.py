"""Forest and network of one training set, and what they say of other cases."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ai.quality.definitions import METRICS_VERSION
from ai.quality.forest import Forest, features_of
from ai.quality.network.inputs import INPUT_VERSION
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

    def damages(self, cases: CaseSet) -> NDArray[np.float32]:
        """Damage 0..1 per slice by both, float32 ``[slice, 1 + concept]``: as a whole, then per concept."""
        return averaged(forest_damages(self.forest, cases), network_damages(self.network, cases))


def forest_damages(forest: Forest, cases: CaseSet) -> NDArray[np.float32]:
    """The same by the forest."""
    families = [cases.cases[index].family for index in cases.slices.case]
    return forest.predict(features_of(cases.slices.metrics, families))


def network_damages(network: ManiqaMini, cases: CaseSet) -> NDArray[np.float32]:
    """The same by the network."""
    outputs = [torch.cat([said.damage[:, None], said.concepts], dim=1) for said in predict(network, cases)]
    return np.asarray(torch.sigmoid(torch.cat(outputs)).numpy(), np.float32)


def training_folder(work: Path, cases: CaseSet, schedule: Schedule, seed: int) -> Path:
    """Where trainings on (parts of) these cases are kept: other cases, schedule, seed or versions have another folder,
    so that nothing is ever taken from a training on something else."""
    told = hashlib.sha256(json.dumps([asdict(schedule), seed, METRICS_VERSION, INPUT_VERSION]).encode())
    told.update(json.dumps([astuple(case) for case in cases.cases]).encode())
    told.update(np.ascontiguousarray(cases.slices.similarity).tobytes())
    return work / f"trained-{told.hexdigest()[:12]}"


def fold_name(number: int) -> str:
    """What the training without one fold of the real patients is called: recipe and evaluation share it."""
    return f"fold-{number}"


def checkpoint_file(folder: Path, training: str) -> Path:
    """Where the network of a training is kept; names may hold what a header says."""
    return folder / f"{path_name(training)}.checkpoint"


def path_name(name: str) -> str:
    """A name as it may stand in a path."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def train_models(
    cases: CaseSet, schedule: Schedule, seed: int, progress: Callable[[str], None], checkpoint: Path | None = None
) -> Models:
    """Train both; the same cases and seed give the same models on one machine."""
    torch.manual_seed(seed)
    network = train_network(cases, ManiqaMini(), schedule, seed, progress, checkpoint=checkpoint)
    return Models(train_forest(cases, seed), network)
