"""What a study of splits needs before it can train: the cases of the recipe, and those of the other simulators."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ai.evaluation.quality_splits import SPLITS
from ai.evaluation.quality_study import StudyPlan
from ai.training.quality_cases import check_patients
from ai.training.quality_data import CASES_FOLDER, Job, build_cases, case_file, load_cases, run_jobs
from ai.training.quality_models import training_folder
from ai.training.quality_recipe import Recipe
from ai.training.substrates import real_patients, real_series

ELSEWHERE_FOLDER = "elsewhere"
"""Cases of the other simulators, below the working folder."""


def prepare(
    recipe: Recipe, kinds: Sequence[str], work: Path, processes: int, progress: Callable[[str], None]
) -> StudyPlan:
    """Make the cases that are missing below ``work``, which the recipe's training shares.

    Raises:
        ValueError: an unknown kind of split, no series, or too few patients.
        ImportError: ``other-simulator`` is wanted and TorchIO is not installed.
    """
    if unknown := sorted(set(kinds) - set(SPLITS)):
        raise ValueError(f"unknown split {', '.join(unknown)}; there are {', '.join(SPLITS)}")
    check_patients(real_patients(recipe.data.folders))
    files = build_cases(recipe.data, work / CASES_FOLDER, processes, progress)
    elsewhere = []
    if "other-simulator" in kinds:
        elsewhere = run_jobs(_elsewhere_jobs(recipe, work / ELSEWHERE_FOLDER), processes, progress)
    kept = training_folder(work, load_cases(files), recipe.schedule, recipe.seed)
    kept.mkdir(parents=True, exist_ok=True)
    return StudyPlan(tuple(kinds), tuple(files), tuple(elsewhere), kept, recipe.schedule, recipe.seed)


def _elsewhere_jobs(recipe: Recipe, folder: Path) -> Iterator[Job]:
    from ai.evaluation.other_simulators import sample_elsewhere  # TorchIO: of the extra research

    for number, series in enumerate(real_series(recipe.data.folders)):
        name = f"{series.name}#elsewhere"
        yield Job(name, case_file(folder, name), sample_elsewhere, (series, 10_000 * recipe.data.seed + 100 * number))
