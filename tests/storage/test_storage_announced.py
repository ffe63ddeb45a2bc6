"""Counts announced in headers: met or not, and nothing believed that is no plausible count."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.announced import announced_evidence, announced_study_instances, announced_temporal_positions


def header(**values: Any) -> dict[str, Any]:
    """DICOM JSON of keyword-like names used here."""
    keys = {
        "series": "00201209",
        "study": "00201208",
        "images": "00201002",
        "acquisition": "00200012",
        "concatenation": "00209161",
        "parts": "00209163",
        "moments": "00200105",
    }
    return {keys[name]: {"vr": "IS", "Value": [value]} for name, value in values.items()}


@pytest.mark.parametrize(("here", "missing"), [(28, 2), (30, 0), (31, 0)])
def test_the_number_announced_for_the_series(here: int, missing: int) -> None:
    found = announced_evidence([header(series=30, images=7)] * here)
    assert found is not None
    assert (found.kind, found.missing, found.open_ended) == ("announced-count", missing, False)
    assert f"{here} instances here, 30 announced" in found.reason


def test_images_in_acquisition_speak_only_where_they_are_met() -> None:
    full = [header(acquisition=1, images=2)] * 2 + [header(acquisition=2, images=3)] * 3
    found = announced_evidence(full)
    assert found is not None
    assert (found.missing, found.open_ended) == (0, True)
    assert announced_evidence(full[:-1]) is None
    assert announced_evidence([*full, header(acquisition=2, images=3)]) is None


def test_parts_of_a_concatenation_are_counted() -> None:
    parts = [header(concatenation="1.2", parts=3)] * 2 + [header(concatenation="1.3", parts=1)]
    found = announced_evidence(parts)
    assert found is not None
    assert (found.missing, found.open_ended) == (1, True)
    assert announced_evidence([*parts, header()]) is None, "an instance outside every concatenation"


def test_the_largest_announcement_counts() -> None:
    headers = [header(study=10, moments=2), header(study=12, moments=3), header()]
    assert announced_study_instances(headers) == 12
    assert announced_temporal_positions(headers) == 3
    assert announced_study_instances([header()]) is None


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = scalars | st.lists(scalars, max_size=2)
elements = st.dictionaries(st.sampled_from(["vr", "Value"]), json_values) | json_values
headers_of_anybody = st.lists(
    st.dictionaries(
        st.sampled_from(["00201209", "00201208", "00201002", "00200012", "00209161", "00209163"]), elements
    ),
    max_size=4,
)


@given(headers_of_anybody)
def test_no_header_breaks_the_reading(headers: list[dict[str, Any]]) -> None:
    found = announced_evidence(headers)
    assert found is None or found.missing >= 0
    study = announced_study_instances(headers)
    assert study is None or 0 < study <= 1_000_000
