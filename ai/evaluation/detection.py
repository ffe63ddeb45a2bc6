"""The reference detector against planted lesions: lesions hit, false marks, overlap of the prostate region.

A mark is a candidate above the operating point. Marks and lesions are paired one to one for the largest total overlap;
a lesion is hit where its pair overlaps by at least an IoU (0.1 is the criterion of the PI-CAI challenge, Saha et al.,
Lancet Oncol 2024;25:879), and a mark without a lesion at that IoU is false. Planted lesions obey the
model the detector looks for (dark on ADC, bright at high b) in a simple pelvis: no clinical result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.optimize import linear_sum_assignment

from ai.detection.baseline import detect
from ai.detection.types import DetectionResult, DetectionState
from ai.evaluation.simulated import SimulatedCase, Simulator
from ai.evaluation.statistics import (
    Estimate,
    dice,
    intersection_over_union,
    mean_over_patients,
    proportion,
    ratio_over_patients,
)

HIT_IOUS = (0.1, 0.5)
_NEIGHBOURS_26 = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class DetectionRecord:
    """What the detector did with one simulated study.

    ``lesion_ious`` has one entry per planted lesion, largest first: the IoU with the mark paired with it, 0 without.
    ``gland_dice`` is None where detection did not succeed.
    """

    seed: int
    with_lesion: bool
    state: DetectionState
    lesion_ious: tuple[float, ...]
    marks: int
    gland_dice: float | None

    def hits(self, least_iou: float) -> int:
        """Lesions hit."""
        return sum(iou >= least_iou for iou in self.lesion_ious)

    def false_marks(self, least_iou: float) -> int:
        """Marks that hit no lesion."""
        return self.marks - self.hits(least_iou)


@dataclass(frozen=True)
class HitSummary:
    """Figures at one IoU. The index lesion is the largest of its study."""

    least_iou: float
    index_lesions_hit: Estimate
    lesions_hit: Estimate
    false_marks_with_lesion: Estimate


@dataclass(frozen=True)
class DetectionSummary:
    """Everything a table or JSON of the evaluation shows."""

    seeds: tuple[int, ...]
    studies: int
    failed: int
    hits: tuple[HitSummary, ...]
    false_marks_without_lesion: Estimate
    unmarked_without_lesion: Estimate
    gland_dice: Estimate
    least_gland_dice: float | None

    def document(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)


def evaluate_detection(
    seeds: Sequence[int],
    simulator: Simulator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[DetectionRecord]:
    """Simulate every seed with and without lesions and look for them; yield a record per study."""
    made_by = simulator or Simulator()
    for number, seed in enumerate(seeds):
        for index, with_lesion in enumerate((True, False), start=1):
            what = "with" if with_lesion else "without"
            progress(f"{2 * number + index} of {2 * len(seeds)}: seed {seed} {what} lesion")
            yield judge(made_by.case(seed, with_lesion=with_lesion), seed, with_lesion)


def judge(case: SimulatedCase, seed: int, with_lesion: bool) -> DetectionRecord:
    """Run the detector on one study and compare it with the truth."""
    result = detect(case.assembly, case.source)
    lesions = split_lesions(case.truth.lesion, len(case.truth.lesions))
    marks = _marks(result)
    overlap = None if result.gland is None else dice(result.gland, case.truth.gland)
    return DetectionRecord(seed, with_lesion, result.state, paired_ious(lesions, marks), len(marks), overlap)


def split_lesions(mask: NDArray[np.bool_], at_most: int) -> list[NDArray[np.bool_]]:
    """The 26-connected lesions of a mask, largest first, ``at_most`` as many as were planted.

    What is left are crumbs that bending and the coarse grid cut off a lesion; the truth does not count them either.
    """
    labels, count = label(mask, _NEIGHBOURS_26)
    parts = sorted((labels == number for number in range(1, count + 1)), key=lambda part: -int(part.sum()))
    return parts[:at_most]


def paired_ious(lesions: Sequence[NDArray[np.bool_]], marks: Sequence[NDArray[np.bool_]]) -> tuple[float, ...]:
    """Per lesion the IoU with the mark it is paired with, 0 where it has none. A mark serves one lesion."""
    ious = [0.0] * len(lesions)
    if not lesions or not marks:
        return tuple(ious)
    matrix = np.array([[intersection_over_union(lesion, mark) for mark in marks] for lesion in lesions])
    for lesion, mark in zip(*linear_sum_assignment(matrix, maximize=True), strict=True):
        ious[lesion] = float(matrix[lesion, mark])
    return tuple(ious)


def summarise(records: Sequence[DetectionRecord]) -> DetectionSummary:
    """Count the records of one evaluation."""
    diseased = [record for record in records if record.lesion_ious]
    healthy = [record for record in records if not record.lesion_ious]
    overlaps = [record.gland_dice for record in records if record.with_lesion and record.gland_dice is not None]
    return DetectionSummary(
        seeds=tuple(sorted({record.seed for record in records})),
        failed=sum(record.state is not DetectionState.SUCCEEDED for record in records),
        studies=len(records),
        hits=tuple(_hits(diseased, least_iou) for least_iou in HIT_IOUS),
        false_marks_without_lesion=mean_over_patients([record.marks for record in healthy]),
        unmarked_without_lesion=proportion(sum(record.marks == 0 for record in healthy), len(healthy)),
        gland_dice=mean_over_patients(overlaps),
        least_gland_dice=min(overlaps, default=None),
    )


def _marks(result: DetectionResult) -> list[NDArray[np.bool_]]:
    if result.labels is None:
        return []
    return [result.labels == candidate.label for candidate in result.candidates if candidate.above_operating_point]


def _hits(diseased: Sequence[DetectionRecord], least_iou: float) -> HitSummary:
    found = [record.hits(least_iou) for record in diseased]
    return HitSummary(
        least_iou=least_iou,
        index_lesions_hit=proportion(sum(r.lesion_ious[0] >= least_iou for r in diseased), len(diseased)),
        lesions_hit=ratio_over_patients(found, [len(record.lesion_ious) for record in diseased]),
        false_marks_with_lesion=mean_over_patients([record.false_marks(least_iou) for record in diseased]),
    )
