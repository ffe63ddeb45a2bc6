"""The learned assessor of one stack: forest and network on its salient slices, one score, and whether it knows such
images at all.

Everything it needs lies in a bundle folder (MONAI bundle layout): the forest, the network, the score function and the
envelope of its training series. Only worker processes load it; torch comes with the network.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ai.quality.concepts import CONCEPTS, Concept
from ai.quality.definitions import METRIC_NAMES, METRICS_VERSION
from ai.quality.forest import FEATURES, Forest, features_of
from ai.quality.metrics import SliceMetrics
from ai.quality.model_files import UnusableModel
from ai.quality.network.inputs import volume_input
from ai.quality.network.maniqa import ManiqaMini
from ai.quality.network.weights import load_network
from ai.quality.novelty import Envelope, Novelty, load_envelope, novelty
from ai.quality.prompts import prompt_of
from ai.quality.salience import salient_slices
from ai.quality.score import ScoreFunction, averaged, series_score
from ai.volumes.types import Role, RoledStack, SliceReference, Volume

SHIPPED = Path(__file__).parents[1] / "bundles" / "quality"

FOREST_FILE = Path("models/forest.json.gz")
NETWORK_FOLDER = Path("models/network")
ENVELOPE_FILE = Path("models/envelope.npz")
SCORE_FILE = Path("models/score.json")
METADATA_FILE = Path("configs/metadata.json")

LEAST_ATTENTION = 1e-3
"""A chosen slice always counts a little: all saliences may be 0."""

FAMILY_OF_ROLE = {
    Role.T2W_AXIAL: "t2w",
    Role.T2W_SAGITTAL: "t2w",
    Role.T2W_CORONAL: "t2w",
    Role.DWI: "dwi",
}
"""Roles it was trained on."""


@dataclass(frozen=True)
class LearnedSlice:
    """What the assessor says of one slice: score and damages 0..1; ``attention`` is its salience."""

    reference: SliceReference
    score: float
    damage: float
    concepts: dict[Concept, float]
    attention: float


@dataclass(frozen=True)
class LearnedQuality:
    """What the assessor says of a stack. ``concepts`` are the salience-weighted means over the slices."""

    score: float
    slices: tuple[LearnedSlice, ...]
    concepts: dict[Concept, float]
    novelty: Novelty


@dataclass(frozen=True)
class QualityModel:
    """A loaded bundle. ``judge`` is deterministic: the same volume gives the same numbers on one machine."""

    forest: Forest
    network: ManiqaMini
    score: ScoreFunction
    envelope: Envelope
    metadata: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "QualityModel":
        """Read a bundle.

        Raises:
            UnusableModel: a file is missing, damaged, or of another version.
        """
        try:
            score = ScoreFunction.of(json.loads((folder / SCORE_FILE).read_text(encoding="utf-8")))
            metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError) as error:
            raise UnusableModel(f"{folder} is no quality bundle: {error}") from error
        return cls(
            Forest.load(folder / FOREST_FILE),
            load_network(folder / NETWORK_FOLDER, ManiqaMini, METRICS_VERSION),
            score,
            load_envelope(folder / ENVELOPE_FILE, METRICS_VERSION),
            metadata,
        )

    @property
    def version(self) -> str:
        """Version of the bundle."""
        return str(self.metadata["version"])

    def judge(self, entry: RoledStack, volume: Volume, metrics: tuple[SliceMetrics, ...]) -> LearnedQuality:
        """Score a stack from its salient slices.

        Args:
            entry: the stack with its role, one of ``FAMILY_OF_ROLE``.
            volume: its pixels.
            metrics: of every stored slice, from ``ai.quality.metrics.slice_metrics``.

        Raises:
            KeyError: a role the assessor was not trained on.
        """
        family = FAMILY_OF_ROLE[Role(entry.role)]
        chosen = salient_slices(volume)
        values = np.array([_values(metrics[one.index]) for one in chosen], np.float32)
        damages = averaged(
            self.forest.predict(features_of(values, [family] * len(chosen))),
            self._network_damages(entry, volume, [one.index for one in chosen]),
        )
        scores = self.score(damages)
        attention = np.array([max(one.salience, LEAST_ATTENTION) for one in chosen])
        slices = tuple(
            LearnedSlice(one.reference, float(score), float(row[0]), _named(row[1:]), one.salience)
            for one, score, row in zip(chosen, scores, damages, strict=True)
        )
        return LearnedQuality(
            series_score(scores, attention),
            slices,
            _named(np.average(damages[:, 1:], axis=0, weights=attention)),
            novelty(self.envelope, envelope_features(values)),
        )

    def _network_damages(self, entry: RoledStack, volume: Volume, indices: list[int]) -> NDArray[np.float32]:
        seen = volume_input(volume, entry.role, indices)
        prompt = torch.tensor(prompt_of(entry).indices()).expand(len(indices), -1)
        with torch.inference_mode():
            said = self.network(torch.from_numpy(seen.pixels), prompt, torch.full((len(indices),), seen.pixel_mm))
            damages = torch.sigmoid(torch.cat([said.damage[:, None], said.concepts], dim=1))
        return np.asarray(damages.numpy(), np.float32)


def _values(metrics: SliceMetrics) -> list[float]:
    known = (metrics.value(name) for name in METRIC_NAMES)
    return [np.nan if value is None else value for value in known]


def _named(values: NDArray[np.floating]) -> dict[Concept, float]:
    return {concept: float(value) for concept, value in zip(CONCEPTS, values, strict=True)}


def envelope_features(metrics: NDArray[np.float32]) -> NDArray[np.float64]:
    """The features of a series for its novelty: medians over slices ``[slice, metric]`` of the scale-free metrics."""
    chosen = [METRIC_NAMES.index(name) for name in FEATURES]
    known = metrics[:, chosen].astype(np.float64)
    medians = np.full(len(chosen), np.nan)
    present = np.isfinite(known).any(axis=0)
    medians[present] = np.nanmedian(known[:, present], axis=0)
    return medians


@cache
def shipped_model() -> QualityModel:
    """The model that came with this installation. Raises UnusableModel."""
    return QualityModel.load(SHIPPED)
