"""For which modality, role and part of the body a verdict is given: ``data/envelopes.toml``, read and checked.

Nothing is scored outside its envelope: what fits none, or one without verdict, is not assessed and says why.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any

from ai.volumes.types import RoledStack

VERSION = 1


class Measured(StrEnum):
    """Which metrics an envelope's images have."""

    NOTHING = ""
    MAGNETIC_RESONANCE = "magnetic-resonance"
    TOMOGRAPHY = "tomography"
    PROJECTION = "projection"


class Reach(StrEnum):
    """How far a verdict goes: any, only that there is a defect, or none."""

    FULL = "full"
    DEFECTS = "defects"
    NONE = "none"


class BadEnvelope(ValueError):
    """The table of envelopes cannot be used; the message says which entry and why."""


@dataclass(frozen=True)
class Envelope:
    """One row of the table; the fields are explained at its head."""

    name: str
    modalities: tuple[str, ...]
    verdict: Reach
    source: str
    roles: tuple[str, ...] = ()
    not_body_parts: frozenset[str] = frozenset()
    metrics: Measured = Measured.NOTHING
    minimum_images: int = 1
    needs_grid: bool = False
    reason: str = ""

    def fits(self, entry: RoledStack) -> bool:
        """Whether a stack is inside, by modality, role and part of the body."""
        acquisition = entry.stack.acquisition
        return (
            acquisition.modality in self.modalities
            and (not self.roles or entry.role in self.roles)
            and _body_part(entry) not in self.not_body_parts
        )

    def why_no_verdict(self, entry: RoledStack) -> str:
        """``reason`` for one stack."""
        return self.reason.format(role=entry.role, body_part=_body_part(entry) or "an unnamed part of the body")

    def flaw(self, entry: RoledStack) -> str:
        """Why a stack that fits can still not be measured; empty: it can."""
        stack = entry.stack
        if self.needs_grid and stack.geometry is None:
            return "slices form no regular grid: " + ", ".join(stack.anomalies)
        if len(stack.slices) < self.minimum_images:
            return f"only {len(stack.slices)} slices"
        return ""


def envelope_of(entry: RoledStack, table: Sequence[Envelope] | None = None) -> Envelope | None:
    """The first envelope a stack fits; None: it fits none."""
    return next((envelope for envelope in table or shipped_envelopes() if envelope.fits(entry)), None)


@lru_cache(maxsize=1)
def shipped_envelopes() -> tuple[Envelope, ...]:
    """The envelopes that come with the program."""
    text = (resources.files("ai.quality") / "data" / "envelopes.toml").read_text(encoding="utf-8")
    return read_envelopes(tomllib.loads(text))


def read_envelopes(document: Mapping[str, Any]) -> tuple[Envelope, ...]:
    """The rows of a table.

    Raises:
        BadEnvelope: another version, an unknown field or word, a name that comes twice, or no reason without a verdict.
    """
    if document.get("version") != VERSION:
        raise BadEnvelope(f"version {document.get('version')} of the table of envelopes; {VERSION} is read")
    rows = tuple(_envelope(row) for row in document.get("envelope", ()))
    if not rows or len({row.name for row in rows}) < len(rows):
        raise BadEnvelope("the table of envelopes is empty or names two of them alike")
    return rows


def _envelope(row: Mapping[str, Any]) -> Envelope:
    name = row.get("name", "(no name)")
    try:
        envelope = Envelope(
            **{
                **row,
                "modalities": tuple(row["modalities"]),
                "roles": tuple(row.get("roles", ())),
                "not_body_parts": frozenset(row.get("not_body_parts", ())),
                "metrics": Measured(row.get("metrics", "")),
                "verdict": Reach(row["verdict"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadEnvelope(f"envelope {name}: {error}") from error
    if envelope.verdict is not Reach.FULL and not envelope.reason:
        raise BadEnvelope(f"envelope {name}: no reason why there is no full verdict")
    return envelope


def _body_part(entry: RoledStack) -> str:
    return entry.stack.acquisition.body_part_examined.strip().upper()
