"""The SQL schema, typed. The same on SQLite and PostgreSQL; times are UTC; foreign keys are on.

Attributes that mirror a DICOM keyword keep its spelling in snake_case. Text is Unicode; the original bytes stay in
the object store. Optional DICOM text is stored as an empty string, not NULL, so that unique keys work on both engines.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A time that is aware and in UTC in Python; SQLite, which has no time zones, stores it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times, store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times must carry a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Declarative base of the index."""

    metadata = MetaData(
        # Names for every constraint, so that a migration can change it on SQLite too.
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[str]: Json, list[float]: Json}  # noqa: RUF012


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


class SeriesAssessmentRow(Base):
    """The quality assessment of one series in one revision. ``document`` holds slices, findings and metrics."""

    __tablename__ = "series_assessment"
    __table_args__ = (UniqueConstraint("revision_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"))
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    role: Mapped[str] = mapped_column(String(32))
    b_value: Mapped[float | None]
    verdict: Mapped[str] = mapped_column(String(16))
    score: Mapped[float | None]
    probability_non_diagnostic: Mapped[float | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    document: Mapped[dict[str, Any]]

    revision: Mapped[StudyRevision] = relationship(back_populates="assessments")


class StudyVerdict(Base):
    """The verdict on a study revision, the gate's decision and the detector's state."""

    __tablename__ = "study_verdict"

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"), unique=True)
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    gate_open: Mapped[bool]
    gate_reasons: Mapped[list[str]] = mapped_column(default=list)
    detection_state: Mapped[str] = mapped_column(String(16), default="")
    detection_reason: Mapped[str] = mapped_column(Text, default="")
    detection_digest: Mapped[str] = mapped_column(String(64), default="")
    """The detector's saved outcome in the object store; empty where it did not run."""
    document: Mapped[dict[str, Any]]
    decided_at: Mapped[datetime]

    revision: Mapped[StudyRevision] = relationship(back_populates="verdict")


class DetectionCandidate(Base):
    """A lesion candidate. ``tracking_uid`` joins SR group, SEG segment and this row."""

    __tablename__ = "detection_candidate"
    __table_args__ = (UniqueConstraint("revision_id", "tracking_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"))
    tracking_uid: Mapped[str] = mapped_column(String(64))
    probability: Mapped[float]
    above_operating_point: Mapped[bool]
    volume_ml: Mapped[float]
    centroid_lps_mm: Mapped[list[float]]
    sector: Mapped[str | None] = mapped_column(Text)
    segment_number: Mapped[int | None]

    revision: Mapped[StudyRevision] = relationship(back_populates="candidates")


class ResultObject(Base):
    """A DICOM object we authored. Its UID derives from study, revision, pipeline version and kind."""

    __tablename__ = "result_object"

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    object_digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    variant_of: Mapped[str] = mapped_column(String(64), default="")
    """SOP Instance UID of the result it stands for where that one's SOP class is refused; empty for a result itself."""

    revision: Mapped[StudyRevision] = relationship(back_populates="results")
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="result")


class DeliveryState(StrEnum):
    """Where the delivery of one object to one destination stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Base):
    """One object on its way to one destination: a result object, or an instance as it was received."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        UniqueConstraint("instance_id", "destination"),
        CheckConstraint("(result_id IS NULL) <> (instance_id IS NULL)", name="one_object"),
        Index("ix_delivery_destination_state", "destination", "state"),
        Index("ix_delivery_revision", "revision_id"),
        Index(
            "ix_delivery_due",
            "destination",
            "next_attempt_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_delivery_pending",
            "destination",
            "priority",
            "id",
            "next_attempt_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("study_revision.id"))
    """The study revision it was decided in."""
    result_id: Mapped[int | None] = mapped_column(ForeignKey("result_object.id"))
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instance.id"))
    object_digest: Mapped[str] = mapped_column(String(64))
    """The bytes to be sent. Where an instance was replaced since, they are the newer ones."""
    destination: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger)
    """0 (STAT) goes before 1 (high), 2 (routine) and 3 (low)."""
    rules: Mapped[str] = mapped_column(Text, default="")
    """Names of the rules that sent it here; empty where the destination's own ``receives`` did."""
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    round: Mapped[int] = mapped_column(default=1)
    """Rises with every replay and every newer version of an instance: each round has its own attempts."""
    attempts: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(Text, default="")
    """The last C-STORE status or error."""
    sent_as: Mapped[str] = mapped_column(Text, default="")
    """How it was changed for this destination, such as ``decompressed``; empty where it was sent as it is."""
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]
    first_attempt_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]

    revision: Mapped[StudyRevision] = relationship()
    result: Mapped[ResultObject | None] = relationship(back_populates="deliveries")
    instance: Mapped[Instance | None] = relationship()


class DestinationState(Base):
    """What the node remembers of a destination between attempts: whether it is paused, and its last outcomes.

    Every destination that has a delivery has a row.
    """

    __tablename__ = "destination_state"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    turn: Mapped[int] = mapped_column(default=0)
    """Number of the next delivery run at this destination; each number is run to its end once."""
    paused_at: Mapped[datetime | None]
    paused_reason: Mapped[str] = mapped_column(Text, default="")
    sending_since: Mapped[datetime | None]
    """A run is sending; NULL once a paused destination has drained."""
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_failure: Mapped[str] = mapped_column(Text, default="")


class ExecutorState(StrEnum):
    """What a process of a node is doing. Only workers are ever anything but running."""

    WAITING = "waiting"
    """For workers of another pipeline version to finish."""
    RUNNING = "running"
    DRAINING = "draining"
    """Finishes what it has begun and takes nothing new."""
    DRAINED = "drained"
    """Has finished and waits to be stopped or to be asked to go on."""


class Executor(Base):
    """A live process of some host: its heartbeat. The row of a host that died is what its work is recovered by."""

    __tablename__ = "executor"

    slot: Mapped[str] = mapped_column(Text, primary_key=True)
    """``HOST/worker-0``: the same after a restart, never the name of two live processes."""
    run_id: Mapped[str] = mapped_column(String(32))
    """New with every start, so that a process notices when another one has taken its slot."""
    host: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    pid: Mapped[int] = mapped_column(BigInteger)
    queues: Mapped[list[str]] = mapped_column(default=list)
    pipeline_version: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    jobs: Mapped[int] = mapped_column(default=0)
    """Jobs it is working on."""
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    """The last heartbeat by the database's clock: hosts' clocks differ."""


class Peer(Base):
    """A remote application entity that has talked to us, as configured or as seen."""

    __tablename__ = "peer"
    __table_args__ = (UniqueConstraint("ae_title", "address"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    ae_title: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text, default="")
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]


class JournalEntry(Base):
    """What happened, to which study, when and why. Holds UIDs and figures, never a patient's name."""

    __tablename__ = "journal"
    __table_args__ = (Index("ix_journal_study_at", "study_instance_uid", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), default="")
    event: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ApiToken(Base):
    """A bearer token of the web interface; only its SHA-256 is kept."""

    __tablename__ = "api_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    role: Mapped[str] = mapped_column(String(16))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]


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


class SeriesVerdict(Base):
    """The verdict on a closed series, reached without waiting for its study."""

    __tablename__ = "series_verdict"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), unique=True)
    closing: Mapped[int]
    """Which of the series' closings it is about."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 over the instances judged; empty where judging failed, so that no study relies on it."""
    pipeline_version: Mapped[str] = mapped_column(Text)
    roles: Mapped[dict[str, Any]]
    """Volume id -> role and reasons as they were without the rest of the study."""
    document: Mapped[dict[str, Any]]
    """The series' part of the JSON contract."""
    decided_at: Mapped[datetime]

    series: Mapped[Series] = relationship()


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


class CommitmentState(StrEnum):
    """Where a storage commitment stands, ours to a peer or a destination's to us."""

    PENDING = "pending"
    REQUESTED = "requested"
    """Only of our own requests: the destination has taken it and will report."""
    DONE = "done"
    FAILED = "failed"


class CommitmentRequest(Base):
    """A storage commitment request of a peer (PS3.4 J.3.2), and how far the report on it has come."""

    __tablename__ = "commitment_request"
    __table_args__ = (Index("ix_commitment_request_state", "state", "next_attempt_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64), index=True)
    calling_ae_title: Mapped[str] = mapped_column(Text)
    peer_address: Mapped[str] = mapped_column(Text)
    duplicate: Mapped[bool] = mapped_column(default=False)
    """The peer has used this Transaction UID before for other instances: every item fails with 0131H."""
    requested_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16), default=CommitmentState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(Text, default="")
    """The last outcome of reporting, in words."""
    reported_at: Mapped[datetime | None]

    items: Mapped[list["CommitmentItem"]] = relationship(order_by="CommitmentItem.id", cascade="all, delete-orphan")


class CommitmentItem(Base):
    """An instance named in a storage commitment request, and the outcome of looking for it."""

    __tablename__ = "commitment_item"
    __table_args__ = (UniqueConstraint("request_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("commitment_request.id"))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    failure_reason: Mapped[int | None]
    """Failure Reason (0008,1197); NULL where the instance is safe or not looked at yet."""


class DeliveryCommitment(Base):
    """Our request that a destination commit itself to an object we delivered (PS3.4 J as SCU)."""

    __tablename__ = "delivery_commitment"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "destination"),
        Index("ix_delivery_commitment_state", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    destination: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default=CommitmentState.PENDING)
    transaction_uid: Mapped[str] = mapped_column(String(64), default="", index=True)
    """Of the last request; each request has its own."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    """When to ask (again), or, of a requested one, when to stop waiting for the report."""
    status: Mapped[str] = mapped_column(Text, default="")
    delivered_at: Mapped[datetime]
    committed_at: Mapped[datetime | None]
