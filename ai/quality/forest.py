"""Gradient-boosted trees over the image metrics: damage of a slice, as a whole and per concept.

Trees over published metrics hold better than a network where the scanner changes, and worse where an artefact was never
seen; the two are averaged (``ai.quality.score``). The trees are LightGBM's own text (Ke et al. 2017), which holds no
code.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
from numpy.typing import NDArray

from ai.quality.concepts import CONCEPTS
from ai.quality.definitions import ARBITRARY, DEFINITIONS, METRIC_NAMES, METRICS_VERSION
from ai.quality.model_files import UnusableModel, check_version

FEATURES = tuple(name for name in METRIC_NAMES if DEFINITIONS[name].unit != ARBITRARY)
"""Metrics that do not depend on the intensity scale."""

FAMILIES = ("t2w", "dwi", "other")
"""Sequence families told apart; the family's number is the last feature."""

DAMAGE = "damage"
OUTPUTS = (DAMAGE, *(str(concept) for concept in CONCEPTS))


@dataclass(frozen=True)
class Forest:
    """One booster per output. ``predict`` is a pure function of its input."""

    boosters: Mapping[str, lightgbm.Booster]

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Damage 0..1 per output, float32 ``[slice, output]`` in the order of ``OUTPUTS``.

        Args:
            features: from ``features_of``.
        """
        columns = [self.boosters[name].predict(features, num_threads=1) for name in OUTPUTS]
        return np.stack(columns, axis=1).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the trees as compressed JSON."""
        document = {
            "metrics_version": METRICS_VERSION,
            "features": FEATURES,
            "trees": {name: booster.model_to_string() for name, booster in self.boosters.items()},
        }
        path.write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))

    @classmethod
    def load(cls, path: Path) -> "Forest":
        """Read what ``save`` wrote.

        Raises:
            UnusableModel: the file is absent or damaged, an output is missing, or the metrics are of another version.
        """
        try:
            document = json.loads(gzip.decompress(path.read_bytes()))
            check_version(path, "metrics", document["metrics_version"], METRICS_VERSION)
            check_version(path, "features", tuple(document["features"]), FEATURES)
            return cls({name: lightgbm.Booster(model_str=document["trees"][name]) for name in OUTPUTS})
        except (OSError, EOFError, ValueError, KeyError, lightgbm.basic.LightGBMError) as error:
            raise UnusableModel(f"{path} is no forest of image metrics: {error}") from error


def features_of(metrics: NDArray[np.float32], families: Sequence[str]) -> NDArray[np.float32]:
    """The features of slices: metrics ``[slice, metric]`` in the order of ``METRIC_NAMES`` and the family's number."""
    chosen = [METRIC_NAMES.index(name) for name in FEATURES]
    numbers = np.array([FAMILIES.index(family) for family in families], np.float32)
    return np.concatenate([metrics[:, chosen], numbers[:, None]], axis=1)
