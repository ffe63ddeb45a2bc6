"""Step assess: judge the quality of every series whose verdict is not known yet or no longer holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai.quality.assess import assess
from ai.quality.calibration import Calibration
from ai.quality.document import series_from_document, stamp_to_document, to_document
from ai.quality.types import SeriesAssessment
from ai.volumes.types import Assembly, RoledStack
from node.workflow.assess_series import roles_of
from node.workflow.context import NodeContext
from node.workflow.version import PIPELINE_VERSION
from storage.journal import record
from storage.revisions import REPLAYED, assessments_that_hold, find_revision, save_assessments, stored_instances
from storage.series import KnownVerdict, known_verdicts


@dataclass(frozen=True)
class _Known:
    """What need not be judged again, and why the rest has to be, by Series Instance UID."""

    assessments: dict[str, SeriesAssessment]
    when_closed: int
    before: int
    judged_again: dict[str, str]


def assess_step(context: NodeContext, study_instance_uid: str, number: int) -> None:
    """Write one assessment per series.

    Kept is what was said of a series when it closed, or in the revision before, as long as it has not changed, has the
    same role among all series of the study as it had then, and would be judged by the same calibration.
    """
    study = context.study(study_instance_uid, number)
    with context.database.read() as session:
        revision = find_revision(session, study_instance_uid, number)
        before = assessments_that_hold(session, revision, PIPELINE_VERSION)
        early: Mapping[str, KnownVerdict] = {}
        if revision.closed_reason != REPLAYED:
            instances = stored_instances(session, revision)
            early = known_verdicts(session, revision.study_id, instances, PIPELINE_VERSION)
    calibration = context.calibration
    known = _still_valid(study.assembly, early, before, calibration)
    document = to_document(assess(study.assembly, study.source, known=known.assessments, calibration=calibration))
    again = f", {len(known.judged_again)} judged again in the light of the whole study" if known.judged_again else ""
    with context.database.session() as session:
        save_assessments(session, find_revision(session, study_instance_uid, number), document["series"])
        record(
            session,
            "assessed",
            f"{len(document['series'])} series, {known.before} of them unchanged since the revision before{again}",
            study_instance_uid,
            revision=number,
            verdicts={series["series_instance_uid"]: series["verdict"] for series in document["series"]},
            judged_when_closed=known.when_closed,
            judged_again=known.judged_again,
        )


def _still_valid(
    assembly: Assembly,
    early: Mapping[str, KnownVerdict],
    before: Mapping[str, Mapping[str, Any]],
    calibration: Calibration | None,
) -> _Known:
    assessments: dict[str, SeriesAssessment] = {}
    when_closed, kept, judged_again = 0, 0, {}
    for uid, entries in _by_series(assembly.stacks).items():
        earlier = before.get(uid) or (early[uid].document if uid in early else None)
        if earlier is not None and not _calibrated_alike(earlier, calibration):
            judged_again[uid] = "the calibration of the quality score has changed"
        elif uid in before and _rests_on(before[uid], entries):
            assessments[uid] = series_from_document(before[uid])
            kept += 1
        elif uid in early and early[uid].roles == roles_of(entries):
            assessments[uid] = series_from_document(early[uid].document)
            when_closed += 1
        elif uid in before or uid in early:
            judged_again[uid] = "; ".join(f"{entry.role}: {', '.join(entry.reasons)}" for entry in entries[:1])
    return _Known(assessments, when_closed, kept, judged_again)


def _rests_on(document: Mapping[str, Any], entries: Sequence[RoledStack]) -> bool:
    """Whether an assessment's role, and the reasons for it, are still those of the series."""
    return any(
        (str(entry.role), list(entry.reasons)) == (document["role"], document["role_reasons"]) for entry in entries
    )


def _calibrated_alike(document: Mapping[str, Any], calibration: Calibration | None) -> bool:
    """Whether today's calibration is that of an assessment; where there is no score, none was used."""
    stamp = None if calibration is None else calibration.stamp_for(document["role"])
    return document["score"] is None or document.get("calibration") == (stamp_to_document(stamp) if stamp else None)


def _by_series(stacks: Sequence[RoledStack]) -> dict[str, list[RoledStack]]:
    groups: dict[str, list[RoledStack]] = {}
    for entry in stacks:
        groups.setdefault(entry.stack.series_instance_uid, []).append(entry)
    return groups
