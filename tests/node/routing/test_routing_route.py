"""Acting on rules, on both databases: what is forwarded when a series closes, what waits for the verdict, and why."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from node.routing.endpoints import endpoint_of
from node.routing.facts import facts_of_study
from node.routing.route import results_again, route_received, route_results
from node.settings import Destination, ObjectKind, Rule, Settings
from storage.database import Database
from storage.deliveries import Priority, Recipient
from storage.ingest import Reception, ingest
from storage.models import Delivery, Instance, JournalEntry, RevisionState, Series, StudyRevision, utc_now
from storage.objects import ObjectStore
from storage.revisions import UnknownStudy, fail, find_revision, finish, save_detection, save_verdict
from tests.fixtures.instances import mr_data_set, mr_file, part10

ARCHIVE = Destination(name="archive", ae_title="ARCHIVE", host="10.0.0.9", port=104, receives=())
PACS = Destination(name="pacs", ae_title="PACS", host="10.0.0.8", port=104)
ALL_TO_ARCHIVE = {"name": "all", "objects": ["original"], "destinations": ["archive"]}


def settings(*rules: dict[str, Any], receives: tuple[ObjectKind, ...] = ()) -> Settings:
    archive = ARCHIVE.model_copy(update={"receives": receives})
    return Settings(destinations=(archive, PACS), rules=tuple(Rule.model_validate(rule) for rule in rules))


class Index:
    """An index with the study 1.2.3 on its way."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self._folder = folder
        self._objects = ObjectStore(folder / "objects")
        self.receive(1)

    def receive(self, number: int, series: int = 1, sender: str = "MR1", **attributes: Any) -> None:
        path = mr_file(
            self._folder,
            SOPInstanceUID=f"1.2.3.{series}.{number}",
            SeriesInstanceUID=f"1.2.3.{series}",
            SeriesNumber=series,
            InstanceNumber=number,
            **attributes,
        )
        ingest(self.database, self._objects, path, Reception(sender, "10.0.0.1", utc_now()))

    def close_series(self) -> None:
        """Close what is there; by then the headers have been read."""
        with self.database.session() as session:
            session.execute(update(Instance).where(Instance.header.is_(None)).values(header={}))
            session.execute(update(Series).values(closed_at=utc_now() + timedelta(seconds=1)))

    def judge(self, verdict: str = "limited", detection: str = "succeeded", number: int = 1) -> None:
        """Take the revision to its end."""
        with self.database.session() as session:
            revision = find_revision(session, "1.2.3", number)
            save_verdict(
                session,
                revision,
                verdict=verdict,
                reason="",
                gate_open=True,
                gate_reasons=(),
                document={},
                decided_at=utc_now(),
            )
            session.flush()
            session.refresh(revision)
            save_detection(session, revision, state=detection, reason="", digest="", candidates=())
            finish(revision, utc_now())

    def fail(self) -> None:
        with self.database.session() as session:
            fail(find_revision(session, "1.2.3", 1), "the detector stumbled", utc_now())

    def route(self, configured: Settings) -> list[tuple[str, str]]:
        """Sweep once; (instance, destination) of all deliveries there are then."""
        route_received(self.database, configured, utc_now() + timedelta(seconds=2))
        query = select(Instance.sop_instance_uid, Delivery.destination).join(
            Delivery, Delivery.instance_id == Instance.id
        )
        with self.database.read() as session:
            found = session.execute(query.order_by(Delivery.id))
            return [(uid.removeprefix("1.2.3."), destination) for uid, destination in found]

    def journal(self) -> list[JournalEntry]:
        query = select(JournalEntry).where(JournalEntry.event == "originals-routed").order_by(JournalEntry.id)
        with self.database.read() as session:
            return list(session.scalars(query))


@pytest.fixture
def index(database: Database, tmp_path: Path) -> Index:
    return Index(database, tmp_path)


def test_a_series_goes_on_when_it_closes_and_late_instances_follow(index: Index) -> None:
    rules = settings(ALL_TO_ARCHIVE)
    assert index.route(rules) == []
    index.close_series()
    assert index.route(rules) == [("1.1", "archive")]
    (entry,) = index.journal()
    assert entry.message == "1 instances to archive"
    assert entry.detail["rules_that_hold"] == ["all"]
    assert len(entry.detail["rules_version"]) == 12
    index.judge()
    assert index.route(rules) == [("1.1", "archive")]
    index.receive(2)
    index.close_series()
    assert index.route(rules) == [("1.1", "archive"), ("1.2", "archive")]


def test_what_waits_for_the_verdict_goes_after_it(index: Index) -> None:
    rules = settings(ALL_TO_ARCHIVE | {"when": {"verdict": ["diagnostic", "limited"]}})
    index.close_series()
    assert index.route(rules) == []
    assert index.journal()[0].message == "waiting to be decided: all"
    index.judge("limited")
    assert index.route(rules) == [("1.1", "archive")]
    assert index.route(rules) == [("1.1", "archive")]


def test_bad_images_stay_where_the_rule_says_so(index: Index) -> None:
    rules = settings(ALL_TO_ARCHIVE | {"unless": {"verdict": "non-diagnostic"}})
    index.close_series()
    index.judge("non-diagnostic", "not-attempted")
    assert index.route(rules) == []


def test_a_failed_study_does_not_keep_its_images(index: Index) -> None:
    rules = settings(ALL_TO_ARCHIVE | {"hold_until_verdict": True})
    index.close_series()
    assert index.route(rules) == []
    index.fail()
    assert index.route(rules) == [("1.1", "archive")]


def test_what_was_found_out_before_a_failure_stands(index: Index) -> None:
    rules = settings(ALL_TO_ARCHIVE | {"unless": {"verdict": "non-diagnostic"}})
    index.close_series()
    index.judge("non-diagnostic", detection="")
    index.fail()
    assert index.route(rules) == []


def test_rules_look_at_each_series_for_itself(index: Index) -> None:
    index.receive(1, series=2, Modality="SR", SeriesDescription="report")
    index.receive(1, series=3, SeriesDescription="localizer")
    rules = settings(ALL_TO_ARCHIVE | {"when": {"modality": "MR"}, "unless": {"series_description": "loc*"}})
    index.close_series()
    assert index.route(rules) == [("1.1", "archive")]


def test_without_rules_destinations_that_receive_originals_get_them(index: Index) -> None:
    index.close_series()
    assert index.route(settings()) == [], "nobody asked"
    index.receive(2)
    index.close_series()
    both = [("1.1", "archive"), ("1.2", "archive")]
    assert index.route(settings(receives=(ObjectKind.ORIGINAL,))) == both


def test_the_study_s_urgency_is_that_of_its_deliveries(index: Index) -> None:
    index.close_series()
    request = {"00401003": {"vr": "SH", "Value": ["STAT"]}}
    with index.database.session() as session:
        session.execute(update(Instance).values(header={"00400275": {"vr": "SQ", "Value": [request]}}))
    index.route(settings(ALL_TO_ARCHIVE))
    with index.database.read() as session:
        assert session.scalars(select(Delivery.priority)).all() == [Priority.STAT]
        assert facts_of_study(session, "1.2.3").whole.values["requested_priority"] == ("stat",)


def test_nothing_goes_back(index: Index) -> None:
    index.receive(2, sender="ARCHIVE")
    index.close_series()
    assert index.route(settings(ALL_TO_ARCHIVE)) == [("1.1", "archive")]


def test_results_follow_their_rules(index: Index) -> None:
    index.judge("diagnostic")
    urgent = {"name": "urgent", "objects": ["quality-report"], "destinations": ["archive"], "priority": "high"}
    kinds = (ObjectKind.QUALITY_REPORT, ObjectKind.LESION_REPORT)
    with index.database.read() as session:
        recipients, decision = route_results(session, settings(urgent), find_revision(session, "1.2.3", 1), kinds)
        assert recipients == {
            "quality-report": (Recipient("archive", Priority.HIGH, "urgent"),),
            "lesion-report": (Recipient("pacs"),),
        }
        assert decision.holding == ("urgent",)
    with index.database.session() as session:
        assert results_again(session, settings(urgent), "1.2.3", utc_now()) == 0, "no result has been made"


def test_an_unknown_study_is_said(index: Index) -> None:
    with index.database.read() as session, pytest.raises(UnknownStudy, match=r"9\.9\.9"):
        facts_of_study(session, "9.9.9")


def test_a_host_that_cannot_be_found_has_no_addresses() -> None:
    assert endpoint_of(PACS).addresses == ("10.0.0.8",)
    lost = PACS.model_copy(update={"host": "no-such-host.invalid"})
    assert endpoint_of(lost).addresses is None


def test_an_upgrade_forwards_nothing_of_before(index: Index) -> None:
    """What the migration marks as routed is left alone, whatever the rules say."""
    index.judge()
    with index.database.session() as session:
        session.execute(update(StudyRevision).values(routed_at=utc_now()))
        assert session.scalars(select(StudyRevision.state)).all() == [RevisionState.FINISHED]
    assert index.route(settings(ALL_TO_ARCHIVE)) == []


def test_the_bytes_are_those_received(index: Index) -> None:
    index.close_series()
    index.route(settings(ALL_TO_ARCHIVE))
    with index.database.read() as session:
        digest = session.scalars(select(Delivery.object_digest)).one()
    sent = ObjectStore(index._folder / "objects").read(digest)
    expected = mr_data_set(SOPInstanceUID="1.2.3.1.1", SeriesInstanceUID="1.2.3.1", SeriesNumber=1, InstanceNumber=1)
    assert sent == part10(expected)
