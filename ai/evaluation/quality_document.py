"""A study of splits as one document: settings, figures with intervals, bars, curves. It names no patient."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ai.evaluation.quality_curves import grade_coverage, reliability
from ai.evaluation.quality_models import ENSEMBLE
from ai.evaluation.quality_study import ScoredCase, StudyPlan
from ai.evaluation.quality_tables import BARS, MONOTONICITY_BAR, overviews, rows
from ai.quality.definitions import METRICS_VERSION
from ai.quality.grades import grade_table
from ai.quality.network.inputs import INPUT_VERSION

LIMITS = (
    "Simulated damage, measured by HaarPSI against the clean image; simulator, labels and models are of one project. "
    "No human grades. Research use only."
)


def study_document(plan: StudyPlan, scored: Sequence[ScoredCase]) -> dict[str, Any]:
    """Everything for JSON."""
    table = rows(scored)
    return {
        "limits": LIMITS,
        "versions": {"metrics": METRICS_VERSION, "input": INPUT_VERSION, "grades": grade_table().version},
        "schedule": asdict(plan.schedule),
        "seed": plan.seed,
        "splits": list(plan.kinds),
        "patients_tested": _patients_by_vendor(scored),
        "tests": [asdict(row) for row in table],
        "overviews": [asdict(overview) for overview in overviews(table)],
        "bars": {kind: asdict(bar) | {"monotonicity_violations": MONOTONICITY_BAR} for kind, bar in BARS.items()},
        "curves": {kind: _curves(scored, kind) for kind in plan.kinds},
    }


def _patients_by_vendor(scored: Sequence[ScoredCase]) -> dict[str, int]:
    known = {(case.vendor, case.patient) for case in scored}
    vendors = sorted(vendor for vendor, _ in known)
    return {vendor: vendors.count(vendor) for vendor in dict.fromkeys(vendors)}


def _curves(scored: Sequence[ScoredCase], kind: str) -> dict[str, Any]:
    """Reliability of the ensemble, and the area below the risk-coverage curve of the grades by model."""
    own = [case for case in scored if case.kind == kind]
    made = reliability([case for case in own if case.model == ENSEMBLE])
    models = dict.fromkeys(case.model for case in own)
    return {
        "reliability": None if made is None else asdict(made),
        "area_under_risk_coverage_of_grades": {
            model: grade_coverage([case for case in own if case.model == model]).area for model in models
        },
    }
