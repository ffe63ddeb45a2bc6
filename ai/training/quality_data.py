"""The cases on disk: one file per series, made once, in parallel; an interrupted run goes on where it stopped."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import structlog

from ai.quality.definitions import METRICS_VERSION
from ai.quality.network.inputs import INPUT_VERSION
from ai.training.quality_cases import SIMULATED, CaseSet, join, load, save
from ai.training.quality_sampler import sample
from ai.training.substrates import CleanSeries, real_series, simulated_series, variant

log = structlog.get_logger(__name__)

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


def build_cases(plan: DataPlan, work: Path, processes: int, progress: Callable[[str], None]) -> None:
    """Make every file of the plan that is not below ``work`` yet.

    A series that cannot be taken back to raw data is left out with a log line.
    """
    work.mkdir(parents=True, exist_ok=True)
    # Workers are spawned: forking a process that has torch's threads in it can hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = list(_submitted(plan, work, pool))
        for number, future in enumerate(as_completed(waiting), start=1):
            progress(f"cases {number} of {len(waiting)}: {future.result()}")


def _submitted(plan: DataPlan, work: Path, pool: ProcessPoolExecutor) -> Iterator[Future[str]]:
    for seed in range(FIRST_SEED, FIRST_SEED + plan.simulated):
        yield pool.submit(_simulated_file, seed, work)
    for number, series in enumerate(real_series(plan.folders)):
        for change in range(plan.variants + 1):
            seed = 10_000 * plan.seed + 100 * number + change
            path = _file(work, f"{series.name}#{change}")
            if not path.exists():
                yield pool.submit(_real_file, series, seed if change else None, seed, path)


def _file(work: Path, name: str) -> Path:
    """The file of a series; names hold identifiers, so they are hashed, with the versions of what is computed."""
    key = hashlib.sha256(f"{name}|{METRICS_VERSION}|{INPUT_VERSION}".encode()).hexdigest()[:16]
    return work / f"{key}{SUFFIX}"


def _real_file(series: CleanSeries, change: int | None, seed: int, path: Path) -> str:
    changed = series if change is None else variant(series, change)
    try:
        cases = sample(changed, seed)
    except ValueError as reason:
        log.info("series not used", series=changed.name, reason=str(reason))
        return f"{changed.name} not used: {reason}"
    save(path, cases)
    return changed.name


def _simulated_file(seed: int, work: Path) -> str:
    path = _file(work, f"{SIMULATED}-{seed}")
    if not path.exists():
        save(path, join([sample(series, seed) for series in simulated_series([seed])]))
    return f"{SIMULATED}-{seed}"


def load_cases(work: Path) -> CaseSet:
    """All cases below a folder, in the order of the file names.

    Raises:
        ValueError: there are none.
    """
    files: Sequence[Path] = sorted(work.glob(f"*{SUFFIX}"))
    if not files:
        raise ValueError(f"no cases below {work}: make them first (pacsgate train quality)")
    return join([load(path) for path in files])
