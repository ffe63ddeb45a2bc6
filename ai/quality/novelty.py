"""Whether a series is of the kind the assessor was made with: its distance to the training envelope.

Features (image metrics, or a network's embedding) are standardised and whitened with a shrunk covariance (Ledoit and
Wolf, J Multivar Anal 2004;88:365). Two distances: Mahalanobis from the centre (Lee et al., arXiv 1807.03888) and to the
k-th nearest training series (Sun et al., arXiv 2204.06507), which notices gaps inside the cloud. Each is taken in units
of its median on patients that were held out; the larger one counts, and its limit is a quantile on the same patients.

Novel is not bad: it says that no score given here has been tested on such images.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.quality.model_files import UnusableModel, check_version

_Array = NDArray[np.float64]

FORMAT_VERSION = "1"
FOLDS = 5
MINIMUM_PATIENTS = 10
"""Fewest patients an envelope is made from: two held out per fold."""


@dataclass(frozen=True)
class Envelope:
    """What training series look like.

    Attributes:
        names: the features, in order.
        definition: version of the features' definition; other definitions give other distances.
        centre, scale: mean and SD per feature ``[feature]``; the mean also stands in for a missing value.
        whitening: ``[feature, feature]``, turns standardised features into uncorrelated ones of unit variance.
        training: whitened training features ``[series, feature]``.
        neighbours: k of the k-nearest-neighbour distance.
        units: median Mahalanobis and neighbour distance of held-out patients.
        limit: distance above which a series is novel.
        quantile: share of held-out training series within the limit.
        patients: number of training patients.
    """

    names: tuple[str, ...]
    definition: str
    centre: _Array
    scale: _Array
    whitening: _Array
    training: _Array
    neighbours: int
    units: tuple[float, float]
    limit: float
    quantile: float
    patients: int


@dataclass(frozen=True)
class Novelty:
    """How far a series lies from the training series.

    ``distance`` is in medians of held-out training series. ``outlying`` names the features farthest from their training
    mean, with that distance in SD, the farthest first; ``missing`` the features without a value.
    """

    distance: float
    limit: float
    outlying: tuple[tuple[str, float], ...]
    missing: tuple[str, ...]

    @property
    def is_novel(self) -> bool:
        """Whether the series is farther out than the training quantile."""
        return self.distance > self.limit

    @property
    def text(self) -> str:
        """One sentence for people."""
        farthest = ", ".join(f"{name} ({deviation:+.1f} SD)" for name, deviation in self.outlying)
        place = "outside" if self.is_novel else "within"
        figures = f"distance {self.distance:.1f}, limit {self.limit:.1f}"
        return f"{place} what the assessor was tested on ({figures}); farthest: {farthest}"


def fit_envelope(
    features: _Array,
    patients: Sequence[str],
    names: Sequence[str],
    definition: str,
    quantile: float = 0.95,
    neighbours: int = 3,
) -> Envelope:
    """The envelope of training series.

    Args:
        features: ``[series, feature]``, NaN where a value is missing.
        patients: whose each series is; a patient is never measured against itself when units and limit are set.
        names: the features.
        definition: version of their definition.
        quantile: share of series of unseen patients that shall lie within the limit.
        neighbours: k of the nearest-neighbour distance.

    Raises:
        ValueError: sizes differ, there are fewer than MINIMUM_PATIENTS patients, or a feature never has a value.
    """
    features = np.asarray(features, np.float64)
    known = sorted(set(patients))
    if features.shape != (len(patients), len(names)):
        raise ValueError(f"{features.shape} features for {len(patients)} series and {len(names)} names")
    if len(known) < MINIMUM_PATIENTS:
        raise ValueError(f"an envelope needs {MINIMUM_PATIENTS} patients, there are {len(known)}")
    absent = [name for index, name in enumerate(names) if np.isnan(features[:, index]).all()]
    if absent:
        raise ValueError(f"no series has a value of {', '.join(absent)}")
    fold = np.array([known.index(patient) % FOLDS for patient in patients])
    held_out = np.empty((len(features), 2))
    for number in range(FOLDS):
        inside = fold != number
        held_out[~inside] = _distances(features[~inside], *_cloud(features[inside]), neighbours)
    units = np.maximum(np.median(held_out, axis=0), np.finfo(float).tiny)
    centre, scale, whitening, training = _cloud(features)
    return Envelope(
        tuple(names),
        definition,
        centre,
        scale,
        whitening,
        training,
        neighbours,
        (float(units[0]), float(units[1])),
        _conformal_quantile((held_out / units).max(axis=1), quantile),
        quantile,
        len(known),
    )


def novelty(envelope: Envelope, features: _Array, outlying: int = 3) -> Novelty:
    """Where one series ``[feature]`` lies; NaN where a value is missing, which can only bring it nearer.

    Raises:
        ValueError: the number of features is not the envelope's.
    """
    values = np.asarray(features, np.float64)
    if values.shape != envelope.centre.shape:
        raise ValueError(f"{values.shape} features, the envelope has {envelope.centre.shape}")
    cloud = (envelope.centre, envelope.scale, envelope.whitening, envelope.training)
    distances = _distances(values[None], *cloud, envelope.neighbours)[0] / envelope.units
    deviations = _standardised(values[None], envelope.centre, envelope.scale)[0]
    farthest = np.argsort(-np.abs(deviations), kind="stable")[:outlying]
    return Novelty(
        float(distances.max()),
        envelope.limit,
        tuple((envelope.names[index], float(deviations[index])) for index in farthest),
        tuple(name for name, value in zip(envelope.names, values, strict=True) if np.isnan(value)),
    )


def ledoit_wolf(standardised: _Array) -> _Array:
    """Covariance of centred samples ``[sample, feature]``, shrunk towards a multiple of the identity."""
    count, size = standardised.shape
    sample = standardised.T @ standardised / count
    target = np.trace(sample) / size * np.eye(size)
    spread = float(np.sum((sample - target) ** 2))
    uncertainty = float(np.mean(np.sum(standardised**2, axis=1) ** 2) - np.sum(sample**2)) / count
    share = min(max(uncertainty, 0.0) / spread, 1.0) if spread > 0 else 1.0
    return np.asarray((1.0 - share) * sample + share * target)


def save_envelope(path: Path, envelope: Envelope) -> None:
    """Write an envelope as npz (numbers only, nothing that runs)."""
    words = json.dumps({"format": FORMAT_VERSION, "definition": envelope.definition, "names": envelope.names})
    numbers = {
        field.name: np.asarray(getattr(envelope, field.name))
        for field in fields(Envelope)
        if field.name not in ("names", "definition")
    }
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, words=np.frombuffer(words.encode(), np.uint8), **numbers)
    partial.replace(path)


def load_envelope(path: Path, definition: str) -> Envelope:
    """Read an envelope of features of this ``definition``.

    Raises:
        UnusableModel: the file is absent, damaged, or of another format or definition.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            numbers = {name: stored[name] for name in stored.files}
        words = json.loads(numbers.pop("words").tobytes().decode())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UnusableModel(f"{path} is no envelope of training series: {error}") from error
    check_version(path, "file format", words.get("format"), FORMAT_VERSION)
    check_version(path, "metrics", words.get("definition"), definition)
    size = len(words["names"])
    wanted = {field.name for field in fields(Envelope)} - {"names", "definition"}
    if set(numbers) != wanted or numbers["whitening"].shape != (size, size) or numbers["training"].shape[1:] != (size,):
        raise UnusableModel(f"{path} does not hold what an envelope of {size} features needs: copy it again")
    return Envelope(
        tuple(words["names"]),
        words["definition"],
        numbers["centre"],
        numbers["scale"],
        numbers["whitening"],
        numbers["training"],
        int(numbers["neighbours"]),
        (float(numbers["units"][0]), float(numbers["units"][1])),
        float(numbers["limit"]),
        float(numbers["quantile"]),
        int(numbers["patients"]),
    )


def _cloud(features: _Array) -> tuple[_Array, _Array, _Array, _Array]:
    """Centre, scale, whitening and whitened features."""
    known = np.ma.masked_invalid(features)
    centre, scale = known.mean(axis=0).filled(0.0), known.std(axis=0).filled(0.0)
    # What never varied in training has no scale of its own; its unit is as good as any.
    scale = np.where(scale > 0, scale, 1.0)
    standardised = _standardised(features, centre, scale)
    # Imputed values pull the variance down; the covariance of what is used is the one that whitens it.
    values, vectors = np.linalg.eigh(ledoit_wolf(standardised))
    whitening = vectors / np.sqrt(np.maximum(values, np.finfo(float).eps))
    return centre, scale, whitening, standardised @ whitening


def _standardised(features: _Array, centre: _Array, scale: _Array) -> _Array:
    return np.nan_to_num((features - centre) / scale, nan=0.0)


def _distances(
    features: _Array, centre: _Array, scale: _Array, whitening: _Array, training: _Array, neighbours: int
) -> _Array:
    """Mahalanobis and k-th neighbour distance of every row, ``[series, 2]``."""
    whitened = _standardised(features, centre, scale) @ whitening
    pairs = np.linalg.norm(whitened[:, None, :] - training[None, :, :], axis=2)
    rank = min(neighbours, len(training)) - 1
    return np.stack((np.linalg.norm(whitened, axis=1), np.partition(pairs, rank, axis=1)[:, rank]), axis=1)


def _conformal_quantile(distances: _Array, quantile: float) -> float:
    """The quantile with the finite-sample correction of split conformal prediction; at most the largest."""
    rank = min(int(np.ceil((len(distances) + 1) * quantile)), len(distances))
    return float(np.sort(distances)[rank - 1])
