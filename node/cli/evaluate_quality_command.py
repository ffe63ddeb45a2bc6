"""The command ``pacsgate evaluate quality``: the learned quality model on what it has never seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.optional import need_modules
from node.cli.options import JsonOption
from node.cli.output import print_json, print_table, print_text, progress, refuse
from node.cli.recipe_options import (
    STEPS,
    DataOption,
    ProcessesOption,
    SeedOption,
    SimulatedOption,
    StepsOption,
    WorkOption,
    recipe_of,
)

if TYPE_CHECKING:
    from ai.evaluation.quality_tables import Overview, Row
    from ai.evaluation.statistics import Estimate

ALL_SPLITS = "vendor,artefact,other-simulator,patient"


def quality(
    data: DataOption,
    work: WorkOption,
    out: Annotated[
        Path, typer.Option("--out", help="folder for study.json and figures", file_okay=False, show_default=False)
    ],
    splits: Annotated[str, typer.Option("--splits", help="which, with commas between")] = ALL_SPLITS,
    simulated: SimulatedOption = 16,
    seed: SeedOption = 1,
    steps: StepsOption = STEPS,
    processes: ProcessesOption = 1,
    json: JsonOption = False,
) -> None:
    """The learned quality model on vendors, artefacts, simulators and patients it was not trained on.

    Takes the recipe of `pacsgate train quality` apart: trains it once for each split, with the same options and the
    same --work, and tests it on what was left out. The hardest splits come first: a new vendor, artefacts never seen,
    images damaged by other simulators (TorchIO, MONAI), new patients. A random split stands beside them to show how
    much it flatters.

    Compared are a model that sees the header only, the forest over image metrics, the network, and both together.
    Damage is simulated and graded by its HaarPSI: the figures do not tell how far the model agrees with radiologists.

    Eight trainings of about ten minutes each on one core; --processes runs them beside each other, and about 4 GB of
    memory go to each. Whatever is finished is kept in --work: an interrupted study goes on where it stopped.
    """
    need_modules("ai,codecs", "torch", "lightgbm", "sklearn")
    need_modules("research", "matplotlib", "torchio")
    from ai.evaluation.quality_document import LIMITS, study_document
    from ai.evaluation.quality_figures import write_figures
    from ai.evaluation.quality_montage import write_montages
    from ai.evaluation.quality_prepare import prepare
    from ai.evaluation.quality_study import run_study
    from ai.evaluation.quality_tables import overviews, rows

    kinds = [name.strip() for name in splits.split(",") if name.strip()]
    try:
        plan = prepare(recipe_of(data, simulated, seed, steps), kinds, work, processes, progress)
        scored = run_study(plan, processes, progress)
    except ValueError as error:
        refuse(str(error))
    document = study_document(plan, scored)
    out.mkdir(parents=True, exist_ok=True)
    figures = [*write_figures(scored, out), *write_montages(plan, out)]
    _write_json(out / "study.json", document)
    if json:
        print_json(document)
        return
    print_tables(rows(scored))
    print_overviews(overviews(rows(scored)))
    print_text(f"Figures: {', '.join(path.name for path in figures)} and study.json in {out}")
    print_text(LIMITS)


def _write_json(path: Path, document: object) -> None:
    import orjson

    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def print_tables(table: Sequence["Row"]) -> None:
    """A table per kind of split; what has no good or no bad series is named and left out."""
    from ai.evaluation.quality_figures import KIND_NAMES

    for kind in dict.fromkeys(row.kind for row in table):
        own = [row for row in table if row.kind == kind]
        told = [row for row in own if row.area_under_roc.value is not None]
        print_table(
            f"Simulated damage, {KIND_NAMES[kind]}: series called non-diagnostic by HaarPSI against the others",
            (
                "test",
                "family",
                "model",
                "patients",
                "series (bad, good)",
                "AUC",
                "order (SROCC)",
                "bad found at 10 % of good reviewed",
                "order broken",
            ),
            [_cells(row) for row in told],
        )
        for test, family in dict.fromkeys((row.test, row.family) for row in own if row not in told):
            print_text(f"{KIND_NAMES[kind]}: {test}, {family} has no series of one class and is left out")


def _cells(row: "Row") -> tuple[str, ...]:
    fold = row.split.rpartition(", ")[2] if row.split.endswith(("fold 1", "fold 2")) else ""
    return (
        f"{row.test}, {fold}" if fold else row.test,
        row.family,
        row.model,
        str(row.area_under_roc.studies),
        f"{row.series} ({row.bad}, {row.clean})",
        _interval(row.area_under_roc),
        _interval(row.rank_correlation),
        _interval(row.sensitivity),
        _percent(row.monotonicity_violations),
    )


def print_overviews(table: Sequence["Overview"]) -> None:
    """Every kind of split in a line per model, beside what had been asked for."""
    from ai.evaluation.quality_figures import KIND_NAMES
    from ai.evaluation.quality_tables import BARS, MONOTONICITY_BAR

    lines = []
    for one in table:
        bar = BARS.get(one.kind)
        lines.append(
            (
                KIND_NAMES[one.kind],
                one.model,
                str(one.tests),
                _beside(one.mean_area, None if bar is None else bar.area_under_roc),
                f"{one.worst_area:.2f} ({one.worst_test})",
                _beside(one.mean_rank_correlation, None if bar is None else bar.rank_correlation),
                _beside(one.mean_sensitivity, None if bar is None else bar.sensitivity),
                _percent(one.mean_monotonicity_violations),
            )
        )
    print_table(
        "Means over tests; in brackets what was asked for before training",
        ("split", "model", "tests", "AUC", "worst AUC", "order (SROCC)", "bad found", "order broken"),
        lines,
    )
    print_text(
        "Order broken: pairs of one series and artefact that the score puts the wrong way round; "
        f"{MONOTONICITY_BAR:.0%} was asked for. Intervals: 95 %, bootstrap over patients; few patients make them rough."
    )


def _interval(estimate: "Estimate") -> str:
    if estimate.value is None:
        return ""
    interval = "" if estimate.low is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f}{interval}"


def _beside(value: float | None, asked: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if asked is None else f"{value:.2f} ({asked:.2f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
