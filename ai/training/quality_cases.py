"""What the quality model is trained and measured on: a clean series, what was done to it, and how much that hurt.

A *case* is one series with one corruption (or none); it holds some slices, each with its damage measured against the
clean image (HaarPSI inside the region that matters), its image metrics and the network's input. The strength of the
corruption is kept as metadata and is no label: how visible it is depends on the anatomy (rho -0.5 for motion).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ai.quality.concepts import CONCEPTS, Concept

SIMULATED = "simulated"
"""The vendor of anatomy that no scanner saw."""

CONCEPT_OF_ARTIFACT: Mapping[str, Concept] = MappingProxyType(
    {
        "motion": Concept.MOTION,
        "frame-motion": Concept.MOTION,
        "ghosting": Concept.GHOSTING,
        "nyquist-ghost": Concept.GHOSTING,
        "noise": Concept.NOISE,
        "low-averages": Concept.NOISE,
        "noise-floor": Concept.NOISE,
        "blur": Concept.BLUR,
        "t2-blur": Concept.BLUR,
        "gibbs": Concept.BLUR,
        "low-temporal-resolution": Concept.BLUR,
        "bias": Concept.BIAS,
        "distortion": Concept.DISTORTION,
        "dropout": Concept.DISTORTION,
        "eddy": Concept.DISTORTION,
        "fat-shift": Concept.DISTORTION,
        "spike": Concept.SPIKE,
        "zipper": Concept.SPIKE,
        "wrap": Concept.WRAP,
    }
)
"""What a reader would call each artefact of ``ai.simulation`` and of the simulators that are only tested on."""


@dataclass(frozen=True)
class Case:
    """One series as it was corrupted. ``artifacts`` is empty for a clean one; severities run to 5."""

    substrate: str
    patient: str
    vendor: str
    family: str
    artifacts: tuple[tuple[str, float], ...]
    seed: int
    simulator: str = "pacsgate"

    @property
    def artifact(self) -> str:
        """The name of the only artefact, "clean", or "mixed"."""
        names = [name for name, _ in self.artifacts]
        return names[0] if len(names) == 1 else "mixed" if names else "clean"

    @property
    def displaces(self) -> bool:
        """Whether an artefact moves the image as a whole, which is no damage."""
        return any(CONCEPT_OF_ARTIFACT[name] in (Concept.MOTION, Concept.DISTORTION) for name, _ in self.artifacts)

    @property
    def severity(self) -> float:
        """The highest severity, 0 where clean."""
        return max((severity for _, severity in self.artifacts), default=0.0)


@dataclass(frozen=True)
class Slices:
    """Slices of many cases, one row each.

    Attributes:
        case: int32 ``[n]``, index into the list of cases.
        similarity: float32 ``[n]``, HaarPSI against the clean slice, 0..1.
        second_opinion: float32 ``[n]``, GMSD against the clean slice (0 is no difference).
        concepts: float32 ``[n, concept]``, damage per concept 0..1; NaN where it is not known (mixtures).
        physics: float32 ``[n, parameter]``, what the upstream stage predicts; NaN where the header is silent.
        metrics: float32 ``[n, metric]``, NaN where a metric could not be computed.
        prompts: int8 ``[n, field]``.
        inputs: float16 ``[n, channel, row, column]``, the network's input.
        pixel_mm: float32 ``[n]``, pixel size of the input.
    """

    case: NDArray[np.int32]
    similarity: NDArray[np.float32]
    second_opinion: NDArray[np.float32]
    concepts: NDArray[np.float32]
    physics: NDArray[np.float32]
    metrics: NDArray[np.float32]
    prompts: NDArray[np.int8]
    inputs: NDArray[np.float16]
    pixel_mm: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.case)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Slices":
        """The rows chosen by a mask or by indices."""
        return Slices(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class CaseSet:
    """Cases and their slices."""

    cases: tuple[Case, ...]
    slices: Slices

    def where(self, wanted: Iterable[bool]) -> "CaseSet":
        """The cases for which ``wanted`` (one value per case) is true, with their slices, numbered anew."""
        keep = np.fromiter(wanted, bool, len(self.cases))
        number = np.cumsum(keep) - 1
        rows = self.slices.take(keep[self.slices.case])
        renumbered = Slices(
            number[rows.case].astype(np.int32), *(getattr(rows, field.name) for field in fields(rows)[1:])
        )
        return CaseSet(tuple(case for case, kept in zip(self.cases, keep, strict=True) if kept), renumbered)


def folds(cases: Sequence[Case], count: int = 2) -> dict[str, int]:
    """The fold of every real patient, spread evenly over the patients of each vendor in the order of their names."""
    patients = sorted({(case.vendor, case.patient) for case in cases if case.vendor != SIMULATED})
    fold: dict[str, int] = {}
    seen: dict[str, int] = {}
    for vendor, patient in patients:
        fold[patient] = seen.get(vendor, 0) % count
        seen[vendor] = seen.get(vendor, 0) + 1
    return fold


def concept_damage(artifacts: Sequence[tuple[str, float]], damage: float) -> NDArray[np.float32]:
    """Damage per concept of a slice: all of it belongs to the concept of a single artefact; NaN for those of a mixture,
    whose shares are not known; 0 for every concept that was not touched."""
    labels = np.zeros(len(CONCEPTS), np.float32)
    touched = {CONCEPT_OF_ARTIFACT[name] for name, _ in artifacts}
    for concept in touched:
        labels[CONCEPTS.index(concept)] = damage if len(touched) == 1 else np.nan
    return labels


def join(parts: Sequence[CaseSet]) -> CaseSet:
    """Several sets as one. Raises ValueError where there is none."""
    if not parts:
        raise ValueError("no cases")
    offsets = np.cumsum([0, *(len(part.cases) for part in parts[:-1])])
    cases = tuple(case for part in parts for case in part.cases)
    columns = [np.concatenate([getattr(part.slices, field.name) for part in parts]) for field in fields(Slices)[1:]]
    index = np.concatenate([part.slices.case + offset for part, offset in zip(parts, offsets, strict=True)])
    return CaseSet(cases, Slices(index.astype(np.int32), *columns))


def save(path: Path, cases: CaseSet) -> None:
    """Write a set beside its final name first, so that an interrupted run never leaves half a file."""
    partial = path.with_suffix(".partial.npz")
    described = json.dumps([astuple(case) for case in cases.cases])
    arrays = {field.name: getattr(cases.slices, field.name) for field in fields(Slices)}
    np.savez(partial, described=np.frombuffer(described.encode(), np.uint8), **arrays)
    partial.replace(path)


def load(path: Path) -> CaseSet:
    """Read what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        described = json.loads(stored["described"].tobytes().decode())
        slices = Slices(*(stored[field.name] for field in fields(Slices)))
    cases = tuple(
        Case(
            substrate, patient, vendor, family, tuple((name, severity) for name, severity in artifacts), seed, simulator
        )
        for substrate, patient, vendor, family, artifacts, seed, simulator in described
    )
    return CaseSet(cases, slices)
