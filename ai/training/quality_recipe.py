"""The recipe of the shipped quality bundle: from DICOM folders and seeds to a folder that the node loads.

1. Cases of every real and simulated series (``quality_data``).
2. For each fold of the real patients a forest and a network trained without it; what they say of it tells honestly how
   the concepts make up the score, and how probable a non-diagnostic series is.
3. Forest and network on everything; the envelope of what they were trained on; the card.

Every step is kept below the working folder, so that an interrupted run goes on where it stopped.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ai.quality.definitions import METRICS_VERSION
from ai.quality.forest import FEATURES
from ai.quality.grades import grade, grade_table
from ai.quality.model import (
    ENVELOPE_FILE,
    FOREST_FILE,
    METADATA_FILE,
    NETWORK_FOLDER,
    SCORE_FILE,
    envelope_features,
)
from ai.quality.network.inputs import INPUT_VERSION
from ai.quality.network.weights import save_network
from ai.quality.novelty import Envelope, fit_envelope, save_envelope
from ai.quality.score import ScoreFunction, series_score
from ai.training.quality_cases import SIMULATED, CaseSet, folds
from ai.training.quality_data import DataPlan, build_cases, load_cases
from ai.training.quality_forest import slice_weights
from ai.training.quality_models import Models, train_models
from ai.training.quality_network import Schedule

BUNDLE_VERSION = "1.0.0"
FOLDS = 2
"""Groups of real patients that are held out in turn."""
ENVELOPE_SIMILARITY = 0.85
"""Series at least this similar to their clean selves make up the envelope: damage is not novelty."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out."""

    data: DataPlan
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 1


def train_quality(recipe: Recipe, work: Path, out: Path, processes: int, progress: Progress) -> dict[str, Any]:
    """Make the bundle in ``out`` and return its metadata.

    Args:
        work: folder for what is kept between runs.
        processes: how many series are degraded at once.

    Raises:
        ValueError: too few real patients to hold any out.
    """
    build_cases(recipe.data, work / "cases", processes, progress)
    cases = load_cases(work / "cases")
    score = _score_function(recipe, cases, work, progress)
    progress(f"training on all {len(cases.cases)} series")
    models = train_models(cases, recipe.schedule, recipe.seed, progress, work / "everything.checkpoint")
    metadata = _metadata(recipe, cases)
    _write(out, models, score, cases, metadata)
    return metadata


def _score_function(recipe: Recipe, cases: CaseSet, work: Path, progress: Progress) -> ScoreFunction:
    """How concepts make up the score, fitted to what models say of patients they have not seen."""
    fold = folds(cases.cases, FOLDS)
    if len(set(fold.values())) < FOLDS:
        raise ValueError(f"{len(fold)} real patients: at least {FOLDS} of one vendor are needed to hold any out")
    damages, similarity, weights = [], [], []
    for number in range(FOLDS):
        progress(f"training without fold {number + 1} of {FOLDS}")
        train = cases.where(fold.get(case.patient) != number for case in cases.cases)
        test = cases.where(fold.get(case.patient) == number for case in cases.cases)
        models = train_models(train, recipe.schedule, recipe.seed, progress, work / f"fold-{number}.checkpoint")
        damages.append(models.damages(test))
        similarity.append(test.slices.similarity)
        weights.append(slice_weights(test))
    return ScoreFunction.fit(np.concatenate(damages), np.concatenate(similarity), np.concatenate(weights))


def _write(out: Path, models: Models, score: ScoreFunction, cases: CaseSet, metadata: dict[str, Any]) -> None:
    for file in (FOREST_FILE, METADATA_FILE):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
    models.forest.save(out / FOREST_FILE)
    save_network(out / NETWORK_FOLDER, models.network, METRICS_VERSION)
    (out / SCORE_FILE).write_text(json.dumps(score.document(), indent=2) + "\n", encoding="utf-8")
    save_envelope(out / ENVELOPE_FILE, _envelope(cases))
    (out / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def _envelope(cases: CaseSet) -> Envelope:
    """The envelope of series with little damage."""
    features, patients = [], []
    for number, case in enumerate(cases.cases):
        own = cases.slices.case == number
        if cases.slices.similarity[own].mean() >= ENVELOPE_SIMILARITY:
            features.append(envelope_features(cases.slices.metrics[own]))
            patients.append(case.patient)
    return fit_envelope(np.array(features), patients, FEATURES, METRICS_VERSION)


def _metadata(recipe: Recipe, cases: CaseSet) -> dict[str, Any]:
    """The card: what the bundle is, what it was made of, in which versions."""
    grades = {(number): _grade(cases, number) for number in range(len(cases.cases))}
    mix = Counter((case.family, _origin(case.vendor), grades[number]) for number, case in enumerate(cases.cases))
    return {
        "version": BUNDLE_VERSION,
        "task": "Quality of prostate MR series (axial, sagittal and coronal T2W, DWI); research use",
        "intended_use": "Research. Not a medical device.",
        "authors": "pacsgate",
        "licence": "Apache-2.0",
        "metrics_version": METRICS_VERSION,
        "input_version": INPUT_VERSION,
        "grades_version": grade_table().version,
        "seed": recipe.seed,
        "schedule": asdict(recipe.schedule),
        "series": len(cases.cases),
        "slices": len(cases.slices),
        "real_patients": len({case.patient for case in cases.cases if case.vendor != SIMULATED}),
        "simulated_patients": len({case.patient for case in cases.cases if case.vendor == SIMULATED}),
        "quality_mix": [
            {"family": family, "origin": origin, "grade": name, "series": count}
            for (family, origin, name), count in sorted(mix.items())
        ],
        "labels": "Simulated damage, measured by HaarPSI against the clean image. No human grades.",
        "references": [
            "Xun et al., MedIQA, arXiv 2507.19004",
            "Yang et al., MANIQA, arXiv 2204.08958",
            "Ke et al., LightGBM, NeurIPS 2017",
        ],
    }


def _origin(vendor: str) -> str:
    return SIMULATED if vendor == SIMULATED else f"real, {vendor}"


def _grade(cases: CaseSet, number: int) -> str:
    truth = series_score(cases.slices.similarity[cases.slices.case == number])
    return grade(truth, cases.cases[number].family).name.lower().replace("_", "-")
