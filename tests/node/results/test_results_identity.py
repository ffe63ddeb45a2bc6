"""Identity of result objects: derived UIDs and series numbers."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.results.identity import ResultIdentity, derived_uid
from node.settings import ObjectKind

AUTHORED = (ObjectKind.QUALITY_REPORT, ObjectKind.SEGMENTATION, ObjectKind.LESION_REPORT)
NOON = datetime(2026, 5, 17, 12, tzinfo=UTC)
parts = st.lists(st.one_of(st.text(max_size=12), st.integers(0, 99)), max_size=4)


@given(parts)
def test_a_derived_uid_is_a_valid_uuid_under_2_25(given_parts: list[str | int]) -> None:
    uid = derived_uid(*given_parts)
    assert uid.is_valid
    assert len(uid) <= 64
    root, _, number = uid.rpartition(".")
    assert root == "2.25"
    assert uuid.UUID(int=int(number)).version == 5


@given(parts, parts)
def test_uids_are_equal_exactly_when_their_parts_are(one: list[str | int], other: list[str | int]) -> None:
    assert (derived_uid(*one) == derived_uid(*other)) == ([str(p) for p in one] == [str(p) for p in other])


def test_uid_depends_on_study_revision_and_pipeline_but_not_on_the_clock() -> None:
    base = ResultIdentity("1.2.3", 1, "0.1.0", NOON)
    later = ResultIdentity("1.2.3", 1, "0.1.0", NOON + timedelta(days=1))
    others = [
        ResultIdentity("1.2.4", 1, "0.1.0", NOON),
        ResultIdentity("1.2.3", 2, "0.1.0", NOON),
        ResultIdentity("1.2.3", 1, "0.1.1", NOON),
    ]
    assert base.uid("x") == later.uid("x")
    assert len({identity.uid("x") for identity in (base, *others)}) == 4


def test_kinds_and_revisions_have_their_own_series() -> None:
    identities = [ResultIdentity("1.2.3", revision, "0.1.0", NOON) for revision in range(4)]
    pairs = [(identity, kind) for identity in identities for kind in AUTHORED]
    assert len({identity.series_number(kind) for identity, kind in pairs}) == len(pairs)
    uids = {
        uid for identity, kind in pairs for uid in (identity.series_instance_uid(kind), identity.sop_instance_uid(kind))
    }
    assert len(uids) == 2 * len(pairs)
    assert min(identity.series_number(kind) for identity, kind in pairs) > 9000


def test_creation_time_needs_a_zone_and_is_written_in_utc() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ResultIdentity("1.2.3", 1, "0.1.0", datetime(2026, 5, 17, 12))
    summer = datetime(2026, 5, 17, 1, tzinfo=timezone(timedelta(hours=2)))
    assert ResultIdentity("1.2.3", 1, "0.1.0", summer).created_utc.isoformat() == "2026-05-16T23:00:00+00:00"


def test_a_negative_revision_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        ResultIdentity("1.2.3", -1, "0.1.0", NOON)
