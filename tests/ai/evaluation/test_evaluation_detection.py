"""The detection evaluation: pairing of marks and lesions, and how records become figures."""

import numpy as np
import pytest

from ai.detection.types import DetectionState
from ai.evaluation.detection import DetectionRecord, evaluate_detection, paired_ious, split_lesions, summarise
from ai.evaluation.simulated import Simulator
from ai.evaluation.statistics import intersection_over_union
from ai.simulation.gland import Zone

SHAPE = (4, 20, 20)


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 4:8, start:stop] = True
    return mask


def record(ious: tuple[float, ...], marks: int, gland: float | None = 0.8, seed: int = 1) -> DetectionRecord:
    state = DetectionState.SUCCEEDED if gland is not None else DetectionState.FAILED
    return DetectionRecord(seed, bool(ious), state, ious, marks, gland)


def test_lesions_of_a_mask_are_told_apart_largest_first() -> None:
    mask = box(0, 2) | box(10, 16)
    lesions = split_lesions(mask, 2)
    assert [int(lesion.sum()) for lesion in lesions] == [48, 16]
    assert np.array_equal(lesions[0] | lesions[1], mask)
    assert split_lesions(np.zeros(SHAPE, bool), 2) == []


def test_crumbs_of_a_lesion_are_no_lesions() -> None:
    (lesion,) = split_lesions(box(0, 6) | box(8, 9), 1)
    assert np.array_equal(lesion, box(0, 6))


def test_a_mark_serves_one_lesion_the_one_of_the_largest_total() -> None:
    lesions = [box(0, 6), box(6, 9)]
    # The first mark touches both lesions, the second only the first one.
    marks = [box(4, 9), box(0, 3)]
    assert paired_ious(lesions, marks) == pytest.approx((3 / 6, 3 / 5))
    assert paired_ious(lesions, marks[:1]) == pytest.approx((0.0, 3 / 5))
    assert intersection_over_union(lesions[0], marks[0]) == pytest.approx(2 / 9)


def test_without_marks_or_lesions_nothing_is_hit() -> None:
    assert paired_ious([box(0, 3)], []) == (0.0,)
    assert paired_ious([], [box(0, 3)]) == ()


def test_hits_and_false_marks_depend_on_the_overlap_asked_for() -> None:
    one = record((0.4, 0.0), marks=3)
    assert (one.hits(0.1), one.false_marks(0.1)) == (1, 2)
    assert (one.hits(0.5), one.false_marks(0.5)) == (0, 3)


def test_summary_counts_patients_with_and_without_lesion() -> None:
    found = [
        record((0.6,), 1, 0.9, seed=1),
        record((), 0, 0.9, seed=1),
        record((0.2, 0.0), 3, 0.7, seed=2),
        record((), 2, 0.6, seed=2),
        record((0.0,), 0, None, seed=3),
    ]
    summary = summarise(found)
    loose, strict = summary.hits
    assert loose.index_lesions_hit.value == pytest.approx(2 / 3)
    assert loose.lesions_hit.value == pytest.approx(2 / 4)
    assert loose.false_marks_with_lesion.value == pytest.approx(2 / 3)
    assert strict.index_lesions_hit.value == pytest.approx(1 / 3)
    assert strict.false_marks_with_lesion.value == pytest.approx(1.0)
    assert summary.false_marks_without_lesion.value == 1.0
    assert summary.unmarked_without_lesion.value == 0.5
    assert summary.gland_dice.value == pytest.approx(0.8)
    assert summary.least_gland_dice == 0.7
    assert (summary.failed, summary.studies) == (1, 5)


@pytest.mark.slow
def test_a_simulated_patient_with_and_without_lesion() -> None:
    told: list[str] = []
    simulator = Simulator(spacing_mm=(2.0, 1.0, 1.0), lesion_zone=Zone.TRANSITION)
    diseased, healthy = evaluate_detection([7], simulator, told.append)
    assert told == ["1 of 2: seed 7 with lesion", "2 of 2: seed 7 without lesion"]
    assert len(diseased.lesion_ious) >= 1
    assert healthy.lesion_ious == ()
    assert diseased.state is healthy.state is DetectionState.SUCCEEDED
    assert diseased.gland_dice > 0.6
    assert diseased.hits(0.1) <= diseased.marks
