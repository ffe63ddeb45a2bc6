"""How the quality model is held to account: what it is trained on, what it has never seen, hard splits first.

A random split flatters: slices of one patient are alike, and a new scanner breaks what looked good. Every split below
also keeps its test patients out of training.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ai.quality.concepts import Concept
from ai.training.quality_cases import CONCEPT_OF_ARTIFACT, SIMULATED, Case, folds

Wanted = Callable[[Case], bool]

HELD_OUT_TOGETHER: tuple[tuple[Concept, ...], ...] = (
    (Concept.MOTION, Concept.SPIKE),
    (Concept.GHOSTING, Concept.BIAS),
    (Concept.NOISE, Concept.WRAP),
    (Concept.BLUR, Concept.DISTORTION),
)
"""Concepts whose artefacts are left out of one training: two at a time, which is harder than one and costs half. The
two of a group do not look alike."""


@dataclass(frozen=True)
class Split:
    """``train`` and ``test`` say of a case whether it belongs. ``shown_as`` names the tests within the split."""

    name: str
    kind: str
    train: Wanted
    tests: tuple[tuple[str, Wanted], ...]


def touches(case: Case, concepts: Sequence[Concept]) -> bool:
    """Whether an artefact of these concepts is in the case."""
    return any(CONCEPT_OF_ARTIFACT[name] in concepts for name, _ in case.artifacts)


def vendor_splits(cases: Sequence[Case]) -> Iterator[Split]:
    """Train on everything but one vendor, test on it; simulated anatomy has no vendor and is always trained on."""
    for vendor in sorted({case.vendor for case in cases} - {SIMULATED}):
        # The family is that of the test: prostates of both vendors exist for T2 only.
        yield Split(
            f"new vendor: {vendor}",
            "vendor",
            train=lambda case, vendor=vendor: case.vendor != vendor,  # type: ignore[misc]
            tests=((vendor, lambda case, vendor=vendor: case.vendor == vendor),),  # type: ignore[misc]
        )


def artefact_splits(
    cases: Sequence[Case], groups: Sequence[tuple[Concept, ...]] = HELD_OUT_TOGETHER
) -> Iterator[Split]:
    """Concepts never seen in training, on patients never seen in training; the clean series are the other class."""
    fold = folds(cases)
    for group in groups:
        present = [concept for concept in group if any(touches(case, (concept,)) for case in cases)]
        yield Split(
            f"artefact never seen: {', '.join(present)}",
            "artefact",
            train=lambda case, group=group: not touches(case, group) and fold.get(case.patient, 0) == 0,  # type: ignore[misc]
            tests=tuple(
                (
                    str(concept),
                    lambda case, concept=concept: (
                        fold.get(case.patient) == 1  # type: ignore[misc]
                        and (not case.artifacts or (case.artifact != "mixed" and touches(case, (concept,))))
                    ),
                )
                for concept in present
            ),
        )


def patient_splits(cases: Sequence[Case], count: int = 2) -> Iterator[Split]:
    """New patients of known vendors."""
    fold = folds(cases, count)
    vendors = sorted({case.vendor for case in cases} - {SIMULATED})
    for held_out in range(count):
        yield Split(
            f"new patients, fold {held_out + 1}",
            "patient",
            train=lambda case, held_out=held_out: fold.get(case.patient) != held_out,  # type: ignore[misc]
            tests=tuple(
                (
                    vendor,
                    lambda case, vendor=vendor, held_out=held_out: (
                        case.vendor == vendor  # type: ignore[misc]
                        and fold.get(case.patient) == held_out
                    ),
                )
                for vendor in vendors
            ),
        )
