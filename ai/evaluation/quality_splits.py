"""How the quality model is held to account: what it is trained on, what it has never seen, hard splits first.

A random split flatters: slices of one patient are alike, and a new scanner breaks what looked good. Every split below
also keeps its test patients out of training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ai.quality.concepts import Concept
from ai.training.quality_cases import CONCEPT_OF_ARTIFACT, FOLDS, SIMULATED, Case, folds
from ai.training.quality_models import fold_name

Wanted = Callable[[Case], bool]
Test = tuple[str, Wanted]

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
    """One training and what it is tested on.

    Attributes:
        name: what the table calls it.
        kind: key of ``SPLITS``.
        trained_as: splits with the same word train on the same cases, and are trained once.
        train: whether a case is trained on.
        tests: names of the tests, and whether a case belongs.
        elsewhere: whether the tests are cases of the other simulators.
    """

    name: str
    kind: str
    trained_as: str
    train: Wanted
    tests: tuple[Test, ...]
    elsewhere: bool = False


def touches(case: Case, concepts: Sequence[Concept]) -> bool:
    """Whether an artefact of these concepts is in the case."""
    return any(CONCEPT_OF_ARTIFACT[name] in concepts for name, _ in case.artifacts)


def vendor_splits(cases: Sequence[Case]) -> Iterator[Split]:
    """Train on everything but one vendor, test on it; simulated anatomy has no vendor and is always trained on."""
    for vendor in _vendors(cases):

        def of_vendor(case: Case, vendor: str = vendor) -> bool:
            return case.vendor == vendor

        def of_others(case: Case, vendor: str = vendor) -> bool:
            return case.vendor != vendor

        yield Split(f"new vendor: {vendor}", "vendor", f"without-{vendor}", of_others, ((vendor, of_vendor),))


def artefact_splits(
    cases: Sequence[Case], groups: Sequence[tuple[Concept, ...]] = HELD_OUT_TOGETHER
) -> Iterator[Split]:
    """Concepts never seen in training, on patients never seen in training; the clean series are the other class."""
    fold = folds(cases)

    def test_of(concept: Concept) -> Wanted:
        def wanted(case: Case) -> bool:
            alone = case.artifact != "mixed" and touches(case, (concept,))
            return fold.get(case.patient) == 1 and (alone or not case.artifacts)

        return wanted

    for group in groups:
        held_out = [case for case in cases if fold.get(case.patient) == 1]
        tests = tuple(
            (str(one), test_of(one)) for one in group if any(touches(c, (one,)) and test_of(one)(c) for c in held_out)
        )

        def train(case: Case, group: tuple[Concept, ...] = group) -> bool:
            return not touches(case, group) and fold.get(case.patient, 0) == 0

        if tests:
            names = [name for name, _ in tests]
            yield Split(
                f"artefact never seen: {', '.join(names)}", "artefact", f"without-{'-'.join(names)}", train, tests
            )


def simulator_splits(cases: Sequence[Case]) -> Iterator[Split]:
    """New patients whose images other simulators damaged; trained as ``patient_splits`` is."""
    for number, train, tests in _held_out(cases):
        name = f"other simulator, fold {number + 1}"
        yield Split(name, "other-simulator", fold_name(number), train, tests, elsewhere=True)


def patient_splits(cases: Sequence[Case]) -> Iterator[Split]:
    """New patients of known vendors."""
    for number, train, tests in _held_out(cases):
        yield Split(f"new patients, fold {number + 1}", "patient", fold_name(number), train, tests)


def _held_out(cases: Sequence[Case]) -> Iterator[tuple[int, Wanted, tuple[Test, ...]]]:
    """Per fold: its number, what is trained on, and a test per vendor that has patients in it."""
    fold = folds(cases)
    for number in range(FOLDS):

        def train(case: Case, number: int = number) -> bool:
            return fold.get(case.patient) != number

        def test_of(vendor: str, number: int = number) -> Wanted:
            return lambda case: case.vendor == vendor and fold.get(case.patient) == number

        tests = tuple((vendor, test_of(vendor)) for vendor in _vendors(cases) if any(map(test_of(vendor), cases)))
        if tests:
            yield number, train, tests


def _vendors(cases: Sequence[Case]) -> list[str]:
    return sorted({case.vendor for case in cases} - {SIMULATED})


SPLITS: Mapping[str, Callable[[Sequence[Case]], Iterator[Split]]] = MappingProxyType(
    {
        "vendor": vendor_splits,
        "artefact": artefact_splits,
        "other-simulator": simulator_splits,
        "patient": patient_splits,
    }
)
"""By kind, the hard ones first. All are made of the cases of our own simulator."""
