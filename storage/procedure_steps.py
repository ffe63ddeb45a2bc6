"""Modality Performed Procedure Steps as rows (PS3.4 F): what a modality says it is doing and, at the end, has made."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from storage.errors import StorageError
from storage.journal import record
from storage.models import Instance, PerformedInstance, PerformedProcedureStep, PerformedStepStudy, StepStatus
from storage.upsert import insert_if_absent

MAXIMUM_STUDIES = 64
"""Studies of one step; a step that serves several requests has a handful."""


class DuplicateStep(StorageError):
    """A procedure step of this SOP Instance UID exists."""


class UnknownStep(StorageError):
    """No procedure step of this SOP Instance UID exists."""


class StepHasEnded(StorageError):
    """The procedure step is completed or discontinued and may no longer be updated (PS3.4 F.7.2.2)."""


@dataclass(frozen=True)
class NewStep:
    """A procedure step as its modality creates it; texts as far as the index keeps them."""

    sop_instance_uid: str
    study_instance_uids: Sequence[str]
    calling_ae_title: str
    peer_address: str
    performed_procedure_step_id: str
    performed_station_ae_title: str
    modality: str


@dataclass(frozen=True)
class NamedInstance:
    """An instance that a step names."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class StepUpdate:
    """What an N-SET changes; None leaves it as it is."""

    status: StepStatus | None
    instances: Sequence[NamedInstance] | None
    discontinuation_reason: str


def create_step(session: Session, step: NewStep, now: datetime) -> None:
    """Write a step that has begun. Raises DuplicateStep."""
    values = {
        "status": StepStatus.IN_PROGRESS,
        "calling_ae_title": step.calling_ae_title,
        "peer_address": step.peer_address,
        "performed_procedure_step_id": step.performed_procedure_step_id,
        "performed_station_ae_title": step.performed_station_ae_title,
        "modality": step.modality,
        "created_at": now,
        "updated_at": now,
    }
    key = {"sop_instance_uid": step.sop_instance_uid}
    step_id = insert_if_absent(session, PerformedProcedureStep, key, values)
    if step_id is None:
        raise DuplicateStep(f"performed procedure step {step.sop_instance_uid} exists already")
    for uid in dict.fromkeys(step.study_instance_uids):
        session.add(PerformedStepStudy(step_id=step_id, study_instance_uid=uid))
        record(
            session,
            "procedure-step-started",
            f"{step.calling_ae_title} has begun performed procedure step {step.sop_instance_uid}",
            uid,
            sop_instance_uid=step.sop_instance_uid,
        )


def update_step(session: Session, sop_instance_uid: str, update: StepUpdate, now: datetime) -> StepStatus:
    """Change a step that has not ended; returns its status. Raises UnknownStep, StepHasEnded."""
    step = session.scalar(
        select(PerformedProcedureStep)
        .where(PerformedProcedureStep.sop_instance_uid == sop_instance_uid)
        .with_for_update()
    )
    if step is None:
        raise UnknownStep(f"performed procedure step {sop_instance_uid} is not known here")
    if step.status != StepStatus.IN_PROGRESS:
        raise StepHasEnded(f"performed procedure step {sop_instance_uid} is {step.status}; it is final")
    if update.instances is not None:
        _replace_instances(session, step.id, update.instances)
    if update.discontinuation_reason:
        step.discontinuation_reason = update.discontinuation_reason
    step.updated_at = now
    if update.status is not None:
        step.status = update.status
    if step.status != StepStatus.IN_PROGRESS:
        _note_end(session, step)
    return StepStatus(step.status)


def _replace_instances(session: Session, step_id: int, instances: Sequence[NamedInstance]) -> None:
    """The whole Performed Series Sequence is sent with each N-SET that has it."""
    session.execute(delete(PerformedInstance).where(PerformedInstance.step_id == step_id))
    named = {instance.sop_instance_uid: instance for instance in instances}
    rows = [
        {
            "step_id": step_id,
            "series_instance_uid": instance.series_instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "sop_instance_uid": instance.sop_instance_uid,
        }
        for instance in named.values()
    ]
    if rows:
        session.execute(insert(PerformedInstance), rows)


def _note_end(session: Session, step: PerformedProcedureStep) -> None:
    named, series, here = session.execute(
        select(
            func.count(PerformedInstance.id),
            func.count(func.distinct(PerformedInstance.series_instance_uid)),
            func.count(Instance.id),
        )
        .outerjoin(Instance, Instance.sop_instance_uid == PerformedInstance.sop_instance_uid)
        .where(PerformedInstance.step_id == step.id)
    ).one()
    why = f" ({step.discontinuation_reason})" if step.discontinuation_reason else ""
    what = f"names {named} instances of {series} series, {here} of them here" if named else "names no instances"
    for study in session.scalars(select(PerformedStepStudy).where(PerformedStepStudy.step_id == step.id)):
        record(
            session,
            "procedure-step-ended",
            f"performed procedure step {step.sop_instance_uid} is {step.status.lower()}{why}; it {what}",
            study.study_instance_uid,
            sop_instance_uid=step.sop_instance_uid,
            status=step.status,
            named=named,
            here=here,
        )
