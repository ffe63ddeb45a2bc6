"""The commands ``pacsgate train``: recipes that learn from images; calibrate fits the quality score to a site."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.optional import need_ai, need_modules
from node.cli.options import JsonOption
from node.cli.output import complain, print_json, print_table, print_text, progress, refuse
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
    from ai.quality.calibration import Calibration
    from node.commissioning import Scored

PathsArgument = Annotated[
    list[Path], typer.Argument(help="DICOM files or folders with the series", exists=True, show_default=False)
]

MUCH_REVIEW = 0.5
"""Share of series called limited from which on a verdict helps nobody."""

PLANNED = {
    "encoder": "masked pre-training of the 3-D foundation encoder",
    "gland": "gland and zone segmenter",
    "detector": "lesion detector on the encoder",
}
"""Recipes that are not in this version: listed, so that nobody looks for them."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    train = typer.Typer(invoke_without_command=True, help="Make models and calibrations of images.")
    train.callback()(recipes)
    train.command()(grading_sheet)
    train.command()(calibrate)
    train.command()(quality)
    app.add_typer(train, name="train")


def recipes(context: typer.Context) -> None:
    """Make models and calibrations of images. Without a recipe: list them."""
    if context.invoked_subcommand is not None:
        return
    print_text("Recipes of this version (pacsgate train RECIPE --help tells more):")
    print_text("  grading-sheet: list the series of some studies for people to grade")
    print_text("  calibrate: fit the quality score to series your site has graded")
    print_text("  quality: the learned quality model, from good series and simulated damage")
    print_text("Planned:")
    for name, what in PLANNED.items():
        print_text(f"  {name}: {what}")


def grading_sheet(
    paths: PathsArgument,
    out: Annotated[Path, typer.Option("--out", help="CSV file to write", dir_okay=False)],
) -> None:
    """List the series of some studies in a CSV file, with an empty column for the grade.

    Fill in 1 (non-diagnostic), 2 (limited) or 3 (diagnostic); a line left empty is not used. The sheet shows no score,
    because who grades must not know it. It holds patient IDs: keep it where patient data may be.
    """
    need_ai("sklearn")
    from node.commissioning import write_sheet
    from node.offline import read_folder

    _check_new(out)
    folder = read_folder(paths, progress)
    print_text(f"{write_sheet(out, folder.studies)} series of {len(folder.studies)} studies are listed in {out}")


def calibrate(
    labels: Annotated[Path, typer.Argument(help="CSV file with the grades", metavar="LABELS.csv", show_default=False)],
    paths: PathsArgument,
    by: Annotated[str, typer.Option("--by", help="who graded and answers for it; stands in every result")],
    out: Annotated[Path, typer.Option("--out", help="file for the commissioning record", dir_okay=False)],
    name: Annotated[
        str, typer.Option("--name", help="what to call it, for example site and scanner; default: OUT")
    ] = "",
    note: Annotated[str, typer.Option("--note", help="anything a later reader should know")] = "",
    alpha: Annotated[
        float,
        typer.Option("--alpha", help="error rate to aim at; 0.1 needs 9 patients of each class, 0.05 needs 19"),
    ] = 0.1,
    prevalence: Annotated[
        float | None,
        typer.Option("--prevalence", help="share of non-diagnostic series in your clinic, if bad ones were collected"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Fit the quality score to grades of your own site, and write a commissioning record.

    LABELS.csv is a filled-in sheet of `pacsgate train grading-sheet`, or any CSV file with a head line and the columns
    series_instance_uid, grade and, if the headers have no Patient ID, patient. Grades: 1 non-diagnostic, 2 limited,
    3 diagnostic, or these words.

    Every family of sequences (t2w, dwi, diffusion-map, t1w) is calibrated on its own and needs enough patients with a
    non-diagnostic series and enough with others. Figures come from patients that the calibration in question has not
    seen. The node uses the record once the option calibration of section quality names it and it is restarted.
    docs/commissioning.md leads through it.
    """
    need_ai("sklearn")
    from ai.quality.calibration import CalibrationError
    from ai.quality.commissioning import fit
    from node.commissioning import LabelError, read_labels, score_labels
    from node.offline import read_folder

    _check_new(out)
    if not by.strip():
        refuse("--by is empty: somebody answers for a calibration")
    try:
        grades = read_labels(labels)
        folder = read_folder(paths, progress)
        for path, reason in folder.refused.items():
            progress(f"not used: {path.name}: {reason}")
        scored = score_labels(grades, folder.studies, progress)
        for uid, reason in scored.without_score.items():
            complain(f"graded series {uid} has no score: {reason}")
        made = fit(scored.graded, name=name or out.stem, by=by.strip(), note=note, alpha=alpha, prevalence=prevalence)
    except (LabelError, CalibrationError) as error:
        refuse(str(error))
    made.save(out)
    if json:
        print_json({**_document(made), "without_score": scored.without_score})
    else:
        _print(made, scored, out)


def quality(
    data: DataOption,
    work: WorkOption,
    out: Annotated[Path, typer.Option("--out", help="folder for the bundle", file_okay=False, show_default=False)],
    simulated: SimulatedOption = 16,
    seed: SeedOption = 1,
    steps: StepsOption = STEPS,
    processes: ProcessesOption = 1,
    json: JsonOption = False,
) -> None:
    """Train the learned quality model and write its bundle.

    Needs no grades. It takes good examinations (T2-weighted in three planes, DWI; headers in order, nothing missing) of
    as many scanners as can be had, at least two patients of one vendor, and damages copies of them in k-space: motion,
    ghosts, noise, blur, spikes, wrap-around, bias, distortion. What it learns is how far a slice has come from the good
    one (HaarPSI); no radiologist has graded any of it. Bad examinations in --data would teach it that bad is good.

    About an hour on two cores for ten patients and 16 simulated ones, most of it damaging the series once; --processes
    does that beside each other, and a graphics processor is used where there is one. Everything is kept in --work: an
    interrupted run goes on where it stopped, and `pacsgate evaluate quality` with the same options uses it too.

    Figures come from there, not from here: the bundle is trained on all patients, and nothing is left to test it on.
    """
    need_modules("ai,codecs", "torch", "lightgbm", "sklearn")
    from ai.quality.model import METADATA_FILE
    from ai.training.quality_recipe import train_quality

    if (out / METADATA_FILE).exists():
        refuse(f"{out} holds a bundle already and is never overwritten: choose another folder")
    try:
        metadata = train_quality(recipe_of(data, simulated, seed, steps), work, out, processes, progress)
    except ValueError as error:
        refuse(str(error))
    if json:
        print_json(metadata)
    else:
        _print_bundle(metadata, out)


def _print_bundle(metadata: Mapping[str, Any], out: Path) -> None:
    print_table(
        "Trained on",
        ("family", "origin", "grade", "series"),
        [(one["family"], one["origin"], one["grade"], one["series"]) for one in metadata["quality_mix"]],
    )
    print_text(
        f"{metadata['real_patients']} real and {metadata['simulated_patients']} simulated patients, "
        f"{metadata['slices']} slices. {metadata['labels']}"
    )
    print_text(f"Bundle {metadata['version']}: {out}. Figures: pacsgate evaluate quality with the same data and work.")


def _check_new(out: Path) -> None:
    """Refuse before the work is done what could not be written after it."""
    if out.exists():
        refuse(f"{out} exists and is never overwritten: choose another name")
    if not os.access(out.parent, os.W_OK):
        refuse(f"{out} cannot be written: {out.parent} is no folder that is open to us")


def _document(made: "Calibration") -> dict[str, Any]:
    families = {
        name: {"method": one.method, "limited_at": one.limited_at, "non_diagnostic_at": one.non_diagnostic_at}
        | {"figures": one.figures}
        for name, one in made.families.items()
    }
    return {"calibration": made.stamp.__dict__, "families": families, "refused": dict(made.refused)}


def _print(made: "Calibration", scored: "Scored", out: Path) -> None:
    figures = {name: family.figures for name, family in made.families.items()}
    for family, reason in made.refused.items():
        print_text(f"{family} is not calibrated and keeps the cut points as shipped: {reason}")
    if scored.without_score:
        print_text(f"{len(scored.without_score)} graded series have no score and were left out; reasons above")
    print_table(
        "Graded series",
        ("family", "series", "patients", "1/2/3", "AUC", "found in 10 % review"),
        [_discrimination(name, own) for name, own in figures.items()],
    )
    _print_fits("Verdicts on patients not used for them (cross-fitted): what to expect", figures, "held_out")
    _print_fits("On the patients fitted to: flatters, for comparison only", figures, "fitted")
    print_table(
        "Thresholds",
        ("family", "curve", "limited from P", "non-diagnostic from P"),
        [(n, f.method, f"{f.limited_at:.2f}", f"{f.non_diagnostic_at:.2f}") for n, f in made.families.items()],
    )
    for family, own in figures.items():
        review = own["held_out"]["review"]
        if review is not None and review > MUCH_REVIEW:
            print_text(
                f"{family}: {review:.0%} of the series would be called limited: at this error rate the score tells too "
                "little of them. Grade more, accept more errors (--alpha), or leave the family ungraded."
            )
    print_text(made.guarantee)
    print_text(f"Record: {out} ({made.stamp})")
    print_text(f'To use it: [quality] calibration = "{out.absolute()}" in the configuration, then restart the node.')


def _discrimination(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        str(figures["series"]),
        str(figures["patients"]),
        "/".join(str(count) for count in figures["grades"].values()),
        _estimate(figures["area_under_roc"]),
        _estimate(figures["sensitivity_at_10_percent_review"]),
    )


def _print_fits(title: str, figures: Mapping[str, Mapping[str, Any]], which: str) -> None:
    columns = ("family", "Brier", "calibration error", "missed", "condemned", "limited", "kappa")
    print_table(title, columns, [_fit(name, own[which]) for name, own in figures.items()])


def _fit(name: str, fit: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = "too few patients"
    return (
        name,
        _number(fit["brier"]),
        _number(fit["calibration_error"]),
        _estimate(fit["missed"]) if fit["missed"] else unknown,
        _estimate(fit["condemned"]) if fit["condemned"] else unknown,
        unknown if fit["review"] is None else f"{fit['review']:.0%}",
        _number(fit["kappa"]),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _estimate(document: Mapping[str, Any]) -> str:
    from ai.evaluation.statistics import Estimate

    return str(Estimate(**document))
