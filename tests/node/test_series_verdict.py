"""A series is judged when it closes: shown while its study is still received, taken over by the study, once only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from sqlalchemy import select, update

import node.workflow.assess as assess_module
from ai.quality.distortion import DEFINITIONS
from node.cli.operate_commands import _print_series
from node.settings import load_settings
from node.studies import show_study
from node.workflow.assess import assess_step
from node.workflow.assess_series import assess_series_step, series_failed
from node.workflow.context import NodeContext
from node.workflow.gate import gate_step
from node.workflow.version import PIPELINE_VERSION
from storage.completion import close_complete, close_series, series_to_close
from storage.describe import describe_pending
from storage.evidence import CompletionPolicy
from storage.ingest import Reception, ingest
from storage.models import JournalEntry, SeriesAssessmentRow, SeriesVerdict, utc_now
from storage.series import closed_series
from tests.fixtures.calibrations import calibration_of_t2w

pytestmark = pytest.mark.slow

INSTANT = CompletionPolicy(0, 0, 0, guard_s=0)


@pytest.fixture
def context(database_url: str, simulated_files: list[Path], tmp_path: Path) -> Iterator[NodeContext]:
    """A node that has received the simulated study."""
    context = NodeContext(load_settings(storage={"data_dir": tmp_path / "node", "database_url": database_url}))
    received = tmp_path / "received.part"
    for path in simulated_files:
        received.write_bytes(path.read_bytes())
        ingest(context.database, context.objects, received, Reception("SCANNER", "127.0.0.1", utc_now()))
    while describe_pending(context.database, context.objects):
        pass
    yield context
    context.database.dispose()


@pytest.fixture
def study(simulated_files: list[Path]) -> str:
    return str(pydicom.dcmread(simulated_files[0], stop_before_pixels=True).StudyInstanceUID)


def close_the_series(context: NodeContext) -> list[tuple[str, str, int]]:
    """Close them; those to be judged."""
    with context.database.session() as session:
        close_series(session, series_to_close(session, INSTANT, utc_now()), utc_now())
    with context.database.read() as session:
        return closed_series(session, PIPELINE_VERSION)


def close_the_study(context: NodeContext, study: str) -> None:
    with context.database.session() as session:
        (closed,) = close_complete(session, INSTANT, utc_now())
    assess_step(context, study, closed.number)


def journal(context: NodeContext, event: str) -> list[JournalEntry]:
    with context.database.read() as session:
        return list(session.scalars(select(JournalEntry).where(JournalEntry.event == event)))


def shown(context: NodeContext, study: str) -> dict[str, Any]:
    return {s["series_instance_uid"]: s for s in show_study(context.database, study)["series"]}


def assessed(context: NodeContext) -> dict[str, Any]:
    with context.database.read() as session:
        return {row.series_instance_uid: row.document for row in session.scalars(select(SeriesAssessmentRow))}


def seen_alone(document: dict[str, Any]) -> dict[str, Any]:
    """What an assessment says of the series by itself: the comparison of diffusion with the T2 needs the study."""
    metrics = {name: metric for name, metric in document["metrics"].items() if name not in DEFINITIONS}
    return {**document, "metrics": metrics, "compared_with": ""}


def test_the_verdict_on_a_series_is_shown_while_the_study_is_received_and_taken_over(
    context: NodeContext, study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    due = close_the_series(context)
    assert len(due) == 3
    for key in due:
        assess_series_step(context, *key)
    with context.database.read() as session:
        assert closed_series(session, PIPELINE_VERSION) == []
    document = show_study(context.database, study)
    assert document["state"] == "receiving"
    assert {s["assessment"]["verdict"] for s in document["series"]} == {"diagnostic"}
    assert all(s["completion"]["closed"] for s in document["series"])
    assert len(journal(context, "series-assessed")) == 3
    _print_series(document)
    printed = capsys.readouterr().out
    assert printed.count("diagnostic") == 3
    assert printed.count("quiet, weak") == 3

    known = []
    real = assess_module.assess

    def watched(*args: Any, **kwargs: Any) -> Any:
        known.append(set(kwargs["known"]))
        return real(*args, **kwargs)

    monkeypatch.setattr(assess_module, "assess", watched)
    close_the_study(context, study)
    assert known == [{uid for _, uid, _ in due}], "nothing is judged a second time"
    (entry,) = journal(context, "assessed")
    assert entry.detail["judged_when_closed"] == 3
    assert entry.detail["judged_again"] == {}
    with context.database.read() as session:
        early = {row.document["series_instance_uid"]: row.document for row in session.scalars(select(SeriesVerdict))}
    assert {uid: seen_alone(one) for uid, one in assessed(context).items()} == {
        uid: seen_alone(one) for uid, one in early.items()
    }


def test_verdicts_of_another_calibration_are_not_taken_over(context: NodeContext, study: str) -> None:
    for key in close_the_series(context):
        assess_series_step(context, *key)
    context.calibration = calibration_of_t2w(bad_up_to=1.0, good_from=0.0)
    close_the_study(context, study)
    (entry,) = journal(context, "assessed")
    documents = assessed(context)
    (t2w,) = (uid for uid, document in documents.items() if document["role"] == "t2w-axial")
    assert entry.detail["judged_again"] == {t2w: "the calibration of the quality score has changed"}
    assert documents[t2w]["verdict"] == "limited"
    assert documents[t2w]["calibration"]["name"] == "Skyra, room 2"
    assert all(documents[uid]["calibration"] is None for uid in documents.keys() - {t2w})
    gate_step(context, study, 1)
    judged = show_study(context.database, study)["assessment"]
    assert (judged["verdict"], judged["calibration"]["by"]) == ("limited", "Dr Muster")


def test_what_the_whole_study_sees_differently_is_judged_again_and_said(context: NodeContext, study: str) -> None:
    due = close_the_series(context)
    for key in due:
        assess_series_step(context, *key)
    with context.database.session() as session:
        row = session.scalars(select(SeriesVerdict)).first()
        assert row is not None
        uid = row.document["series_instance_uid"]
        row.roles = {volume: ["t1w", "it looked like one of several phases"] for volume in row.roles}
        row.document = row.document | {"verdict": "limited"}
    close_the_study(context, study)
    (entry,) = journal(context, "assessed")
    assert list(entry.detail["judged_again"]) == [uid]
    assert "1 judged again in the light of the whole study" in entry.message
    assert assessed(context)[uid]["verdict"] == "diagnostic"


def test_a_late_instance_takes_the_verdict_back(context: NodeContext, study: str, simulated_files: list[Path]) -> None:
    due = close_the_series(context)
    for key in due:
        assess_series_step(context, *key)
    late = pydicom.dcmread(simulated_files[0])
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = f"{late.SOPInstanceUID}.9"
    path = context.settings.data_dir / "late.part"
    late.save_as(path)
    ingest(context.database, context.objects, path, Reception("SCANNER", "127.0.0.1", utc_now()))
    assert describe_pending(context.database, context.objects) == 1
    entry = shown(context, study)[str(late.SeriesInstanceUID)]
    assert entry["completion"]["closed"] is False
    (again,) = close_the_series(context)
    assert again == (study, str(late.SeriesInstanceUID), 2)
    assert shown(context, study)[str(late.SeriesInstanceUID)]["assessment"] is None, "the verdict was of fewer images"
    assess_series_step(context, *again)
    assess_series_step(context, *due[0])
    assert shown(context, study)[str(late.SeriesInstanceUID)]["assessment"] is not None


def test_a_series_that_could_not_be_judged_is_left_to_its_study(context: NodeContext, study: str) -> None:
    due = close_the_series(context)
    for key in due:
        series_failed(context, *key, "assess: no good")
    with context.database.read() as session:
        assert closed_series(session, PIPELINE_VERSION) == []
    entry = shown(context, study)[due[0][1]]["assessment"]
    assert (entry["verdict"], entry["reason"]) == ("not-assessed", "could not be judged: assess: no good")
    close_the_study(context, study)
    assert {document["verdict"] for document in assessed(context).values()} == {"diagnostic"}


def test_another_pipeline_version_judges_again(context: NodeContext, study: str) -> None:
    due = close_the_series(context)
    for key in due:
        assess_series_step(context, *key)
    with context.database.session() as session:
        session.execute(update(SeriesVerdict).values(pipeline_version="0.0.0"))
    with context.database.read() as session:
        assert sorted(closed_series(session, PIPELINE_VERSION)) == sorted(due)
    close_the_study(context, study)
    (entry,) = journal(context, "assessed")
    assert entry.detail["judged_when_closed"] == 0
