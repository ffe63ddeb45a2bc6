"""One simulated examination: anatomy scanned by every protocol, clean or with an artefact, and its ground truth."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.simulation.anatomy import FINE_SPACING_MM, Anatomy, random_anatomy
from ai.simulation.artifacts import ARTIFACTS, Artifact, check_severity
from ai.simulation.artifacts.dynamic import DYNAMIC_ARTIFACTS, DynamicArtifact, DynamicSeries
from ai.simulation.dynamic_contrast import acquire_dynamic
from ai.simulation.gland import Zone
from ai.simulation.grids import image_geometry, mask_on_grid
from ai.simulation.kspace import KSpace, reconstruct
from ai.simulation.off_resonance import off_resonance_hz
from ai.simulation.protocol import (
    ADC_FIT_UP_TO_B,
    ADC_SERIES_NUMBER,
    PROSTATE_PROTOCOLS,
    Protocol,
    SeriesKind,
)
from ai.simulation.sequences import acquire, fit_adc, record
from ai.simulation.tissues import GLAND_TABLE, Tissue
from ai.volumes.types import Geometry

AnyArtifact = Artifact | DynamicArtifact

STORED_PER_SIGNAL = 2000.0
"""Stored value of undecayed water: a prostate then fills about a quarter of 12 bits, as on scanners."""
STORED_PER_SIGNAL_T1 = 8000.0
"""The same for spoiled gradient echoes, which see a tenth of the water."""
STORED_MAXIMUM = 4095
FRAGMENT_ML = 0.05
ADC_BACKGROUND_SIGNAL = 0.05
"""The ADC map is 0 where the lowest b-value gives less: air and suppressed fat have no diffusion to speak of."""


@dataclass(frozen=True)
class Placement:
    """An instance to write: which slice's image it holds, and whose position its header gives."""

    image: int
    position: int


@dataclass(frozen=True)
class SimulatedSeries:
    """One series: stored values uint16 ``[volume, slice, row, column]`` (12 bits used), one volume per b-value
    or frame.

    ``b_values`` is empty for T2 and DCE; for ADC it names the b-values fitted, and there is one volume. ``placed``,
    where given, says which instances of a volume are written, in order; None stands for one that got lost.
    """

    kind: SeriesKind
    protocol: Protocol
    geometry: Geometry
    pixels: NDArray[np.uint16]
    b_values: tuple[float, ...] = ()
    placed: tuple[Placement | None, ...] | None = None

    @property
    def placements(self) -> tuple[Placement | None, ...]:
        """The instances of a volume: every slice at its own position, unless a fault has it otherwise."""
        return self.placed or tuple(Placement(index, index) for index in range(self.pixels.shape[1]))


@dataclass(frozen=True)
class LesionTruth:
    """One planted cancer: its centroid in LPS mm and volume on the anatomy's fine grid."""

    centroid_lps_mm: tuple[float, float, float]
    volume_ml: float


@dataclass(frozen=True)
class GroundTruth:
    """What is really there. Masks are bool ``[slice, row, column]`` on the axial T2 grid."""

    gland: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    gland_volume_ml: float
    lesions: tuple[LesionTruth, ...]


@dataclass(frozen=True)
class SimulatedStudy:
    """A complete examination. ``identity`` names every choice that made it; identifiers derive from it."""

    seed: int
    artifact: str | None
    severity: float
    series: tuple[SimulatedSeries, ...]
    truth: GroundTruth
    identity: str

    def of(self, kind: SeriesKind) -> SimulatedSeries:
        """The series of a kind. Raises KeyError where the study has none."""
        for one in self.series:
            if one.kind == kind:
                return one
        raise KeyError(f"the study has no {kind} series")

    def write_truth(self, directory: Path) -> Path:
        """Write ``truth.json``: volumes in ml and centroids in LPS mm, and what was done to the images."""
        path = directory / "truth.json"
        document = {
            "seed": self.seed,
            "artifact": self.artifact,
            "severity": self.severity,
            "gland_volume_ml": round(self.truth.gland_volume_ml, 2),
            "lesions": [
                {
                    "centroid_lps_mm": [round(value, 2) for value in lesion.centroid_lps_mm],
                    "volume_ml": round(lesion.volume_ml, 3),
                }
                for lesion in self.truth.lesions
            ],
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return path


def simulate_study(
    seed: int,
    artifact: str | None = None,
    severity: float = 3,
    with_lesion: bool = True,
    series: Collection[SeriesKind] | None = None,
    *,
    lesion_zone: Zone = Zone.PERIPHERAL,
    protocols: Sequence[Protocol] = PROSTATE_PROTOCOLS,
    spacing_mm: tuple[float, float, float] = FINE_SPACING_MM,
    draw: Callable[..., Anatomy] = random_anatomy,
) -> SimulatedStudy:
    """Simulate one prostate examination.

    Args:
        seed: anatomy, noise and artefact follow from it.
        artifact: a name of ``ARTIFACTS`` or ``DYNAMIC_ARTIFACTS``, or None for a clean study.
        severity: 1 (subtle) to 5 (non-diagnostic), also between; 0 is clean.
        with_lesion: plant cancers.
        series: which series the artefact hits; default every series it can happen in.
        lesion_zone: which zone the cancers are in.
        protocols: what is acquired; an axial T2 must be among them.
        spacing_mm: grid of the anatomy along z, y, x; tests take a coarser one.
        draw: draws the anatomy; scanning one anatomy many times is faster with ``functools.cache(random_anatomy)``.

    Raises:
        ValueError: unknown artefact or severity, a series it cannot happen in, or no axial T2.
    """
    fault = _fault(artifact, severity)
    hit = _hit_series(fault, series)
    axial = next((protocol for protocol in protocols if protocol.kind == SeriesKind.T2_AXIAL), None)
    if axial is None:
        raise ValueError("a study needs an axial T2 protocol: its truth is given on that grid")
    if isinstance(fault, DynamicArtifact) and not any(protocol.kind == SeriesKind.DCE for protocol in protocols):
        raise ValueError(f"{fault.name} needs a dynamic series among the protocols")
    gas = isinstance(fault, Artifact) and fault.needs_gas and severity > 0
    anatomy = draw(seed, with_lesion, lesion_zone=lesion_zone, rectal_gas=gas, spacing_mm=spacing_mm)
    made: list[SimulatedSeries] = []
    for protocol in protocols:
        made += _scan(anatomy, protocol, fault if protocol.kind in hit else None, severity)
    return SimulatedStudy(
        seed=seed,
        artifact=artifact if severity > 0 else None,
        severity=severity if artifact is not None else 0,
        series=tuple(made),
        truth=_ground_truth(anatomy, axial),
        identity=repr((seed, artifact, severity, with_lesion, sorted(hit), lesion_zone, tuple(protocols), spacing_mm)),
    )


def _fault(artifact: str | None, severity: float) -> AnyArtifact | None:
    check_severity(artifact or "a clean study", severity)
    known: dict[str, AnyArtifact] = {**ARTIFACTS, **DYNAMIC_ARTIFACTS}
    if artifact is None:
        return None
    if artifact not in known:
        raise ValueError(f"unknown artefact {artifact!r}; there are {', '.join(known)}")
    return known[artifact]


def _hit_series(fault: AnyArtifact | None, series: Collection[SeriesKind] | None) -> frozenset[SeriesKind]:
    if fault is None:
        return frozenset()
    if series is None:
        return fault.applies_to
    impossible = frozenset(series) - fault.applies_to
    if impossible:
        raise ValueError(f"{fault.name} does not happen in {', '.join(sorted(impossible))}")
    return frozenset(series)


def _scan(anatomy: Anatomy, protocol: Protocol, fault: AnyArtifact | None, severity: float) -> list[SimulatedSeries]:
    """One acquired series, and after diffusion imaging the ADC map the scanner makes of it."""
    raw = (acquire_dynamic if protocol.kind == SeriesKind.DCE else acquire)(anatomy, protocol)
    if isinstance(fault, Artifact):
        raw = _corrupt(anatomy, protocol, raw, fault, severity)
    stored = (protocol.matrix, protocol.matrix)
    images = np.stack(
        [
            reconstruct(one, stored, np.random.default_rng([anatomy.seed, protocol.series_number, index]))
            for index, one in enumerate(raw)
        ]
    )
    geometry = image_geometry(anatomy, protocol)
    if isinstance(fault, DynamicArtifact):
        dynamic = DynamicSeries(images, protocol.frame_s, geometry.spacing_mm, raw[0].phase_axis)
        images = fault(dynamic, severity, seed=_fault_seed(anatomy, protocol)).frames
    per_signal = STORED_PER_SIGNAL_T1 if protocol.kind == SeriesKind.DCE else STORED_PER_SIGNAL
    series = [SimulatedSeries(protocol.kind, protocol, geometry, _stored(images, per_signal), protocol.b_values)]
    fitted = tuple(b for b in protocol.b_values if b <= ADC_FIT_UP_TO_B)
    if len(fitted) > 1:
        adc = fit_adc(images[[protocol.b_values.index(b) for b in fitted]], fitted, ADC_BACKGROUND_SIGNAL)
        named = replace(
            protocol,
            kind=SeriesKind.ADC,
            series_number=ADC_SERIES_NUMBER,
            series_description=f"{protocol.series_description}_ADC",
        )
        series.append(SimulatedSeries(SeriesKind.ADC, named, geometry, _stored(adc[None], 1.0), fitted))
    return series


def _corrupt(
    anatomy: Anatomy, protocol: Protocol, raw: tuple[KSpace, ...], fault: Artifact, severity: float
) -> tuple[KSpace, ...]:
    """Every b-value meets the same fault: the seed is that of the series."""
    if fault.needs_gas:
        field_hz = off_resonance_hz(anatomy, protocol, raw[0])
        raw = tuple(replace(one, off_resonance_hz=field_hz) for one in raw)
    if fault.needs_fat:
        fat = record(anatomy, protocol, only_fat=True)
        raw = tuple(replace(one, fat=data) for one, data in zip(raw, fat, strict=True))
    return tuple(fault(one, severity, seed=_fault_seed(anatomy, protocol)) for one in raw)


def _fault_seed(anatomy: Anatomy, protocol: Protocol) -> int:
    return 1000 * anatomy.seed + protocol.series_number


def _stored(images: NDArray[np.float32], per_signal: float) -> NDArray[np.uint16]:
    return np.clip(np.rint(images * per_signal), 0, STORED_MAXIMUM).astype(np.uint16)


def _ground_truth(anatomy: Anatomy, axial: Protocol) -> GroundTruth:
    voxel_ml = float(np.prod(anatomy.spacing_mm)) / 1000.0
    lesion = anatomy.lesion
    return GroundTruth(
        gland=mask_on_grid(anatomy, axial, lambda labels: GLAND_TABLE[labels]),
        lesion=mask_on_grid(anatomy, axial, lambda labels: np.asarray(labels == Tissue.LESION)),
        gland_volume_ml=float(anatomy.gland.sum()) * voxel_ml,
        lesions=tuple(_lesions(anatomy, lesion, voxel_ml)),
    )


def _lesions(anatomy: Anatomy, lesion: NDArray[np.bool_], voxel_ml: float) -> list[LesionTruth]:
    """Connected cancers, largest first; a fragment below ``FRAGMENT_ML`` that bending cut off is not one of them."""
    if not lesion.any():
        return []
    around = ndimage.find_objects(lesion.view(np.uint8))[0]
    labels, count = ndimage.label(lesion[around], np.ones((3, 3, 3)))
    truths = []
    for number in range(1, count + 1):
        index = np.argwhere(labels == number) + [part.start for part in around]
        volume_ml = len(index) * voxel_ml
        if volume_ml < FRAGMENT_ML:
            continue
        z, y, x = (axis[i].mean() for axis, i in zip(anatomy.centres_mm, index.T, strict=True))
        lps = anatomy.frame_to_lps @ np.array([x, y, z, 1.0])
        truths.append(LesionTruth((float(lps[0]), float(lps[1]), float(lps[2])), volume_ml))
    return sorted(truths, key=lambda truth: -truth.volume_ml)
