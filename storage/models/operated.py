"""The node itself: its processes on all hosts, the peers it has seen, its journal and its tokens."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from storage.models.base import Base


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
