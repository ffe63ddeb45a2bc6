"""What was received: patients, studies, series, instances, and the associations they came over."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.models.base import Base, Json

if TYPE_CHECKING:
    from storage.models.judged import DetectionCandidate, ResultObject, SeriesAssessmentRow, StudyVerdict


class Patient(Base):
    """A patient as the senders name them. Identity is the whole tuple: a mistyped ID never merges two people."""

    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(Text, index=True)
    issuer_of_patient_id: Mapped[str] = mapped_column(Text, default="")
    patient_name: Mapped[str] = mapped_column(Text, default="", index=True)
    patient_birth_date: Mapped[str] = mapped_column(Text, default="")
    patient_sex: Mapped[str] = mapped_column(Text, default="")

    studies: Mapped[list["Study"]] = relationship(back_populates="patient")


class Study(Base):
    """A study and where it stands on its way."""

    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patient.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    study_date: Mapped[str] = mapped_column(Text, default="", index=True)
    study_time: Mapped[str] = mapped_column(Text, default="")
    study_id: Mapped[str] = mapped_column(Text, default="")
    accession_number: Mapped[str] = mapped_column(Text, default="", index=True)
    study_description: Mapped[str] = mapped_column(Text, default="")
    referring_physician_name: Mapped[str] = mapped_column(Text, default="")
    first_received_at: Mapped[datetime]
    last_received_at: Mapped[datetime] = mapped_column(index=True)

    patient: Mapped[Patient] = relationship(back_populates="studies")
    series: Mapped[list["Series"]] = relationship(back_populates="study")
    revisions: Mapped[list["StudyRevision"]] = relationship(back_populates="study", order_by="StudyRevision.number")


class Series(Base):
    """A series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    modality: Mapped[str] = mapped_column(Text, default="")
    series_number: Mapped[int | None] = mapped_column(BigInteger)
    series_description: Mapped[str] = mapped_column(Text, default="")
    body_part_examined: Mapped[str] = mapped_column(Text, default="")
    manufacturer: Mapped[str] = mapped_column(Text, default="")
    station_name: Mapped[str] = mapped_column(Text, default="")
    last_received_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    """When it was last taken to be complete; an instance received later re-opens it."""
    routed_until: Mapped[datetime | None]
    """Its ``last_received_at`` when its instances were last handed on to destinations; older where more has come."""
    closed_through: Mapped[datetime | None]
    """``last_received_at`` as it was then: the series is open again when that has moved on."""
    closings: Mapped[int] = mapped_column(default=0)
    """How often it has been closed; numbers the verdicts on it."""
    closed_evidence: Mapped[str] = mapped_column(String(32), default="")
    """What closed it, a `storage.evidence.EvidenceKind`."""
    closed_confidence: Mapped[str] = mapped_column(String(16), default="")
    """A `storage.evidence.Confidence`."""
    closed_reason: Mapped[str] = mapped_column(Text, default="")

    study: Mapped[Study] = relationship(back_populates="series")
    instances: Mapped[list["Instance"]] = relationship(back_populates="series")


class Association(Base):
    """A DICOM association with a sender; open while ``released_at`` is NULL. Evidence for completion."""

    __tablename__ = "association"

    id: Mapped[int] = mapped_column(primary_key=True)
    receiver: Mapped[str] = mapped_column(Text, index=True)
    """The receiver slot that holds it, so that a restarted receiver can close what its crash left open."""
    calling_ae_title: Mapped[str] = mapped_column(Text)
    peer_address: Mapped[str] = mapped_column(Text)
    opened_at: Mapped[datetime]
    released_at: Mapped[datetime | None]
    instances_received: Mapped[int] = mapped_column(default=0)
    """Instances in the index that came over it; counted when it ends."""


class Instance(Base):
    """A received instance: where its bytes are and its header as DICOM JSON (PS3.18 F), without bulk data.

    ``header`` is the DICOM JSON of the data set, ``file_meta`` that of its file meta information.
    ``object_digest`` is the SHA-256 of the stored Part 10 file, its name in the object store.
    """

    __tablename__ = "instance"
    __table_args__ = (
        Index("ix_instance_series_received", "series_id", "received_at"),
        Index(
            "ix_instance_undescribed",
            "id",
            sqlite_where=text("header IS NULL"),
            postgresql_where=text("header IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    association_id: Mapped[int | None] = mapped_column(ForeignKey("association.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    revision_number: Mapped[int]
    """The study revision it arrived in: later revisions contain it, earlier ones never see it."""
    instance_number: Mapped[int | None] = mapped_column(BigInteger)
    number_of_frames: Mapped[int | None] = mapped_column(BigInteger)
    object_digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[datetime]
    source_ae_title: Mapped[str] = mapped_column(Text, default="")
    header: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """NULL until the header has been described, which the receiver leaves to `storage.describe`."""
    header_faults: Mapped[list[str]] = mapped_column(default=list)
    """Elements that could not be read, each with its reason."""

    series: Mapped[Series] = relationship(back_populates="instances")


class RevisionState(StrEnum):
    """Where a study revision stands."""

    RECEIVING = "receiving"
    CLOSED = "closed"
    FINISHED = "finished"
    FAILED = "failed"


class StudyRevision(Base):
    """One state of a study's contents. A late instance opens the next revision, which is judged anew.

    At most one revision of a study is ``receiving``.
    """

    __tablename__ = "study_revision"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index("ix_study_revision_state", "state"),
        Index(
            "ix_study_revision_not_routed",
            "state",
            sqlite_where=text("routed_at IS NULL"),
            postgresql_where=text("routed_at IS NULL"),
        ),
        Index(
            "uq_study_revision_receiving",
            "study_id",
            unique=True,
            sqlite_where=text("state = 'receiving'"),
            postgresql_where=text("state = 'receiving'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default=RevisionState.RECEIVING)
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    closed_evidence: Mapped[str] = mapped_column(String(32), default="")
    """What closed it, a `storage.evidence.EvidenceKind`; empty for a replay."""
    closed_confidence: Mapped[str] = mapped_column(String(16), default="")
    """A `storage.evidence.Confidence`."""
    closed_reason: Mapped[str] = mapped_column(Text, default="")
    finished_at: Mapped[datetime | None]
    routed_at: Mapped[datetime | None]
    """When the rules had their last word on its received instances, verdict included."""
    failure: Mapped[str] = mapped_column(Text, default="")
    pipeline_version: Mapped[str] = mapped_column(Text, default="")

    study: Mapped[Study] = relationship(back_populates="revisions")
    assessments: Mapped[list["SeriesAssessmentRow"]] = relationship(
        back_populates="revision", order_by="SeriesAssessmentRow.id"
    )
    verdict: Mapped["StudyVerdict | None"] = relationship(back_populates="revision")
    candidates: Mapped[list["DetectionCandidate"]] = relationship(
        back_populates="revision", order_by="DetectionCandidate.id"
    )
    results: Mapped[list["ResultObject"]] = relationship(
        back_populates="revision",
        order_by="ResultObject.id",
        primaryjoin="and_(StudyRevision.id == ResultObject.revision_id, ResultObject.variant_of == '')",
    )
    """The result objects, without their variants."""
