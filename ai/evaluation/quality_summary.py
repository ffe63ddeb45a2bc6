"""The records of a quality evaluation in figures: verdict shares, misses, false alarms, rises of the score."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ai.evaluation.quality import TUNED_ON_REAL_TOO, TUNED_ON_SIMULATED, TUNING_SEEDS, QualityRecord, aimed_criteria
from ai.evaluation.statistics import Estimate, proportion, rises
from ai.quality.scoring import NON_DIAGNOSTIC_BELOW
from ai.quality.types import Verdict

CLEARLY_VISIBLE = 3
RUINED = 5
"""What the simulator means by its severities: 3 is clearly visible, 5 clearly non-diagnostic."""

RISE_TOLERANCE = 0.02
"""A score that rises by no more than this with severity counts as unchanged."""


@dataclass(frozen=True)
class VerdictCell:
    """The verdicts on the series of one role that an artefact hit at one severity; severity 0 is clean."""

    artifact: str
    role: str
    severity: int
    series: int
    verdicts: Mapping[str, int]
    mean_score: float | None


@dataclass(frozen=True)
class ArtifactSummary:
    """How one artefact fared on one role, over all seeds.

    ``aimed_at`` are the metrics made for it; ``can_disqualify`` tells whether one of them may do more than limit.
    ``passed_visible`` is the share of series of severity 3 to 5 called diagnostic, ``passed_ruined`` the share of
    severity 5 called anything but non-diagnostic. Severities of one seed are not independent: ``passed_visible`` has
    no interval.
    """

    artifact: str
    role: str
    aimed_at: tuple[str, ...]
    tuned_on_simulated: bool
    tuned_on_real_too: bool
    can_disqualify: bool
    passed_visible: Estimate
    passed_ruined: Estimate
    rises: int
    steps: int
    largest_rise: float


@dataclass(frozen=True)
class QualitySummary:
    """Everything a table or JSON of the evaluation shows."""

    seeds: tuple[int, ...]
    held_out: bool
    clean_called_diagnostic: Mapping[str, Estimate]
    clean_called_non_diagnostic: Mapping[str, Estimate]
    clean_gate_open: Estimate
    cells: tuple[VerdictCell, ...]
    artifacts: tuple[ArtifactSummary, ...]

    def document(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)


def summarise(records: Iterable[QualityRecord]) -> QualitySummary:
    """Count the records of one evaluation."""
    known = list(records)
    clean = [record for record in known if record.artifact is None]
    hit = list(dict.fromkeys((record.artifact, record.role) for record in known if record.artifact is not None))
    roles = list(dict.fromkeys(record.role for record in clean))
    gates = {record.seed: record.gate_open for record in clean}
    seeds = tuple(sorted({record.seed for record in known}))
    return QualitySummary(
        seeds=seeds,
        held_out=TUNING_SEEDS.isdisjoint(seeds),
        clean_called_diagnostic={str(role): _share(clean, role, Verdict.DIAGNOSTIC) for role in roles},
        clean_called_non_diagnostic={str(role): _share(clean, role, Verdict.NON_DIAGNOSTIC) for role in roles},
        clean_gate_open=proportion(sum(gates.values()), len(gates)),
        cells=tuple(cell for artifact, role in hit for cell in _cells(known, artifact, role)),
        artifacts=tuple(_artifact(known, artifact, role) for artifact, role in hit),
    )


def _share(clean: Sequence[QualityRecord], role: str, verdict: Verdict) -> Estimate:
    verdicts = [record.verdict for record in clean if record.role == role]
    return proportion(verdicts.count(verdict), len(verdicts))


def _series(records: Sequence[QualityRecord], artifact: str, role: str) -> dict[int, list[QualityRecord]]:
    """By severity the series of a role an artefact hit, with the clean ones of the same seeds as severity 0."""
    own = [record for record in records if record.artifact == artifact and record.role == role]
    seeds = {record.seed for record in own}
    own += [record for record in records if record.artifact is None and record.role == role and record.seed in seeds]
    severities = sorted({record.severity for record in own})
    return {severity: [record for record in own if record.severity == severity] for severity in severities}


def _cells(records: Sequence[QualityRecord], artifact: str, role: str) -> list[VerdictCell]:
    cells = []
    for severity, series in _series(records, artifact, role).items():
        scores = [record.score for record in series if record.score is not None]
        counts = Counter(str(record.verdict) for record in series)
        mean = sum(scores) / len(scores) if scores else None
        cells.append(VerdictCell(artifact, role, severity, len(series), dict(counts), mean))
    return cells


def _artifact(records: Sequence[QualityRecord], artifact: str, role: str) -> ArtifactSummary:
    by_severity = _series(records, artifact, role)
    aimed = aimed_criteria(artifact, role)
    visible = [record for severity, group in by_severity.items() if severity >= CLEARLY_VISIBLE for record in group]
    passed = sum(record.verdict is Verdict.DIAGNOSTIC for record in visible)
    ruined = by_severity.get(RUINED, [])
    seeds = {record.seed for group in by_severity.values() for record in group}
    found: list[float] = []
    for seed in seeds:
        scores = [record.score for group in by_severity.values() for record in group if record.seed == seed]
        found += rises(scores, RISE_TOLERANCE)
    return ArtifactSummary(
        artifact=artifact,
        role=role,
        aimed_at=tuple(criterion.metric for criterion in aimed),
        tuned_on_simulated=artifact in TUNED_ON_SIMULATED,
        tuned_on_real_too=artifact in TUNED_ON_REAL_TOO,
        can_disqualify=any(min(score for _, score in c.curve) < NON_DIAGNOSTIC_BELOW for c in aimed),
        passed_visible=Estimate(passed / len(visible) if visible else None, len(visible)),
        passed_ruined=proportion(sum(r.verdict is not Verdict.NON_DIAGNOSTIC for r in ruined), len(ruined)),
        rises=len(found),
        steps=len(seeds) * (len(by_severity) - 1),
        largest_rise=max(found, default=0.0),
    )
