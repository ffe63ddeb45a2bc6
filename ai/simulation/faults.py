"""Faults that are not in the pixels: slices lost, exchanged or sent twice, wrong b-values, a field of view too small.

They befall a study that was acquired well: at the console, where it was planned or labelled, or on its way from there.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from ai.simulation.artifacts import SEVERITIES
from ai.simulation.protocol import SeriesKind
from ai.simulation.study import GroundTruth, Placement, SimulatedSeries, SimulatedStudy
from ai.volumes.types import Geometry

MISSING_SLICES = (1, 2, 3, 5, 8)
SWAPPED_PAIRS = (1, 2, 3, 5, 8)
DUPLICATED_SLICES = (1, 2, 3, 5, 8)
FEWEST_SLICES_LEFT = 3
GLAND_SHARE_OUTSIDE = (0.05, 0.15, 0.30, 0.50, 0.75)


@dataclass(frozen=True)
class Fault:
    """One way in which a well acquired series arrives wrong, at a whole severity 1..5."""

    name: str
    meaning: str
    applies_to: frozenset[SeriesKind]
    inflict: Callable[[SimulatedStudy, SimulatedSeries, int, np.random.Generator], SimulatedSeries]


def with_fault(
    study: SimulatedStudy, name: str, severity: int, series: Collection[SeriesKind] | None = None
) -> SimulatedStudy:
    """The same study with a fault; the study's seed decides where it strikes, in every volume of a series alike.

    Args:
        study: as ``simulate_study`` made it.
        name: a name of ``FAULTS``.
        severity: 1 to 5.
        series: which series; default every series the fault can happen in.

    Raises:
        ValueError: an unknown fault or severity, or a series it cannot happen in.
    """
    if name not in FAULTS:
        raise ValueError(f"unknown fault {name!r}; there are {', '.join(FAULTS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity of {name} must be a whole number 1..5, not {severity}")
    fault = FAULTS[name]
    hit = fault.applies_to if series is None else frozenset(series)
    if hit - fault.applies_to:
        raise ValueError(f"{name} does not happen in {', '.join(sorted(hit - fault.applies_to))}")
    faulty = tuple(
        fault.inflict(study, one, severity, np.random.default_rng([study.seed, one.protocol.series_number]))
        if one.kind in hit
        else one
        for one in study.series
    )
    axial = next(one for one in faulty if one.kind == SeriesKind.T2_AXIAL)
    return replace(
        study,
        artifact=name,
        severity=severity,
        series=faulty,
        truth=_within(study.truth, axial.geometry),
        identity=repr((study.identity, name, severity, sorted(hit))),
    )


def _missing(
    _study: SimulatedStudy, series: SimulatedSeries, severity: int, rng: np.random.Generator
) -> SimulatedSeries:
    """Slices that never arrive, none of them at an end: the stack has holes."""
    placed = list(series.placements)
    count = min(MISSING_SLICES[severity - 1], len(placed) - FEWEST_SLICES_LEFT)
    for index in rng.choice(np.arange(1, len(placed) - 1), count, replace=False):
        placed[index] = None
    return replace(series, placed=tuple(placed))


def _swapped(
    _study: SimulatedStudy, series: SimulatedSeries, severity: int, rng: np.random.Generator
) -> SimulatedSeries:
    """Images that carry each other's position."""
    slices = len(series.placements)
    count = min(SWAPPED_PAIRS[severity - 1], slices // 2)
    source = np.arange(slices)
    pairs = rng.permutation(slices)[: 2 * count].reshape(count, 2)
    source[pairs] = pairs[:, ::-1]
    return replace(series, placed=tuple(Placement(int(image), position) for position, image in enumerate(source)))


def _duplicated(
    _study: SimulatedStudy, series: SimulatedSeries, severity: int, rng: np.random.Generator
) -> SimulatedSeries:
    """Images that arrive a second time as instances of their own, at the same position."""
    slices = len(series.placements)
    again = rng.choice(slices, min(DUPLICATED_SLICES[severity - 1], slices), replace=False)
    return replace(series, placed=(*series.placements, *(Placement(int(one), int(one)) for one in sorted(again))))


def _mislabelled(
    _study: SimulatedStudy, series: SimulatedSeries, severity: int, _rng: np.random.Generator
) -> SimulatedSeries:
    """b-values on the wrong images: the middle two exchanged, the highest, the lowest, the ends, all in reverse."""
    labels = list(series.b_values)
    last = len(labels) - 1
    first, second = ((last // 2, last // 2 + 1), (last - 1, last), (0, 1), (0, last), (0, last))[severity - 1]
    if severity == SEVERITIES[-1]:
        labels.reverse()
    else:
        labels[first], labels[second] = labels[second], labels[first]
    return replace(series, b_values=tuple(labels))


def _truncated(
    study: SimulatedStudy, series: SimulatedSeries, severity: int, _rng: np.random.Generator
) -> SimulatedSeries:
    """A field of view that ends inside the gland, on the patient's right."""
    axial = study.of(SeriesKind.T2_AXIAL).geometry
    by_column = np.cumsum(study.truth.gland.sum(axis=(0, 1)))
    edge = float(np.searchsorted(by_column, GLAND_SHARE_OUTSIDE[severity - 1] * by_column[-1]))
    edge_lps_mm = axial.to_lps_mm(np.array([[0.0, 0.0, edge]]))
    cut = max(1, round(float(series.geometry.to_index(edge_lps_mm)[0, 2])))
    affine = series.geometry.affine_lps_mm.copy()
    affine[:3, 3] += cut * affine[:3, 2]
    slices, rows, columns = series.geometry.shape
    return replace(
        series, pixels=series.pixels[..., cut:].copy(), geometry=Geometry(affine, (slices, rows, columns - cut))
    )


def _within(truth: GroundTruth, axial: Geometry) -> GroundTruth:
    """The masks on what is left of the axial T2 grid."""
    columns = axial.shape[2]
    return replace(truth, gland=truth.gland[..., -columns:], lesion=truth.lesion[..., -columns:])


_STACKS = frozenset({SeriesKind.T2_AXIAL, SeriesKind.DWI})

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for fault in (
            Fault("missing-slices", "slices that never arrive", _STACKS, _missing),
            Fault("swapped-slices", "images with each other's position", _STACKS, _swapped),
            Fault("duplicated-slices", "slices sent twice as different instances", _STACKS, _duplicated),
            Fault("wrong-b-values", "b-values on the wrong images", frozenset({SeriesKind.DWI}), _mislabelled),
            Fault("truncated-view", "gland partly outside the view", _STACKS | {SeriesKind.ADC}, _truncated),
        )
    }
)
"""Every fault by name."""
