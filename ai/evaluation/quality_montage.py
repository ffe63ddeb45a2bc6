"""A montage: salient slices of one anatomy, clean and damaged, with where the network looked.

Rows are corruptions, columns slices as the network gets them (mirrored where they end). The colour is the weight of
each patch in the mean over the slice (MANIQA's second branch). It shows where the network looked, not why it said what
it said.
"""

from pathlib import Path

import numpy as np
import torch

from ai.evaluation.quality_study import StudyPlan
from ai.quality.network.inputs import SIZE
from ai.quality.network.maniqa import ManiqaMini
from ai.training.quality_cases import SIMULATED, CaseSet, folds, load, load_described
from ai.training.quality_models import checkpoint_file, fold_name
from ai.training.quality_network import kept_network, predict

EXTENT = (0, SIZE, SIZE, 0)
"""Of image and weights, which have different numbers of pixels."""

SHOWN = ("motion", "noise", "ghosting", "distortion", "blur")
"""Artefacts that are shown, as far as the series has them."""

ORANGE = (0.90, 0.62, 0.0)
WEIGHT_OPACITY = 0.45
"""Of the patch that counts most in its slice; one of no weight is left grey."""


def write_montages(plan: StudyPlan, out: Path) -> list[Path]:
    """A held-out real patient and a simulated one (which was trained on), by the network of the first fold.

    Empty where that network was not trained in this study.

    Raises:
        ImportError: matplotlib is not installed (extra ``research``).
    """
    checkpoint = checkpoint_file(plan.kept, fold_name(0))
    if not checkpoint.exists():
        return []
    network = kept_network(checkpoint)
    described = {path: load_described(path) for path in plan.files}
    fold = folds([case for cases in described.values() for case in cases])
    t2w = {path: cases[0] for path, cases in described.items() if cases[0].family == "t2w"}
    held_out = next((path for path, case in t2w.items() if fold.get(case.patient) == 0), None)
    simulated = next((path for path, case in t2w.items() if case.vendor == SIMULATED), None)
    paths = []
    if held_out is not None:
        vendor = t2w[held_out].vendor
        target = out / "montage-held-out-patient.png"
        paths.append(montage(network, load(held_out), f"a {vendor} patient not trained on", target))
    if simulated is not None:
        target = out / "montage-simulated-anatomy.png"
        paths.append(montage(network, load(simulated), "simulated anatomy, trained on", target))
    return paths


def montage(network: ManiqaMini, cases: CaseSet, what: str, path: Path) -> Path:
    """Draw the clean case and the gravest of each artefact of ``SHOWN`` of the first series of ``cases``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    weight_map = LinearSegmentedColormap.from_list("weight", [(*ORANGE, 0.0), (*ORANGE, WEIGHT_OPACITY)])
    chosen = chosen_cases(cases)
    width = min(int((cases.slices.case == number).sum()) for number in chosen)
    figure = Figure(figsize=(2.1 * width + 0.4, 2.3 * len(chosen) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"Simulated damage on {what}: where the network looked (orange)\n"
        "below each slice: HaarPSI against the clean one, and 1 - damage by the network",
        fontsize=10,
    )
    axes = figure.subplots(len(chosen), width, squeeze=False)
    for row, number in zip(axes, chosen, strict=True):
        own = cases.where(index == number for index in range(len(cases.cases)))
        said = list(predict(network, own))
        weights = torch.cat([one.weights for one in said]).numpy()
        scores = 1.0 - torch.sigmoid(torch.cat([one.damage for one in said])).numpy()
        for index, axis in enumerate(row):
            axis.imshow(own.slices.inputs[index, 0].astype(np.float32), cmap="gray", vmin=-1.2, vmax=1.5, extent=EXTENT)
            axis.imshow(weights[index], cmap=weight_map, vmin=0.0, extent=EXTENT, interpolation="bilinear")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"{own.slices.similarity[index]:.2f}   {scores[index]:.2f}", fontsize=8)
        case = own.cases[0]
        row[0].set_ylabel(f"{case.artifact} {case.severity:.1f}" if case.artifacts else "clean", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def chosen_cases(cases: CaseSet) -> list[int]:
    """Numbers of the clean case and of the gravest case of each artefact of ``SHOWN``, of the first series."""
    first = cases.cases[0].substrate
    own = [(number, case) for number, case in enumerate(cases.cases) if case.substrate == first]
    chosen = [number for number, case in own if not case.artifacts][:1]
    for name in SHOWN:
        alike = [(case.severity, number) for number, case in own if case.artifact == name]
        chosen += [max(alike)[1]] if alike else []
    return chosen
