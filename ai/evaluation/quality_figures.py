"""Figures of a study of splits: trust in the probability, gain of asking only when sure, score against truth.

Every title says that the damage is simulated. Colours are those of Okabe and Ito (2008), told apart by all readers;
markers and line styles say the same again for print.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ai.evaluation.quality_curves import grade_coverage, reliability
from ai.evaluation.quality_models import ENSEMBLE, FOREST, HEADER_ONLY, NETWORK
from ai.evaluation.quality_study import RANDOM, ScoredCase
from ai.quality.grades import grade_table

KIND_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "vendor": "new vendor",
        "artefact": "artefact never seen",
        "other-simulator": "other simulator, new patients",
        "patient": "new patients",
        RANDOM: "random halves (flatters)",
    }
)
"""What people call the kinds of splits."""

STYLES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        HEADER_ONLY: {"color": "#999999", "linestyle": ":"},
        FOREST: {"color": "#009E73", "linestyle": "--"},
        NETWORK: {"color": "#E69F00", "linestyle": "-."},
        ENSEMBLE: {"color": "#0072B2", "linestyle": "-"},
    }
)
VENDOR_STYLES = (
    {"color": "#0072B2", "marker": "o"},
    {"color": "#D55E00", "marker": "^"},
    {"color": "#009E73", "marker": "s"},
    {"color": "#CC79A7", "marker": "D"},
)

UNIT = (-0.03, 1.03)
"""0 to 1 with room for the markers at its ends."""
PANEL_INCHES = 2.9
DOTS_PER_INCH = 130


def write_figures(scored: Sequence[ScoredCase], out: Path) -> list[Path]:
    """Write the figures of all kinds of hard splits into ``out`` and return their paths.

    Raises:
        ImportError: matplotlib is not installed (extra ``research``).
    """
    kinds: dict[str, list[ScoredCase]] = {}
    for one in scored:
        if one.kind != RANDOM:
            kinds.setdefault(one.kind, []).append(one)
    if not kinds:
        return []
    paths = [_reliability(kinds, out / "reliability-of-probability.png")]
    paths.append(_coverage(kinds, out / "risk-coverage-of-grades.png"))
    for kind, cases in kinds.items():
        paths.append(_against_truth(kind, _of(ENSEMBLE, cases), out / f"score-against-haarpsi-{kind}.png"))
    return paths


def _of(model: str, cases: Sequence[ScoredCase]) -> list[ScoredCase]:
    return [case for case in cases if case.model == model]


def _panels(count: int, title: str, columns: int, labels: tuple[str, str]) -> tuple[Any, list[Any]]:
    """A figure and its axes with common labels (x, y), those left over taken away. No window is ever opened."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(PANEL_INCHES * columns, 6.5), PANEL_INCHES * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for spare in axes[count:]:
        spare.remove()
    for axis in axes[max(count - columns, 0) : count]:
        axis.tick_params(labelbottom=True)  # also above a panel that was taken away
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(labels[0], fontsize=10)
    figure.supylabel(labels[1], fontsize=10)
    return figure, axes[:count]


def _written(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path


def _reliability(kinds: Mapping[str, Sequence[ScoredCase]], path: Path) -> Path:
    title = (
        "Simulated damage: probability of a non-diagnostic series against what is\n"
        "(ensemble, calibrated on the other patients; bars: 95 % over patients)"
    )
    figure, axes = _panels(len(kinds), title, 2, ("predicted probability", "observed share"))
    for axis, (kind, cases) in zip(axes, kinds.items(), strict=True):
        axis.plot((0, 1), (0, 1), color="#999999", linewidth=1, linestyle=":")
        axis.set(title=KIND_NAMES[kind], xlim=UNIT, ylim=UNIT)
        made = reliability(_of(ENSEMBLE, cases))
        if made is None:
            axis.text(0.5, 0.5, "too few patients of both classes", ha="center")
            continue
        for one in made.bins:
            if one.observed.low is not None:
                axis.vlines(one.predicted, one.observed.low, one.observed.high, color="#0072B2", alpha=0.5)
        axis.plot(
            [one.predicted for one in made.bins],
            [one.observed.value for one in made.bins],
            marker="o",
            **STYLES[ENSEMBLE],
        )
        told = f"calibration error {made.calibration_error:.3f}\nBrier score {made.brier:.3f}"
        axis.text(0.04, 0.96, f"{told}\n{sum(one.series for one in made.bins)} series", va="top", fontsize=8)
    return _written(figure, path)


def _coverage(kinds: Mapping[str, Sequence[ScoredCase]], path: Path) -> Path:
    title = (
        "Simulated damage: wrong grades among the series a model is surest of\n"
        "(no detector involved; area below the curve in brackets, less is better)"
    )
    figure, axes = _panels(len(kinds), title, 2, ("share of series accepted", "share of wrong grades among them"))
    for axis, (kind, cases) in zip(axes, kinds.items(), strict=True):
        for model, style in STYLES.items():
            own = _of(model, cases)
            if own:
                curve = grade_coverage(own)
                axis.plot(curve.coverage, curve.risk, label=f"{model} ({curve.area:.3f})", **style)
        axis.set(title=KIND_NAMES[kind], xlim=(0, 1), ylim=(0, None))
        axis.legend(fontsize=7, loc="upper left")
    return _written(figure, path)


def _against_truth(kind: str, cases: Sequence[ScoredCase], path: Path) -> Path:
    artifacts = sorted({case.artifact for case in cases}, key=lambda name: (name in ("clean", "mixed"), name))
    vendors = sorted({case.vendor for case in cases})
    title = (
        f"Simulated damage: score of the ensemble against HaarPSI, {KIND_NAMES[kind]}\n"
        "(lines: cut points of the grades of T2W)"
    )
    figure, axes = _panels(len(artifacts), title, 5, ("HaarPSI against the clean series", "score"))
    cut = grade_table().families["t2w"]
    for axis, artifact in zip(axes, artifacts, strict=True):
        axis.plot((0, 1), (0, 1), color="#999999", linewidth=1, linestyle=":")
        for point in (cut.non_diagnostic_below, cut.diagnostic_from):
            axis.axhline(point, color="#999999", linewidth=0.6)
            axis.axvline(point, color="#999999", linewidth=0.6)
        for vendor, style in zip(vendors, VENDOR_STYLES * math.ceil(len(vendors) / len(VENDOR_STYLES)), strict=False):
            own = [case for case in cases if (case.artifact, case.vendor) == (artifact, vendor)]
            axis.scatter(
                [case.truth for case in own],
                [case.score for case in own],
                s=14,
                alpha=0.6,
                linewidth=0,
                label=vendor,
                **style,
            )
        axis.set(title=artifact, xlim=UNIT, ylim=UNIT)
    axes[0].legend(fontsize=7, loc="upper left")
    return _written(figure, path)
