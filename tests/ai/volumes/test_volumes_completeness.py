"""Gaps in the volumes of a series: every one that is cut is found, and no real series has one that is none."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai.volumes.completeness import Completeness, completeness
from ai.volumes.stacks import build_stacks
from tests.fixtures.folders import Folder


def judged(headers: list[Any], moments: int | None = None) -> Completeness | None:
    return completeness(build_stacks(headers)[0], moments)


def of_b_values(synthetic: Any, *b_values: float, count: int = 8) -> list[Any]:
    headers = []
    for b_value in b_values:
        for header in synthetic.series(count, DiffusionBValue=b_value, **synthetic.epi):
            header.SOPInstanceUID += f".{b_value:g}"
            headers.append(header)
    return headers


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(missing=st.sets(st.integers(1, 10), max_size=4))
def test_every_slice_cut_from_inside_is_counted(synthetic: Any, missing: set[int]) -> None:
    headers = synthetic.series(12, **synthetic.t2w, SpacingBetweenSlices=3.0)
    found = judged([header for number, header in enumerate(headers) if number not in missing])
    assert found is not None
    assert found.missing_slices == len(missing)


def test_a_full_series_is_without_a_gap_in_words(synthetic: Any) -> None:
    assert judged(synthetic.series(12, **synthetic.t2w)) == Completeness(0, "1 volume(s) of 12 slices, without a gap")


def test_the_order_of_arrival_makes_no_difference(synthetic: Any) -> None:
    headers = of_b_values(synthetic, 50, 800)
    assert judged(headers) == judged(headers[::-1]) == Completeness(0, "2 volume(s) of 8 slices, without a gap")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(cut=st.integers(1, 4))
def test_a_b_value_with_fewer_slices_lacks_them(synthetic: Any, cut: int) -> None:
    found = judged(of_b_values(synthetic, 50, 400, 800)[:-cut])
    assert found is not None
    assert found.missing_slices == cut
    assert "fewer than in the other volumes" in found.reason


def test_time_points_announced_and_not_here_are_missing(synthetic: Any) -> None:
    headers = []
    for moment in (1, 2):
        for header in synthetic.series(6, TemporalPositionIdentifier=moment, **synthetic.gre):
            header.SOPInstanceUID += f".{moment}"
            headers.append(header)
    assert judged(headers, 2) == Completeness(0, "2 volume(s) of 6 slices, without a gap")
    found = judged(headers, 5)
    assert found is not None
    assert found.missing_slices == 3 * 6
    assert "3 of 5 time points missing" in found.reason


def test_a_scout_and_single_slices_say_nothing(synthetic: Any) -> None:
    scout = [
        *synthetic.series(3, synthetic.axial, uid="1.2.1", SeriesInstanceUID="1.2.5"),
        *synthetic.series(3, synthetic.sagittal, uid="1.2.2", SeriesInstanceUID="1.2.5"),
    ]
    assert judged(scout) is None
    assert judged(synthetic.series(2)) is None
    assert judged([]) is None


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "missing"),
    [
        ("prostate_prostatex_skyra/ProstateX-0000", 0),
        ("prostate_prostatex_skyra/ProstateX-0001", 0),
        ("prostate_prostatex_skyra/ProstateX-missing-slice", 1),
        ("prostate_philips_erc", 0),
        ("mr_canon_dwi", 0),
        ("mr_siemens_xa_enhanced", 0),
        ("mr_philips", 0),
    ],
)
def test_real_series(read_folder: Callable[[str], Folder], folder: str, missing: int) -> None:
    by_series: dict[str, list[Any]] = {}
    for header in read_folder(folder).headers:
        by_series.setdefault(header.SeriesInstanceUID, []).append(header)
    found = [judged(headers) for headers in by_series.values()]
    assert sum(one.missing_slices for one in found if one is not None) == missing
    assert any(found)
