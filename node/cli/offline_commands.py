"""Commands that work on DICOM folders without a running node: process, assess, detect, simulate, send."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.optional import need_ai
from node.cli.options import ConfigOption, JsonOption, settings_of
from node.cli.output import RESEARCH_USE, complain, print_json, print_table, print_text, progress, refuse

if TYPE_CHECKING:
    from ai.quality.calibration import Calibration
    from node.workflow.context import LoadedStudy

PathsArgument = Annotated[list[Path], typer.Argument(help="DICOM files or folders", exists=True, show_default=False)]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the DICOM objects", file_okay=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (process, assess, detect, simulate, send):
        app.command()(command)


def process(paths: PathsArgument, out: OutOption, config: ConfigOption = None, json: JsonOption = False) -> None:
    """The whole way offline: DICOM in, quality report, lesion report and segmentation out, and a summary."""
    calibration = _calibration(config)

    def run(study: "LoadedStudy") -> dict[str, Any]:
        from node.offline import process_study

        return process_study(study, out, progress, calibration=calibration)

    out.mkdir(parents=True, exist_ok=True)
    _each_study(paths, run, json)


def assess(paths: PathsArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Quality only: per series its role, verdict, score, findings and metrics."""
    calibration = _calibration(config)

    def run(study: "LoadedStudy") -> dict[str, Any]:
        from node.offline import assess_document

        return assess_document(study, progress, calibration)

    _each_study(paths, run, json)


def detect(
    paths: PathsArgument,
    out: OutOption,
    ignore_gate: Annotated[
        bool, typer.Option("--ignore-gate", help="detect on images of any quality; for research")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Detection only: lesion report and segmentation, if the images are good enough."""
    calibration = _calibration(config)

    def run(study: "LoadedStudy") -> dict[str, Any]:
        from node.offline import process_study

        return process_study(
            study, out, progress, calibration=calibration, ignore_gate=ignore_gate, with_quality_report=False
        )

    out.mkdir(parents=True, exist_ok=True)
    _each_study(paths, run, json)


def simulate(
    out: OutOption,
    artifact: Annotated[
        str | None,
        typer.Option(help="what to ruin it with, for example motion, noise, missing-slices; a wrong name lists them"),
    ] = None,
    severity: Annotated[int, typer.Option(min=1, max=5, help="1 subtle to 5 ruined")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="same seed, same study, byte for byte")] = 0,
    count: Annotated[int, typer.Option(min=1, max=1000, help="studies, with rising seeds")] = 1,
    lesion: Annotated[bool, typer.Option("--lesion/--no-lesion", help="plant a lesion")] = True,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="add a contrast-enhanced series, with 480 images")] = False,
    truth: Annotated[bool, typer.Option("--truth", help="write truth.json beside each study")] = False,
    json: JsonOption = False,
) -> None:
    """Write complete synthetic prostate mpMRI studies (T2W in three planes, DWI, ADC) as DICOM, clean or ruined."""
    need_ai()
    from ai.simulation.artifacts import ARTIFACTS
    from ai.simulation.artifacts.dynamic import DYNAMIC_ARTIFACTS
    from ai.simulation.export import write_study
    from ai.simulation.faults import FAULTS, with_fault
    from ai.simulation.protocol import DCE, PROSTATE_PROTOCOLS
    from ai.simulation.study import simulate_study

    if artifact is not None and artifact not in {**ARTIFACTS, **DYNAMIC_ARTIFACTS, **FAULTS}:
        refuse(
            f"unknown artefact {artifact!r}; choose one of {', '.join(sorted(ARTIFACTS))} (in the images), "
            f"{', '.join(sorted(DYNAMIC_ARTIFACTS))} (in the dynamic series) or {', '.join(sorted(FAULTS))} "
            "(in how they arrive)"
        )
    with_dynamic = dynamic or artifact in DYNAMIC_ARTIFACTS
    protocols = (*PROSTATE_PROTOCOLS, DCE) if with_dynamic else PROSTATE_PROTOCOLS
    written = []
    for number in range(seed, seed + count):
        progress(f"simulating study {number}" + (f" with {artifact} {severity}" if artifact else ""))
        fault = artifact if artifact in FAULTS else None
        in_images = None if fault else artifact
        study = simulate_study(number, in_images, severity, with_lesion=lesion, protocols=protocols)
        if fault:
            study = with_fault(study, fault, severity)
        folder = out if count == 1 else out / f"study-{number:04d}"
        files = write_study(folder, study)
        if truth:
            study.write_truth(folder)
        written.append({"path": str(folder), "seed": number, "artifact": artifact, "instances": len(files)})
    if json:
        print_json(written)
    else:
        print_table(
            "Simulated studies", ("folder", "seed", "artefact", "instances"), [tuple(w.values()) for w in written]
        )


def send(
    paths: PathsArgument,
    to: Annotated[str, typer.Option("--to", help="AET@host:port", metavar="AET@HOST:PORT")],
    calling: Annotated[str, typer.Option(help="our AE title")] = "PACSGATE",
    json: JsonOption = False,
) -> None:
    """Send DICOM files by C-STORE. Exit code 1 if any was not stored."""
    from node.dimse.storage_scu import send as store
    from node.files import files_under
    from node.settings import Destination

    try:
        ae_title, address = to.rsplit("@", 1)
        host, port = address.rsplit(":", 1)
        destination = Destination(name="command-line", ae_title=ae_title, host=host, port=int(port))
    except ValueError:
        refuse(f"--to {to!r}: expected AET@host:port, for example PACS@10.1.2.3:104")
    outcomes = list(store(destination, files_under(paths), calling))
    if not outcomes:
        refuse("no file to send")
    failed = [o for o in outcomes if not o.delivered]
    if json:
        print_json([o.__dict__ for o in outcomes])
    else:
        for outcome in failed:
            print_text(f"{outcome.sop_instance_uid or outcome.path}: {outcome.error}")
        print_text(f"{len(outcomes) - len(failed)} of {len(outcomes)} objects stored at {to}")
    if failed:
        raise typer.Exit(1)


def _calibration(config: Path | None) -> "Calibration | None":
    """The calibration the configuration names, or a refusal; read before any study is."""
    from node.calibration import calibration_of
    from node.settings import ConfigurationError

    try:
        return calibration_of(settings_of(config, None))
    except ConfigurationError as error:
        refuse(str(error))


def _each_study(paths: list[Path], run: Callable[["LoadedStudy"], dict[str, Any]], json: bool) -> None:
    """Read the folders, run each study, print one document (or a list for several studies)."""
    need_ai()
    from node.offline import read_folder

    folder = read_folder(paths, progress)
    for path, reason in folder.refused.items():
        progress(f"not used: {path.name}: {reason}")
    if not folder.studies:
        refuse("no usable DICOM object found" + (f" ({len(folder.refused)} files refused)" if folder.refused else ""))
    documents = []
    for study in folder.studies:
        try:
            documents.append(run(study))
        except Exception as error:  # noqa: BLE001 (one broken study must not take the others with it)
            complain(f"study {study.study_instance_uid} cannot be processed: {type(error).__name__}: {error}")
    if json:
        print_json(documents[0] if len(folder.studies) == len(documents) == 1 else documents)
    else:
        for document in documents:
            _print_study(document)
        print_text(RESEARCH_USE)
    if len(documents) < len(folder.studies):
        raise typer.Exit(1)


def _print_study(document: dict[str, Any]) -> None:
    from ai.quality.types import CalibrationStamp

    print_text(f"Study {document['study_instance_uid']}: {document['verdict']}. {document['reason']}")
    rows = []
    for series in document["series"]:
        score = "" if series["score"] is None else f"{series['score']:.2f}"
        probability = series["probability_non_diagnostic"]
        bad = "" if probability is None else f"{probability:.2f}"
        name, role, verdict = series["series_description"], series["role"], series["verdict"]
        rows.append((series["series_number"], name, role, verdict, score, bad, series["reason"]))
    print_table("Series", ("no", "series", "role", "verdict", "score", "P(bad)", "why"), rows)
    print_text(f"Judged by: {CalibrationStamp(**document['calibration'])}")
    for series in document["series"]:
        for finding in series["findings"]:
            print_text(f"  series {series['series_number']} {finding['severity']}: {finding['text']}")
    for finding in document["findings"]:
        print_text(f"  study {finding['severity']}: {finding['text']}")
    if "detection" not in document:
        return
    detection = document["detection"]
    print_text(f"Detection: {detection['state']}. {detection.get('reason', '')}")
    for candidate in detection["candidates"]:
        side = "above" if candidate["above_operating_point"] else "below"
        x, y, z = candidate["centroid_lps_mm"]
        print_text(
            f"  candidate p={candidate['probability']:.2f} ({side} the operating point), "
            f"{candidate['volume_ml']:.2f} ml at LPS ({x:.1f}, {y:.1f}, {z:.1f}) mm"
        )
    for item in document["objects"]:
        print_text(f"  {item['kind']}: {item['path']}")
