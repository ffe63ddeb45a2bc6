"""The detection result as JSON and as bytes: nothing lost, nothing believed that was not written by us."""

import json

import numpy as np
import pytest

from ai.detection.baseline import find_lesions, not_attempted
from ai.detection.document import UnreadableResult, load, save, to_document
from ai.volumes.types import Assembly, RoledStack


@pytest.fixture(scope="module")
def result(phantom, grids):
    return find_lesions(*phantom(lesion_centre_lps_mm=(11.0, 8.0, -4.0)).sample(*grids))


def assembly_with(*stacks):
    return Assembly("1.2", tuple(RoledStack(stack, "t2w-axial", ()) for stack in stacks), ())


def test_document_has_the_contract_s_keys(result):
    document = json.loads(json.dumps(to_document(result, {1: "2.25.7"}, {1: 3})))
    assert document["state"] == "succeeded"
    first = document["candidates"][0]
    contract = "tracking_uid probability above_operating_point volume_ml centroid_lps_mm sector segment_number"
    assert set(contract.split()) <= set(first)
    assert first["tracking_uid"] == "2.25.7"
    assert first["segment_number"] == 3
    assert first["centroid_lps_mm"] == list(result.candidates[0].centroid_lps_mm)
    assert document["algorithm"]["name"] == "pacsgate-baseline"


def test_document_of_what_was_not_attempted():
    document = to_document(not_attempted("no DWI"), {}, {})
    assert document["state"] == "not-attempted"
    assert document["reason"] == "no DWI"
    assert document["candidates"] == []


def test_saving_loses_nothing(result):
    again = load(save(result), assembly_with(result.t2w))
    assert again.candidates == result.candidates
    assert (again.state, again.reason, again.algorithm) == (result.state, result.reason, result.algorithm)
    assert again.operating_point == result.operating_point
    assert again.t2w is result.t2w
    np.testing.assert_array_equal(again.labels, result.labels)
    np.testing.assert_array_equal(again.gland, result.gland)
    assert again.labels.dtype == np.uint8
    assert again.gland.dtype == bool


def test_saving_what_was_not_attempted():
    assert load(save(not_attempted("no DWI")), assembly_with()) == not_attempted("no DWI")


def test_same_result_same_bytes(result):
    assert save(result) == save(result)


def test_foreign_or_damaged_bytes_are_refused(result, stack_of, geometry_of):
    data = save(result)
    for damaged in (b"", b"PK\x03\x04", data[:200], data[:-40], b"{}", data.replace(b"record", b"recorb")):
        with pytest.raises(UnreadableResult):
            load(damaged, assembly_with(result.t2w))
    with pytest.raises(UnreadableResult, match="no volume"):
        load(data, assembly_with())
    other = stack_of(geometry_of((3, 4, 5), (1.0, 1.0, 1.0)))
    with pytest.raises(UnreadableResult, match="do not fit"):
        load(data, assembly_with(other))
