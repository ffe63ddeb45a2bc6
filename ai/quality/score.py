"""From the outputs of forest and network to one score per slice and series, monotone in every concept.

Forest and network fail in different places (the forest on artefacts never seen, the network on scanners never seen),
so their logits are averaged. The score is then 1 minus a logistic function of the damage and the concepts with weights
that cannot be negative: no concept can get worse and the score better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from ai.quality.concepts import CONCEPTS
from ai.quality.scoring import worst_mean

EDGE = 1e-3
"""Damages are kept this far from 0 and 1, where logits are infinite."""

RIDGE = 1e-4
"""Keeps the weights of concepts that say the same from drifting apart."""


def averaged(forest: NDArray[np.float32], network: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the logits of two sets of damages 0..1 of the same shape, as damages."""
    logits = [logit(np.clip(one.astype(np.float64), EDGE, 1 - EDGE)) for one in (forest, network)]
    return np.asarray(expit(np.mean(logits, axis=0)), np.float32)


@dataclass(frozen=True)
class ScoreFunction:
    """``score = 1 - logistic(bias + w0 logit(damage) + sum of w_k concept_k)``, every weight at least 0."""

    bias: float
    damage_weight: float
    concept_weights: tuple[float, ...]

    def __call__(self, damages: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores 0 (worst) to 1 (best), ``[slice]``, of damages ``[slice, 1 + concept]``: the unnamed damage first."""
        return np.asarray(1.0 - expit(self.bias + _terms(damages) @ self._weights), np.float64)

    @property
    def _weights(self) -> NDArray[np.float64]:
        return np.array([self.damage_weight, *self.concept_weights])

    @classmethod
    def fit(
        cls, damages: NDArray[np.float32], similarity: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> "ScoreFunction":
        """Least cross-entropy against the measured similarity, weights at least 0."""
        terms, target = _terms(damages), np.asarray(1.0 - similarity, np.float64)
        share = weights / weights.sum()

        def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            logits = parameters[0] + terms @ parameters[1:]
            error = (expit(logits) - target) * share
            value = float(np.sum(share * (np.logaddexp(0.0, logits) - target * logits)))
            return value + RIDGE * float(parameters[1:] @ parameters[1:]), np.concatenate(
                [[error.sum()], terms.T @ error + 2 * RIDGE * parameters[1:]]
            )

        start = np.array([0.0, 1.0, *np.zeros(len(CONCEPTS))])
        bounds = [(None, None), *[(0.0, None)] * (1 + len(CONCEPTS))]
        best = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
        return cls(float(best[0]), float(best[1]), tuple(float(weight) for weight in best[2:]))

    def document(self) -> dict[str, Any]:
        """The function for JSON."""
        return {
            "bias": self.bias,
            "damage_weight": self.damage_weight,
            "concept_weights": {str(name): weight for name, weight in zip(CONCEPTS, self.concept_weights, strict=True)},
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "ScoreFunction":
        """What ``document`` made. Raises KeyError for a concept that is missing."""
        named = document["concept_weights"]
        return cls(document["bias"], document["damage_weight"], tuple(named[str(concept)] for concept in CONCEPTS))


def _terms(damages: NDArray[np.float32]) -> NDArray[np.float64]:
    kept = np.clip(damages.astype(np.float64), EDGE, 1 - EDGE)
    return np.concatenate([logit(kept[:, :1]), kept[:, 1:]], axis=1)


def series_score(scores: NDArray[np.floating], attention: NDArray[np.floating] | None = None) -> float:
    """Score of a series: half the attention-weighted mean of its slices, half the mean of its worst quarter.

    Monotone: no slice can get worse and the series better. ``attention`` is salience, any scale; equal by default.

    Raises:
        ValueError: no slice.
    """
    if len(scores) == 0:
        raise ValueError("a series without slices has no score")
    weights = np.ones(len(scores)) if attention is None else np.asarray(attention, float)
    return float(0.5 * np.average(scores, weights=weights) + 0.5 * worst_mean(scores))
