"""The history of a study in sentences: one line per thing that happened, in order of time.

Made of the journal and of the instances' rows; nothing is written for it. UIDs, AE titles and figures, no patient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.models import Instance, JournalEntry, Series, Study

_SENTENCES: Final = {
    "revision-opened": "revision {revision} opened: {message}",
    "series-closed": "series {series_instance_uid} closed: {message}",
    "study-closed": "study closed: {message}",
    "study-failed": "processing failed: {message}",
    "assembled": "assembled into {message}",
    "assessed": "assessed {message}",
    "gate-opened": "gate opened: {message}",
    "gate-shut": "gate shut: {message}",
    "detected": "detection: {message}",
    "reported": "reported: {message}",
    "replayed": "replay asked for: {message}",
}
"""Event -> sentence; every other event is told by its name and message."""


@dataclass(frozen=True)
class HistoryLine:
    """Something that happened. ``since_previous_s``: seconds since the line before, None for the first."""

    at: datetime
    text: str
    since_previous_s: float | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        since = None if self.since_previous_s is None else round(self.since_previous_s, 3)
        return {"at": self.at.isoformat(), "since_previous_s": since, "text": self.text}


def study_history(session: Session, study: Study) -> list[HistoryLine]:
    """The study's history, oldest first."""
    entries = session.scalars(
        select(JournalEntry)
        .where(JournalEntry.study_instance_uid == study.study_instance_uid)
        .order_by(JournalEntry.at, JournalEntry.id)
    ).all()
    lines = sorted([*_receptions(session, study), *_journal(entries)], key=lambda line: line.at)
    earlier = [None, *(line.at for line in lines)]
    return [
        HistoryLine(line.at, line.text, None if before is None else (line.at - before).total_seconds())
        for line, before in zip(lines, earlier, strict=False)
    ]


def _receptions(session: Session, study: Study) -> Iterator[HistoryLine]:
    """One line for what each sender sent of each revision, at the time of its last instance."""
    rows = session.execute(
        select(
            Instance.revision_number,
            Instance.source_ae_title,
            func.count(),
            func.sum(Instance.size_bytes),
            func.min(Instance.received_at),
            func.max(Instance.received_at),
        )
        .join(Series)
        .where(Series.study_id == study.id)
        .group_by(Instance.revision_number, Instance.source_ae_title)
    )
    for revision, sender, count, size_bytes, first, last in rows:
        took = duration_words((last - first).total_seconds())
        size = f"{float(size_bytes) / 1e6:.1f} MB"
        instances = "1 instance" if count == 1 else f"{count} instances"
        yield HistoryLine(
            last, f"received {instances} ({size}) in {took} from {sender or 'the spool'}, revision {revision}"
        )


def _journal(entries: Sequence[JournalEntry]) -> Iterator[HistoryLine]:
    tries: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry.event in ("delivered", "delivery-failed"):
            yield HistoryLine(entry.at, _delivery(entry, tries))
        else:
            yield HistoryLine(entry.at, _sentence(entry))


def _delivery(entry: JournalEntry, tries: dict[tuple[str, str], int]) -> str:
    """An attempt to deliver; ``tries`` counts those before it that failed, by object and destination."""
    destination = str(entry.detail.get("destination", ""))
    key = (str(entry.detail.get("sop_instance_uid", "")), destination)
    number = tries.get(key, 0) + 1
    kind, _, outcome = entry.message.partition(f" to {destination}: ")
    if entry.event == "delivered":
        tries.pop(key, None)
        return f"{kind} delivered to {destination}" + (f" after {number} tries" if number > 1 else "")
    tries[key] = number
    return f"{kind} not delivered to {destination}, try {number}: {outcome or entry.message}"


def _sentence(entry: JournalEntry) -> str:
    template = _SENTENCES.get(entry.event)
    facts = {"revision": "?", "series_instance_uid": "?", **entry.detail, "message": entry.message}
    return template.format_map(facts) if template else f"{entry.event.replace('-', ' ')}: {entry.message}"


def duration_words(seconds: float) -> str:
    """A duration for people: 0.4 s, 31 s, 5 min 20 s, 3 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
