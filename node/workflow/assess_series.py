"""Step assess of a single series: its verdict as soon as it is closed, while its study is still being received."""

from collections.abc import Iterable
from typing import Any

import structlog

from ai.quality.assess import assess_series
from ai.quality.document import series_to_document
from ai.quality.types import SeriesAssessment, Verdict
from ai.volumes.types import Role, RoledStack
from node.workflow.context import NodeContext
from node.workflow.version import PIPELINE_VERSION
from storage.journal import record
from storage.models import utc_now
from storage.series import fingerprint, save_series_verdict, series_instances

log = structlog.get_logger()


def assess_series_step(context: NodeContext, study_instance_uid: str, series_instance_uid: str, closing: int) -> None:
    """Verify the series' bytes, sort them into volumes and write the verdict, with the roles it rests on.

    Raises IntegrityError where an object is damaged.
    """
    with context.database.read() as session:
        instances = series_instances(session, study_instance_uid, series_instance_uid)
    for instance in instances:
        context.objects.verify(instance.object_digest)
    series = context.load(study_instance_uid, instances, 0, utc_now())
    judged = assess_series(series.assembly, series.source, calibration=context.calibration)
    verdict = judged[0] if judged else _no_verdict(series_instance_uid, "no images that form a volume")
    _save(
        context,
        study_instance_uid,
        verdict,
        closing=closing,
        fingerprint=fingerprint(instances),
        roles=roles_of(series.assembly.stacks),
    )


def series_failed(
    context: NodeContext, study_instance_uid: str, series_instance_uid: str, closing: int, reason: str
) -> None:
    """The series could not be judged alone; its study will try again and has the last word."""
    verdict = _no_verdict(series_instance_uid, f"could not be judged: {reason}")
    _save(context, study_instance_uid, verdict, closing=closing, fingerprint="", roles={})
    log.error("series.failed", series_instance_uid=series_instance_uid, closing=closing, reason=reason)


def roles_of(stacks: Iterable[RoledStack]) -> dict[str, Any]:
    """Volume id -> role and reasons: what a verdict rests on besides the pixels."""
    return {entry.stack.volume_id: [str(entry.role), *entry.reasons] for entry in stacks}


def _save(
    context: NodeContext,
    study_instance_uid: str,
    verdict: SeriesAssessment,
    *,
    closing: int,
    fingerprint: str,
    roles: dict[str, Any],
) -> None:
    with context.database.session() as session:
        saved = save_series_verdict(
            session,
            study_instance_uid,
            series_to_document(verdict),
            closing=closing,
            fingerprint=fingerprint,
            pipeline_version=PIPELINE_VERSION,
            roles=roles,
            decided_at=utc_now(),
        )
        if saved:
            record(
                session,
                "series-assessed",
                f"{verdict.role}: {verdict.verdict}, {verdict.reason}",
                study_instance_uid,
                series_instance_uid=verdict.series_instance_uid,
                verdict=verdict.verdict,
                score=verdict.score,
            )


def _no_verdict(series_instance_uid: str, reason: str) -> SeriesAssessment:
    return SeriesAssessment(
        series_instance_uid=series_instance_uid,
        series_number=None,
        series_description="",
        role=Role.OTHER,
        b_value=None,
        b_values=(),
        verdict=Verdict.NOT_ASSESSED,
        score=None,
        reason=reason,
    )
