"""The assessment as a JSON document (the contract of the command line) and back, without loss."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ai.quality.calibration import SHIPPED
from ai.quality.types import (
    CalibrationStamp,
    Code,
    Finding,
    GateDecision,
    Metric,
    SeriesAssessment,
    Severity,
    SliceScore,
    StudyAssessment,
    Verdict,
)


def to_document(study: StudyAssessment) -> dict[str, Any]:
    """The study as a dictionary of JSON types only; ``from_document`` restores an equal object."""
    return {
        "study_instance_uid": study.study_instance_uid,
        "verdict": study.verdict.value,
        "reason": study.reason,
        "gate": {
            "open": study.gate.open,
            "reasons": list(study.gate.reasons),
            "rule": study.gate.rule,
            "statement": study.gate.statement,
        },
        "calibration": stamp_to_document(study.calibration or SHIPPED),
        "findings": [_finding_document(finding) for finding in study.findings],
        "series": [series_to_document(series) for series in study.series],
    }


def from_document(document: Mapping[str, Any]) -> StudyAssessment:
    """The study of a document that ``to_document`` made.

    Raises:
        KeyError: a key of the contract is absent.
        ValueError: a verdict or severity is not of the vocabulary.
    """
    gate = document["gate"]
    return StudyAssessment(
        study_instance_uid=document["study_instance_uid"],
        verdict=Verdict(document["verdict"]),
        reason=document["reason"],
        series=tuple(series_from_document(entry) for entry in document["series"]),
        # Documents of earlier versions name no rule and, below, no novelty and no calibration.
        gate=GateDecision(gate["open"], tuple(gate["reasons"]), gate.get("rule", ""), gate.get("statement", "")),
        findings=_findings(document["findings"]),
    )


def series_to_document(series: SeriesAssessment) -> dict[str, Any]:
    """One series as a dictionary of JSON types only; ``series_from_document`` restores an equal object."""
    return {
        "series_instance_uid": series.series_instance_uid,
        "series_number": series.series_number,
        "series_description": series.series_description,
        "role": str(series.role),
        "role_reasons": list(series.role_reasons),
        "b_value": series.b_value,
        "b_values": list(series.b_values),
        "verdict": series.verdict.value,
        "score": series.score,
        "probability_non_diagnostic": series.probability_non_diagnostic,
        "slices": [
            {"sop_instance_uid": entry.sop_instance_uid, "frame_number": entry.frame_number, "score": entry.score}
            for entry in series.slices
        ],
        "findings": [_finding_document(finding) for finding in series.findings],
        "metrics": {
            metric.name: {
                "value": metric.value,
                "unit": metric.unit,
                "meaning": metric.meaning,
                "reason": metric.reason,
            }
            for metric in series.metrics
        },
        "meets_standard": series.meets_standard,
        "not_checkable": list(series.not_checkable),
        "compared_with": series.compared_with,
        "novelty": series.novelty,
        "calibration": stamp_to_document(series.calibration) if series.calibration else None,
        "reason": series.reason,
    }


def series_from_document(document: Mapping[str, Any]) -> SeriesAssessment:
    """The series of a document that ``series_to_document`` made; errors as of ``from_document``."""
    return SeriesAssessment(
        series_instance_uid=document["series_instance_uid"],
        series_number=document["series_number"],
        series_description=document["series_description"],
        role=document["role"],
        b_value=document["b_value"],
        b_values=tuple(document["b_values"]),
        verdict=Verdict(document["verdict"]),
        score=document["score"],
        reason=document["reason"],
        probability_non_diagnostic=document["probability_non_diagnostic"],
        slices=tuple(
            SliceScore(entry["sop_instance_uid"], entry["frame_number"], entry["score"]) for entry in document["slices"]
        ),
        findings=_findings(document["findings"]),
        metrics=tuple(
            Metric(name, entry["value"], entry["unit"], entry["meaning"], entry["reason"])
            for name, entry in document["metrics"].items()
        ),
        meets_standard=document["meets_standard"],
        role_reasons=tuple(document["role_reasons"]),
        not_checkable=tuple(document["not_checkable"]),
        compared_with=document.get("compared_with", ""),
        novelty=document.get("novelty", ""),
        calibration=CalibrationStamp(**stamp) if (stamp := document.get("calibration")) else None,
    )


def stamp_to_document(stamp: CalibrationStamp) -> dict[str, str]:
    """A calibration's stamp as a dictionary of strings."""
    return asdict(stamp)


def _finding_document(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code.value,
        "scheme": finding.code.scheme,
        "meaning": finding.code.meaning,
        "value": finding.value,
        "severity": finding.severity.value,
        "text": finding.text,
        "sop_instance_uids": list(finding.sop_instance_uids),
    }


def _findings(documents: Sequence[Mapping[str, Any]]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            code=Code(entry["code"], entry["scheme"], entry["meaning"]),
            severity=Severity(entry["severity"]),
            text=entry["text"],
            value=entry["value"],
            sop_instance_uids=tuple(entry["sop_instance_uids"]),
        )
        for entry in documents
    )
