"""Runs the splits: trains on one side, scores the other, keeps one line per series, model and split.

Lines are written as they come, so that an interrupted study goes on where it stopped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.evaluation.quality_models import train_compared
from ai.evaluation.quality_splits import Split
from ai.quality.score import series_score
from ai.training.quality_cases import CaseSet
from ai.training.quality_network import Schedule


@dataclass(frozen=True)
class ScoredCase:
    """One series of a test: what it is, how similar to its clean self, and what a model said.

    ``truth`` pools the slices' HaarPSI as ``score`` pools their scores.
    """

    split: str
    kind: str
    test: str
    model: str
    substrate: str
    patient: str
    vendor: str
    family: str
    artifact: str
    severity: float
    simulator: str
    truth: float
    score: float


def run_split(
    split: Split,
    train_on: CaseSet,
    test_on: CaseSet,
    schedule: Schedule,
    seed: int,
    work: Path,
    progress: Callable[[str], None],
) -> list[ScoredCase]:
    """The scored cases of one split; taken from ``work`` where it was run before.

    Raises:
        ValueError: a side of the split is empty, or shares a series with the other.
    """
    kept = work / f"{_file_name(split.name)}.jsonl"
    if kept.exists():
        return [ScoredCase(**json.loads(line)) for line in kept.read_text(encoding="utf-8").splitlines()]
    chosen = train_on.where(split.train(case) for case in train_on.cases)
    tests = [(name, test_on.where(wanted(case) for case in test_on.cases)) for name, wanted in split.tests]
    _check(split, chosen, [cases for _, cases in tests])
    progress(f"{split.name}: {len(chosen.cases)} series to train on")
    models = train_compared(chosen, schedule, seed, progress, work / f"{_file_name(split.name)}.checkpoint")
    scored = [one for name, cases in tests for one in _scored(split, name, cases, models.scores(cases))]
    partial = kept.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(one)) + "\n" for one in scored), encoding="utf-8")
    partial.replace(kept)
    return scored


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _check(split: Split, train: CaseSet, tests: Sequence[CaseSet]) -> None:
    if not train.cases or not all(test.cases for test in tests):
        raise ValueError(f"split {split.name!r} has an empty side: more series are needed")
    seen = {case.patient for case in train.cases}
    both = sorted(seen & {case.patient for test in tests for case in test.cases})
    if both:
        raise ValueError(f"split {split.name!r} trains and tests on {', '.join(both)}")


def _scored(split: Split, test: str, cases: CaseSet, scores: dict[str, NDArray[np.float64]]) -> Iterator[ScoredCase]:
    rows = [np.flatnonzero(cases.slices.case == number) for number in range(len(cases.cases))]
    for model, values in scores.items():
        for case, own in zip(cases.cases, rows, strict=True):
            yield ScoredCase(
                split.name,
                split.kind,
                test,
                model,
                case.substrate,
                case.patient,
                case.vendor,
                case.family,
                case.artifact,
                case.severity,
                case.simulator,
                series_score(cases.slices.similarity[own]),
                series_score(values[own]),
            )
