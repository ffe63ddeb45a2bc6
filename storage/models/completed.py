"""What tells that a study is complete: headers, and performed procedure steps (PS3.4 F)."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.models.base import Base

if TYPE_CHECKING:
    pass


class SeriesEvidence(Base):
    """What the headers of an open series say about its being complete, as of the last look at them."""

    __tablename__ = "series_evidence"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), unique=True)
    examined_through: Mapped[datetime]
    """``last_received_at`` of the series at the look; headers are read again only when that has moved on."""
    instances: Mapped[int]
    kind: Mapped[str] = mapped_column(String(32), default="")
    """An `EvidenceKind`; empty where the headers say nothing."""
    missing: Mapped[int] = mapped_column(default=0)
    open_ended: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text, default="")
    announced_study_instances: Mapped[int | None] = mapped_column(BigInteger)
    """Number of Study Related Instances (0020,1208), where the sender writes it."""


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252), its defined terms (PS3.3 C.4.14)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class PerformedProcedureStep(Base):
    """A Modality Performed Procedure Step as its modality reports it (PS3.4 F). Evidence for completion."""

    __tablename__ = "performed_procedure_step"

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    """A `StepStatus`."""
    calling_ae_title: Mapped[str] = mapped_column(Text, default="")
    peer_address: Mapped[str] = mapped_column(Text, default="")
    performed_procedure_step_id: Mapped[str] = mapped_column(Text, default="")
    performed_station_ae_title: Mapped[str] = mapped_column(Text, default="")
    modality: Mapped[str] = mapped_column(Text, default="")
    discontinuation_reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    studies: Mapped[list["PerformedStepStudy"]] = relationship(cascade="all, delete-orphan")
    instances: Mapped[list["PerformedInstance"]] = relationship(cascade="all, delete-orphan")


class PerformedStepStudy(Base):
    """A study that a performed procedure step belongs to; it may not have arrived yet."""

    __tablename__ = "performed_step_study"
    __table_args__ = (UniqueConstraint("step_id", "study_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    step_id: Mapped[int] = mapped_column(ForeignKey("performed_procedure_step.id"))
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)


class PerformedInstance(Base):
    """An instance that a performed procedure step names in its Performed Series Sequence (0040,0340)."""

    __tablename__ = "performed_instance"
    __table_args__ = (UniqueConstraint("step_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    step_id: Mapped[int] = mapped_column(ForeignKey("performed_procedure_step.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
