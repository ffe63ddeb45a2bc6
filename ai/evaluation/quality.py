"""The quality rules against simulated artefacts: verdicts per artefact and severity, and what clean series are called.

What it can tell: whether the rules see the artefacts of ``ai.simulation``, whether their score falls as the artefact
grows, and how often they condemn a clean simulated series. What it cannot tell: how far verdicts agree with
radiologists, because no simulated image was graded by one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from ai.evaluation.simulated import FULL_PROTOCOLS, SimulatedCase, Simulator
from ai.quality.assess import assess
from ai.quality.scoring import CRITERIA, Criterion
from ai.quality.types import Verdict
from ai.simulation.artifacts import ARTIFACTS, SEVERITIES
from ai.simulation.protocol import Protocol, SeriesKind
from ai.volumes.types import Role

SHORT_PROTOCOLS: tuple[Protocol, ...] = tuple(
    replace(protocol, slices=protocol.slices // 2, slice_thickness_mm=2 * protocol.slice_thickness_mm)
    for protocol in FULL_PROTOCOLS
)
"""Half the slices, twice as thick: half the time at the same coverage and the same resolution in the slice plane."""

TUNING_SEEDS = frozenset({1, 2})
"""Simulated seeds that were looked at, with every artefact, when the curves were placed (``ai.quality.scoring``)."""

FIRST_HELD_OUT_SEED = 100

AIMED_AT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "motion": ("gradient_concentration",),
        "ghosting": ("ghost_prominence",),
        "nyquist-ghost": ("ghost_prominence",),
        "noise": ("structure_to_noise",),
        "low-averages": ("structure_to_noise",),
        "noise-floor": ("structure_to_noise",),
        "blur": ("edge_width",),
        "t2-blur": ("edge_width",),
        "bias": ("bias_field_range", "hot_spot_ratio"),
        "gibbs": (),
        "spike": (),
        "zipper": (),
        "wrap": (),
        "distortion": ("displacement_p95",),
        "dropout": (),
        "eddy": (),
        "fat-shift": (),
    }
)
"""Metrics of the rules that were made for an artefact or its like; empty: found, if at all, by side effects."""

TUNED_ON_SIMULATED = frozenset({"motion", "ghosting", "noise", "blur", "bias", "spike", "wrap", "distortion"})
"""Artefacts that simulated studies had when the curves were placed; the others came later."""

TUNED_ON_REAL_TOO = frozenset({"motion", "ghosting", "noise", "blur"})
"""Artefacts that were also put on real series when the curves were placed."""

_ROLES = {SeriesKind.T2_AXIAL: (Role.T2W_AXIAL,), SeriesKind.DWI: (Role.DWI, Role.ADC)}


@dataclass(frozen=True)
class QualityRecord:
    """What one series of one simulated study was called. ``artifact`` is None and ``severity`` 0 where it is clean."""

    seed: int
    artifact: str | None
    severity: int
    role: str
    verdict: Verdict
    score: float | None
    gate_open: bool


def hit_roles(artifact: str) -> tuple[str, ...]:
    """Roles of the evaluated series that an artefact changes; the ADC map follows from the DWI."""
    return tuple(role for kind, roles in _ROLES.items() if kind in ARTIFACTS[artifact].applies_to for role in roles)


def aimed_criteria(artifact: str, role: str) -> tuple[Criterion, ...]:
    """Criteria of a role that were made for an artefact."""
    return tuple(criterion for criterion in CRITERIA[role] if criterion.metric in AIMED_AT[artifact])


def evaluate_quality(
    seeds: Sequence[int],
    artifacts: Sequence[str] = tuple(ARTIFACTS),
    clean_seeds: Sequence[int] = (),
    simulator: Simulator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[QualityRecord]:
    """Simulate and assess: per seed one clean study and every artefact at every severity; per clean seed a clean one.

    Args:
        seeds: anatomies that meet every artefact.
        artifacts: names of ``ARTIFACTS``.
        clean_seeds: further anatomies that are only looked at clean.
        simulator: default: ``SHORT_PROTOCOLS``.
        progress: told what is being done, once per study.

    Yields:
        One record per series of a clean study, and per series that the artefact hits of the others.

    Raises:
        ValueError: an unknown artefact.
    """
    if unknown := sorted(set(artifacts) - set(ARTIFACTS)):
        raise ValueError(f"unknown artefact {', '.join(unknown)}; there are {', '.join(ARTIFACTS)}")
    made_by = simulator or Simulator(SHORT_PROTOCOLS)
    conditions: list[tuple[str | None, int]] = [(name, severity) for name in artifacts for severity in SEVERITIES]
    clean: list[tuple[str | None, int]] = [(None, 0)]
    plan = [(seed, clean + conditions) for seed in seeds] + [(seed, clean) for seed in clean_seeds if seed not in seeds]
    total = sum(len(wanted) for _, wanted in plan)
    number = 0
    for seed, wanted in plan:
        for artifact, severity in wanted:
            number += 1
            progress(f"{number} of {total}: seed {seed}, {'clean' if artifact is None else f'{artifact} {severity}'}")
            yield from _records(made_by.case(seed, artifact, severity), seed, artifact, severity)


def _records(case: SimulatedCase, seed: int, artifact: str | None, severity: int) -> Iterator[QualityRecord]:
    study = assess(case.assembly, case.source)
    roles = tuple(role for all_of_kind in _ROLES.values() for role in all_of_kind)
    wanted = roles if artifact is None else hit_roles(artifact)
    for series in study.series:
        if series.role in wanted:
            yield QualityRecord(seed, artifact, severity, series.role, series.verdict, series.score, study.gate.open)
