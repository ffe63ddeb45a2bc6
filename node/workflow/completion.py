"""Step complete: read what headers say of the series being received, close what there is enough evidence for."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from ai.volumes.completeness import Completeness, completeness
from ai.volumes.stacks import build_stacks
from node.settings import CompletionSettings
from node.workflow.context import NodeContext
from storage.announced import announced_evidence, announced_study_instances, announced_temporal_positions
from storage.completion import (
    ClosedRevision,
    close_series,
    close_studies,
    save_examination,
    series_to_close,
    series_to_examine,
    studies_to_close,
)
from storage.evidence import CompletionPolicy, Evidence, EvidenceKind
from storage.header import dataset_from_json
from storage.series import series_headers

log = structlog.get_logger()


def completion_policy(settings: CompletionSettings) -> CompletionPolicy:
    """The policy that the site has set."""
    return CompletionPolicy(
        series_quiet_s=settings.series_quiet_s,
        study_quiet_s=settings.study_quiet_s,
        open_association_quiet_s=settings.open_association_quiet_s,
        guard_s=settings.evidence_guard_s,
        incomplete_wait_s=max(settings.incomplete_wait_s, settings.series_quiet_s),
        procedure_step_wait_s=settings.procedure_step_wait_s,
    )


def close_what_is_complete(context: NodeContext, policy: CompletionPolicy, now: datetime) -> list[ClosedRevision]:
    """Examine, then close series, then studies. Writes, and so locks, only where there is something to write."""
    _examine(context, policy, now)
    with context.database.read() as session:
        series = series_to_close(session, policy, now)
    if series:
        with context.database.session() as session:
            close_series(session, series, now)
    with context.database.read() as session:
        studies = studies_to_close(session, policy, now)
    if not studies:
        return []
    with context.database.session() as session:
        closed = close_studies(session, studies, now)
    for revision in closed:
        log.info("study.closed", study_instance_uid=revision.study_instance_uid, reason=revision.reason)
    return closed


def header_evidence(headers: Sequence[Mapping[str, Any]]) -> Evidence | None:
    """What the headers of one series say: the counts they announce, else the geometry of its volumes."""
    announced = announced_evidence(headers)
    if announced is not None:
        return announced
    stacks, _ = build_stacks(dataset_from_json(dict(header)) for header in headers)
    found = completeness(stacks, announced_temporal_positions(headers))
    return None if found is None else _geometry(found)


def _geometry(found: Completeness) -> Evidence:
    return Evidence(EvidenceKind.GEOMETRY, found.missing_slices, found.reason, open_ended=True)


def _examine(context: NodeContext, policy: CompletionPolicy, now: datetime) -> None:
    with context.database.read() as session:
        looks = [
            (series, series_headers(session, series.series_id)) for series in series_to_examine(session, policy, now)
        ]
    if not looks:
        return
    examined = [(series, header_evidence(headers), announced_study_instances(headers)) for series, headers in looks]
    with context.database.session() as session:
        for series, evidence, study_instances in examined:
            save_examination(session, series, evidence, study_instances)
