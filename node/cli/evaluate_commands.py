"""The commands ``pacsgate evaluate``: rules and reference detector on simulated studies, learned models on splits."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.evaluate_quality_command import quality
from node.cli.optional import need_ai
from node.cli.options import JsonOption
from node.cli.output import print_json, print_table, print_text, progress, refuse

if TYPE_CHECKING:
    from ai.evaluation.detection import DetectionSummary
    from ai.evaluation.detector_loss import LossSummary
    from ai.evaluation.distortion import DistortionSummary
    from ai.evaluation.quality_summary import ArtifactSummary, QualitySummary
    from ai.evaluation.statistics import Estimate

SIMULATED = "Simulated studies, made and judged by the same project. No clinical result. Research use only."

SeedsOption = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="simulated patients")]
FirstSeedOption = Annotated[int, typer.Option("--first-seed", min=0, help="seed of the first one; the others follow")]
ArtifactsOption = Annotated[str, typer.Option("--artifacts", help="names with commas between; default: all")]
SpacingOption = Annotated[
    float, typer.Option("--anatomy-mm", min=0.2, max=2.0, help="grid of the anatomy in plane; coarser is faster")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    evaluate = typer.Typer(
        no_args_is_help=True,
        help="Measure what this version's algorithms do, on simulated studies and on real ones with simulated damage. "
        "Every figure of the model cards comes from these commands. Against grades of your own readers: "
        "pacsgate train calibrate.",
    )
    evaluate.command()(quality)
    evaluate.command()(verdicts)
    evaluate.command()(distortion)
    evaluate.command()(detection)
    evaluate.command()(detector_loss)
    app.add_typer(evaluate, name="evaluate")


def verdicts(
    seeds: SeedsOption = 2,
    first_seed: FirstSeedOption = 100,
    artifacts: ArtifactsOption = "",
    clean_seeds: Annotated[
        int, typer.Option("--clean-seeds", min=0, max=1000, help="further patients, clean only")
    ] = 8,
    full: Annotated[bool, typer.Option("--full", help="all slices; default: half of them, twice as thick")] = False,
    anatomy_mm: SpacingOption = 0.4,
    json: JsonOption = False,
) -> None:
    """The quality rules: verdicts per artefact and severity, and what clean series are called."""
    need_ai()
    from ai.evaluation.quality import SHORT_PROTOCOLS, evaluate_quality
    from ai.evaluation.quality_summary import summarise
    from ai.evaluation.simulated import FULL_PROTOCOLS, Simulator
    from ai.simulation.artifacts import ARTIFACTS

    simulator = Simulator(FULL_PROTOCOLS if full else SHORT_PROTOCOLS, (1.0, anatomy_mm, anatomy_mm))
    names = _names(artifacts) or list(ARTIFACTS)
    last = first_seed + seeds
    try:
        records = evaluate_quality(range(first_seed, last), names, range(last, last + clean_seeds), simulator, progress)
        summary = summarise(records)
    except ValueError as error:
        refuse(str(error))
    if json:
        print_json(summary.document())
    else:
        _print_verdicts(summary, seeds)


def distortion(
    seeds: SeedsOption = 4,
    first_seed: FirstSeedOption = 100,
    anatomy_mm: SpacingOption = 0.6,
    json: JsonOption = False,
) -> None:
    """Distortion of diffusion images: the measured shift against the true one of the simulated field."""
    need_ai()
    from ai.evaluation.distortion import evaluate_distortion, summarise

    spacing_mm = (1.0, anatomy_mm, anatomy_mm)
    summary = summarise(list(evaluate_distortion(range(first_seed, first_seed + seeds), spacing_mm, progress)))
    if json:
        print_json(summary.document())
    else:
        _print_distortion(summary)


def detection(
    seeds: SeedsOption = 8,
    first_seed: FirstSeedOption = 100,
    zone: Annotated[str, typer.Option("--zone", help="where lesions lie: peripheral or transition")] = "peripheral",
    anatomy_mm: SpacingOption = 0.4,
    json: JsonOption = False,
) -> None:
    """The reference detector: lesions hit, false marks per study, overlap of the prostate region."""
    need_ai()
    from ai.evaluation.detection import evaluate_detection, summarise
    from ai.evaluation.simulated import Simulator
    from ai.simulation.gland import Zone

    if zone not in set(Zone):
        refuse(f"unknown zone {zone!r}; choose {' or '.join(Zone)}")
    simulator = Simulator(spacing_mm=(1.0, anatomy_mm, anatomy_mm), lesion_zone=Zone(zone))
    records = list(evaluate_detection(range(first_seed, first_seed + seeds), simulator, progress))
    summary = summarise(records)
    if json:
        print_json(summary.document())
    else:
        _print_detection(summary, zone)


def detector_loss(
    seeds: SeedsOption = 4,
    first_seed: FirstSeedOption = 100,
    artifacts: ArtifactsOption = "",
    anatomy_mm: SpacingOption = 0.4,
    json: JsonOption = False,
) -> None:
    """How bad images must be before the reference detector loses a lesion it finds on clean ones.

    Per artefact the severity (1 to 5) is raised until the largest lesion is hit no more. It tells what the gate
    protects, for this detector; another may stand more, or less. Minutes per patient.
    """
    need_ai()
    from ai.evaluation.detector_loss import detector_losses, summarise
    from ai.evaluation.simulated import Simulator
    from ai.simulation.artifacts import ARTIFACTS

    simulator = Simulator(spacing_mm=(1.0, anatomy_mm, anatomy_mm))
    names = _names(artifacts) or list(ARTIFACTS)
    try:
        losses = list(detector_losses(range(first_seed, first_seed + seeds), names, simulator, progress))
    except ValueError as error:
        refuse(str(error))
    table = summarise(losses)
    if json:
        print_json({"losses": losses, "artifacts": table})
    else:
        _print_losses(table)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _print_losses(table: "Sequence[LossSummary]") -> None:
    if not table:
        print_text("No lesion was found on clean images: nothing can be lost.")
        return
    print_table(
        "Lesions that the reference detector finds on clean images, and loses",
        ("artefact", "lost at any severity", "median severity", "median HaarPSI there"),
        [_loss_cells(one) for one in table],
    )
    print_text(SIMULATED)


def _loss_cells(one: "LossSummary") -> tuple[str, ...]:
    severity = "never" if one.median_lost_at is None else f"{one.median_lost_at:g}"
    similarity = "" if one.median_similarity is None else f"{one.median_similarity:.2f}"
    return one.artifact, _percent(one.lost), severity, similarity


def _print_verdicts(summary: "QualitySummary", seeds: int) -> None:
    severities = sorted({cell.severity for cell in summary.cells})
    rows = []
    for artifact in summary.artifacts:
        cells = {c.severity: c for c in summary.cells if (c.artifact, c.role) == (artifact.artifact, artifact.role)}
        rows.append(
            (artifact.artifact, artifact.role, *(_counts(cells[s].verdicts) if s in cells else "" for s in severities))
        )
    print_table(
        f"Series called diagnostic/limited/non-diagnostic (/not-assessed) by severity, {seeds} patients; 0 is clean",
        ("artefact", "series", *map(str, severities)),
        rows,
    )
    print_table(
        "Per artefact",
        ("artefact", "series", "made for it", "3-5 called diagnostic", "5 not condemned", "score rises"),
        [_artifact_row(artifact) for artifact in summary.artifacts],
    )
    for role, estimate in summary.clean_called_diagnostic.items():
        print_text(f"clean {role} called diagnostic: {estimate}")
    for role, estimate in summary.clean_called_non_diagnostic.items():
        print_text(f"clean {role} called non-diagnostic: {estimate}")
    print_text(f"clean studies with the gate open: {summary.clean_gate_open}")
    _print_misses(summary.artifacts)
    if not summary.held_out:
        print_text("Seeds 1 and 2 were looked at when the thresholds were placed: these figures flatter the rules.")
    print_text(SIMULATED)


def _counts(verdicts: Mapping[str, int]) -> str:
    """Diagnostic/limited/non-diagnostic, and the not-assessed ones where there are any."""
    from ai.quality.types import Verdict

    counts = [verdicts.get(verdict, 0) for verdict in Verdict]
    return "/".join(map(str, counts if counts[-1] else counts[:-1]))


def _artifact_row(artifact: "ArtifactSummary") -> tuple[str, ...]:
    aimed = ", ".join(artifact.aimed_at) or "nothing"
    limits_only = artifact.aimed_at and not artifact.can_disqualify
    return (
        artifact.artifact,
        artifact.role,
        f"{aimed} (limits only)" if limits_only else aimed,
        _percent(artifact.passed_visible),
        _percent(artifact.passed_ruined),
        f"{artifact.rises} of {artifact.steps}, most {artifact.largest_rise:.2f}",
    )


def _percent(estimate: "Estimate") -> str:
    if estimate.value is None:
        return ""
    interval = "" if estimate.low is None else f" ({estimate.low:.0%} to {estimate.high:.0%})"
    return f"{estimate.value:.0%} of {estimate.studies}{interval}"


def _print_misses(artifacts: "Sequence[ArtifactSummary]") -> None:
    """Say in words what is not caught, and what the thresholds were chosen on."""
    for artifact in artifacts:
        if artifact.passed_visible.value:
            print_text(
                f"missed: {artifact.passed_visible.value:.0%} of {artifact.role} with visible {artifact.artifact} "
                "(severity 3 to 5) pass as diagnostic"
            )
    both = sorted({artifact.artifact for artifact in artifacts if artifact.tuned_on_real_too})
    simulated = sorted({artifact.artifact for artifact in artifacts if artifact.tuned_on_simulated} - set(both))
    unseen = sorted({artifact.artifact for artifact in artifacts if not artifact.tuned_on_simulated})
    print_text(
        "Thresholds were placed with the help of simulated seeds 1 and 2 and ruined real series: "
        f"{', '.join(both) or 'none'}; of simulated seeds only: {', '.join(simulated) or 'none'}; without any: "
        f"{', '.join(unseen) or 'none'}."
    )


def _print_distortion(summary: "DistortionSummary") -> None:
    rows = [
        (
            str(row.severity),
            str(row.studies),
            *(f"{mm:.2f}" for mm in (row.true_p95_mm, row.measured_p95_mm, row.median_error_mm)),
            f"{row.bias_mm:+.2f}",
        )
        for row in summary.rows
    ]
    print_table(
        "Displacement along phase in the central region, mm: 95th percentile, median error of the field, bias",
        ("severity", "studies", "true", "measured", "median error", "bias"),
        rows,
    )
    for name, value in (
        ("95th percentile, Pearson", summary.pearson_p95),
        ("95th percentile, Spearman", summary.spearman_p95),
        ("median shift, Pearson", summary.pearson_rigid),
    ):
        print_text(f"true against measured, {name}: {'too few studies' if value is None else f'{value:.2f}'}")
    if not summary.held_out:
        print_text("Some of these seeds were looked at when the method's constants were chosen: figures flatter it.")
    print_text(SIMULATED)


def _print_detection(summary: "DetectionSummary", zone: str) -> None:
    rows = [
        (f"{hit.least_iou:g}", hit.index_lesions_hit, hit.lesions_hit, hit.false_marks_with_lesion)
        for hit in summary.hits
    ]
    print_table(
        f"Lesions of the {zone} zone, marks above the operating point",
        ("IoU at least", "largest lesion hit", "all lesions hit", "false marks per study"),
        rows,
    )
    print_text(f"without lesion, marks per study: {summary.false_marks_without_lesion}")
    print_text(f"without lesion, studies without any mark: {summary.unmarked_without_lesion}")
    least = "" if summary.least_gland_dice is None else f"; least {summary.least_gland_dice:.2f}"
    print_text(f"Dice of the prostate region, studies with lesion: {summary.gland_dice}{least}")
    print_text(f"detection did not succeed in {summary.failed} of {summary.studies} studies")
    print_text("Intervals: Wilson for shares of studies, bootstrap over patients for the others.")
    print_text(SIMULATED)
