"""Runs the splits: trains on one side, scores the other, keeps one line per series, model and split.

Lines are kept per split, trainings every few hundred steps, so that an interrupted study goes on where it stopped.
Trainings run beside each other in processes of their own.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ai.evaluation.quality_models import FOREST, Compared, forest_scores, train_compared
from ai.evaluation.quality_splits import SPLITS, Split
from ai.quality.score import series_score
from ai.training.quality_cases import SIMULATED, CaseSet, load_described
from ai.training.quality_data import load_cases
from ai.training.quality_models import checkpoint_file, path_name
from ai.training.quality_network import Schedule

Progress = Callable[[str], None]

RANDOM = "random"
"""Kind of the split that flatters."""


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


@dataclass(frozen=True)
class StudyPlan:
    """What a study runs on.

    Attributes:
        kinds: keys of ``SPLITS``.
        files: cases of our own simulator.
        elsewhere: cases of the other simulators, of the same patients; needed by ``other-simulator`` only.
        kept: folder of trainings and lines (``ai.training.quality_models.training_folder``).
    """

    kinds: tuple[str, ...]
    files: tuple[Path, ...]
    elsewhere: tuple[Path, ...]
    kept: Path
    schedule: Schedule
    seed: int


def run_study(plan: StudyPlan, processes: int, progress: Progress) -> list[ScoredCase]:
    """Every split of the plan in the order of ``SPLITS``, then the random one.

    Args:
        processes: trainings beside each other, one thread each; 1 trains here, with every thread there is.
        progress: told what is being done; a function of a module, for it is called in other processes.

    Raises:
        ValueError: a split has an empty side, or there is none.
    """
    splits = _splits(plan)
    if not splits:
        raise ValueError("no split can be made of so few patients and artefacts")
    trainings = list(dict.fromkeys(split.trained_as for split in splits))
    if processes == 1:
        for name in trainings:
            run_training(plan, name, progress)
    else:
        # Spawned: forking a process that has torch's threads in it can hang.
        with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            for done in as_completed([pool.submit(run_training, plan, name, progress) for name in trainings]):
                done.result()
    hard = [one for split in splits for one in _kept(_lines_file(plan.kept, split.name))]
    return hard + run_random(plan, progress)


def run_training(plan: StudyPlan, trained_as: str, progress: Progress) -> None:
    """Train once and score the tests of every split that shares the training, unless their lines are there."""
    wanted = [split for split in _splits(plan) if split.trained_as == trained_as]
    shared = [split for split in wanted if not _lines_file(plan.kept, split.name).exists()]
    if not shared:
        return
    ours = load_cases(plan.files)
    elsewhere = load_cases(plan.elsewhere) if any(split.elsewhere for split in shared) else None
    train = ours.where(shared[0].train(case) for case in ours.cases)
    tests = [(split, _tests(split, elsewhere if elsewhere and split.elsewhere else ours)) for split in shared]
    for split, own in tests:
        _check(split, train, [cases for _, cases in own])
    progress(f"{trained_as}: {len(train.cases)} series to train on")
    told = _named(trained_as, progress)
    compared = train_compared(train, plan.schedule, plan.seed, told, checkpoint_file(plan.kept, trained_as))
    for split, own in tests:
        _keep(_lines_file(plan.kept, split.name), _scored(split, own, compared))


def _splits(plan: StudyPlan) -> list[Split]:
    cases = [case for path in plan.files for case in load_described(path)]
    return [split for kind, make in SPLITS.items() if kind in plan.kinds for split in make(cases)]


def _named(name: str, progress: Progress) -> Progress:
    return lambda text: progress(f"{name}: {text}")


def _tests(split: Split, cases: CaseSet) -> list[tuple[str, CaseSet]]:
    return [(name, cases.where(wanted(case) for case in cases.cases)) for name, wanted in split.tests]


def run_random(plan: StudyPlan, progress: Progress) -> list[ScoredCase]:
    """The split that flatters, by the forest alone: half of all series at random, so that the other half holds the same
    patients, scanners and artefacts."""
    path = _lines_file(plan.kept, RANDOM)
    if not path.exists():
        progress("random halves, which flatter: metric forest")
        cases = load_cases(plan.files)
        first = np.random.default_rng([plan.seed, 19]).random(len(cases.cases)) < 0.5
        real = np.array([case.vendor != SIMULATED for case in cases.cases])
        train, test = cases.where(first), cases.where(~first & real)
        scores = forest_scores(train, test, plan.seed)
        _keep(path, _lines("random halves", RANDOM, "all patients", FOREST, test, scores))
    return list(_kept(path))


def _lines_file(folder: Path, name: str) -> Path:
    return folder / f"{path_name(name)}.jsonl"


def _kept(path: Path) -> Iterator[ScoredCase]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield ScoredCase(**json.loads(line))


def _keep(path: Path, scored: Iterable[ScoredCase]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(one)) + "\n" for one in scored), encoding="utf-8")
    partial.replace(path)


def _check(split: Split, train: CaseSet, tests: Sequence[CaseSet]) -> None:
    if not train.cases or not all(test.cases for test in tests):
        raise ValueError(f"split {split.name!r} has an empty side: more series are needed")
    seen = {case.patient for case in train.cases}
    both = sorted(seen & {case.patient for test in tests for case in test.cases})
    if both:
        raise ValueError(f"split {split.name!r} trains and tests on {', '.join(both)}")


def _scored(split: Split, tests: Sequence[tuple[str, CaseSet]], compared: Compared) -> Iterator[ScoredCase]:
    for name, cases in tests:
        for model, scores in compared.scores(cases).items():
            yield from _lines(split.name, split.kind, name, model, cases, scores)


def _lines(
    split: str, kind: str, test: str, model: str, cases: CaseSet, scores: NDArray[np.float64]
) -> Iterator[ScoredCase]:
    for number, case in enumerate(cases.cases):
        own = cases.slices.case == number
        yield ScoredCase(
            split,
            kind,
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
            series_score(scores[own]),
        )
