"""The cases on disk: one file per series, made once, in parallel; an interrupted run goes on where it stopped."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import structlog

from ai.quality.definitions import METRICS_VERSION
from ai.quality.network.inputs import INPUT_VERSION
from ai.training.quality_cases import SIMULATED, CaseSet, join, load, save
from ai.training.quality_sampler import sample
from ai.training.substrates import CleanSeries, real_series, simulated_series, variant

log = structlog.get_logger(__name__)

CASES_FOLDER = "cases"
"""Below the working folder; training and evaluation share it."""
SUFFIX = ".cases.npz"


@dataclass(frozen=True)
class DataPlan:
    """What the cases are made of.

    Attributes:
        folders: DICOM folders with real series.
        simulated: number of simulated patients, seeds ``FIRST_SEED`` and up.
        variants: variants of every real series, besides itself.
        seed: of the variants and corruptions.
    """

    folders: tuple[Path, ...] = ()
    simulated: int = 16
    variants: int = 1
    seed: int = 1


FIRST_SEED = 1000
"""Simulated patients of the training set; evaluation of verdicts on simulated studies uses seeds below."""


@dataclass(frozen=True)
class Job:
    """A file of cases to be made: ``make(*arguments)`` in another process, unless the file is there."""

    name: str
    path: Path
    make: Callable[..., CaseSet]
    arguments: tuple[Any, ...]

    def run(self) -> str:
        """Make the file and return what to tell of it."""
        try:
            cases = self.make(*self.arguments)
        except ValueError as reason:
            log.info("series not used", series=self.name, reason=str(reason))
            return f"{self.name} not used: {reason}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save(self.path, cases)
        return self.name


def build_cases(plan: DataPlan, work: Path, processes: int, progress: Callable[[str], None]) -> list[Path]:
    """Make every file of the plan that is not below ``work`` yet, and return those of the plan."""
    return run_jobs(_jobs(plan, work), processes, progress)


def _jobs(plan: DataPlan, work: Path) -> Iterator[Job]:
    for seed in range(FIRST_SEED, FIRST_SEED + plan.simulated):
        name = f"{SIMULATED}-{seed}"
        yield Job(name, case_file(work, name), _simulated, (seed,))
    for number, series in enumerate(real_series(plan.folders)):
        for change in range(plan.variants + 1):
            seed = 10_000 * plan.seed + 100 * number + change
            name = f"{series.name}#{change}"
            yield Job(name, case_file(work, name), _real, (series, seed if change else None, seed))


def _simulated(seed: int) -> CaseSet:
    return join([sample(series, seed) for series in simulated_series([seed])])


def _real(series: CleanSeries, change: int | None, seed: int) -> CaseSet:
    return sample(series if change is None else variant(series, change), seed)


def case_file(work: Path, name: str) -> Path:
    """The file of a series; names hold identifiers, so they are hashed, with the versions of what is computed."""
    key = hashlib.sha256(f"{name}|{METRICS_VERSION}|{INPUT_VERSION}".encode()).hexdigest()[:16]
    return work / f"{key}{SUFFIX}"


def run_jobs(jobs: Iterable[Job], processes: int, progress: Callable[[str], None]) -> list[Path]:
    """Make the files that are missing, ``processes`` at once, and return those that are there then, by name.

    A series that cannot be taken back to raw data is left out with a log line.
    """
    paths = []
    # Workers are spawned: forking a process that has torch's threads in it can hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = []
        for job in jobs:
            paths.append(job.path)
            if not job.path.exists():
                waiting.append(pool.submit(job.run))
        for number, future in enumerate(as_completed(waiting), start=1):
            progress(f"cases {number} of {len(waiting)}: {future.result()}")
    return sorted(path for path in paths if path.exists())


def load_cases(files: Sequence[Path]) -> CaseSet:
    """The cases of some files, in their order. Raises ValueError where there is none."""
    return join([load(path) for path in files])
