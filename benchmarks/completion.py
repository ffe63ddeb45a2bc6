"""How soon each series of a study is known to be complete, and judged, while the scanner is still sending the others.

A scanner sends the study series by series over one association that it keeps open, axial T2 first, at the pace of a
scanner that reconstructs; then once more as a new study with a Modality Performed Procedure Step around it. Settings
are the defaults, so that silence alone would close a series after 5 s and a study after 10 s (60 s while the
association is open). The study is ProstateX-0000 where the real scanner data is at hand, else a simulated one.
"""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pydicom
from sqlalchemy import select

from benchmarks.end_to_end import copies, study_files
from node.settings import CompletionSettings, load_settings
from storage.database import Database
from storage.models import Series, SeriesVerdict, Study, StudyRevision
from tests.fixtures.running_node import RunningNode, make_node, running_node
from tests.fixtures.scanner import Scanner, by_series

PAUSE_S = 0.15
"""Between instances: 176 of them take as long as a scanner's reconstruction of a short protocol."""
DEFAULTS = CompletionSettings()


@dataclass(frozen=True)
class SeriesTimes:
    """When a series was complete and judged, in seconds after its last instance."""

    description: str
    instances: int
    evidence: str
    confidence: str
    closed_s: float
    verdict: str
    judged_s: float | None
    study_still_sent_s: float
    """How long after the verdict the last instance of the study arrived; negative: it had arrived."""


@dataclass(frozen=True)
class StudyTimes:
    """When the study was closed, in seconds after its last instance, and on what."""

    series: list[SeriesTimes]
    evidence: str
    confidence: str
    closed_s: float


def node_with_defaults(folder: Path) -> RunningNode:
    """A node with the default completion settings and no destination."""
    node = make_node(folder, {}, study_quiet_s=DEFAULTS.study_quiet_s)
    node.config.write_text(node.config.read_text().replace("series_quiet_s = 1\n", ""))
    return node


def measure(node: RunningNode, files: list[Path], *, with_step: bool, pause_s: float = PAUSE_S) -> StudyTimes:
    """Send the files, wait until the study is finished, read the times from the index."""
    scanner, series = Scanner(node.dicom_port), by_series(files)
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with scanner.association() as association:
        step = scanner.begin(association, uid) if with_step else ""
        for instances in series.values():
            scanner.store(association, instances, pause_s)
        if with_step:
            scanner.complete(association, step, series)
        else:
            association.release()
        node.wait_until(lambda: (node.show(uid) or {}).get("state") == "finished", 120, "the study is judged")
    return _times(load_settings(node.config).database_url, uid, {u: len(i) for u, i in series.items()})


def _times(database_url: str, study_instance_uid: str, instances: dict[str, int]) -> StudyTimes:
    database = Database(database_url)
    with database.read() as session:
        study = session.scalars(select(Study).where(Study.study_instance_uid == study_instance_uid)).one()
        revision = session.scalars(select(StudyRevision).where(StudyRevision.study_id == study.id)).one()
        verdicts = {row.series_id: row for row in session.scalars(select(SeriesVerdict))}
        rows = session.scalars(
            select(Series).where(Series.study_id == study.id).order_by(Series.last_received_at)
        ).all()
        series = [_series(row, verdicts.get(row.id), study, instances) for row in rows]
        assert revision.closed_at is not None
        closed_s = (revision.closed_at - study.last_received_at).total_seconds()
        times = StudyTimes(series, revision.closed_evidence, revision.closed_confidence, closed_s)
    database.dispose()
    return times


def _series(row: Series, verdict: SeriesVerdict | None, study: Study, instances: dict[str, int]) -> SeriesTimes:
    def after(moment: datetime) -> float:
        return (moment - row.last_received_at).total_seconds()

    assert row.closed_at is not None
    return SeriesTimes(
        description=row.series_description,
        instances=instances[row.series_instance_uid],
        evidence=row.closed_evidence,
        confidence=row.closed_confidence,
        closed_s=after(row.closed_at),
        verdict=verdict.document["verdict"] if verdict else "with the study",
        judged_s=after(verdict.decided_at) if verdict else None,
        study_still_sent_s=(study.last_received_at - verdict.decided_at).total_seconds() if verdict else 0,
    )


def show(name: str, times: StudyTimes) -> None:
    """Print one run."""
    print(f"{name}:")
    print(f"  {'series':33} {'inst.':>5} {'closed by':>20} {'after':>7} {'earlier':>8} {'verdict':>16} {'after':>7}")
    for one in times.series:
        judged = "" if one.judged_s is None else f"{one.judged_s:.1f} s"
        earlier = DEFAULTS.series_quiet_s - one.closed_s
        print(
            f"  {one.description[:33]:33} {one.instances:5} {one.evidence + ', ' + one.confidence:>20} "
            f"{one.closed_s:5.1f} s {earlier:6.1f} s {one.verdict:>16} {judged:>7}"
        )
    first = times.series[0]
    if first.judged_s is not None:
        print(
            f"  last instance of {first.description} to its verdict: {first.judged_s:.1f} s; "
            f"the others went on arriving for {first.study_still_sent_s:.1f} s after it"
        )
    print(f"  study closed {times.closed_s:.1f} s after its last instance by {times.evidence}, {times.confidence}")


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory(prefix="pacsgate-bench-") as name:
        folder = Path(name)
        study, files = study_files(folder)
        with running_node(node_with_defaults(folder / "node")) as node:
            for number, (words, with_step) in enumerate(
                (("no MPPS, one association, then released", False), ("MPPS, association kept open", True))
            ):
                times = measure(node, copies(files, folder / f"copy-{number}", number), with_step=with_step)
                show(f"{study}, {words}", times)


if __name__ == "__main__":
    main()
