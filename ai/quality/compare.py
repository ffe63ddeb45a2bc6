"""What only the whole study tells: diffusion images held against the axial T2.

A series is judged alone as soon as it is there; once its study is, its diffusion series are judged further by where
their tissue lies. Volumes of one acquisition (b-values, the ADC map and images computed from them) share a grid and one
distortion, measured once on the image nearest to T2. No more than one T2 and one diffusion volume are in memory.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence, Set

from ai.quality.distortion import distortion_metrics, unmeasured, why_not_comparable
from ai.quality.series import judge_further
from ai.quality.types import Metric, SeriesAssessment, Verdict
from ai.volumes.geometry import grid_key
from ai.volumes.load import load_volume
from ai.volumes.types import Assembly, Choice, PixelSource, PixelsUnavailable, Role, RoledStack, Stack, Volume

NEAREST_TO_T2 = (Role.DWI, Role.ADC, Role.DWI_CALCULATED)
"""Which image of an acquisition is compared, best first: of DWI the lowest b-value; ADC has T2-like contrast too."""

USABLE = (Verdict.DIAGNOSTIC, Verdict.LIMITED)
"""What a T2 must be to say where tissue lies."""


def compare_with_t2(
    assembly: Assembly,
    choice: Choice,
    series: Sequence[SeriesAssessment],
    source: PixelSource,
    kept: Set[str],
    judge_alone: Callable[[str], SeriesAssessment],
) -> list[SeriesAssessment]:
    """The assessments, those of diffusion series judged further against the axial T2.

    Args:
        assembly: the whole study.
        choice: which axial T2 was chosen, by quality.
        series: one assessment per series.
        source: pixels.
        kept: series whose assessment was made before and still holds: a comparison between two of them holds too.
        judge_alone: judges a series again without the study, for a comparison that no longer holds.
    """
    by_uid = {entry.series_instance_uid: entry for entry in series}
    t2 = next((entry.stack for entry in assembly.stacks if entry.stack.volume_id == choice.volume_id), None)
    why_none = f"no axial T2 to compare with: {choice.reason}"
    if t2 is not None and by_uid[t2.series_instance_uid].verdict not in USABLE:
        # Registered to a blurred or unread T2, good diffusion images would look displaced.
        why_none = f"the axial T2 is {by_uid[t2.series_instance_uid].verdict}"
        t2 = None
    comparison = _Comparison(t2, why_none, source)
    for stacks in _acquisitions(assembly.stacks):
        rows = [by_uid[uid] for uid in dict.fromkeys(entry.stack.series_instance_uid for entry in stacks)]
        rows = [row for row in rows if row.role in NEAREST_TO_T2]
        if all(row.verdict is Verdict.NOT_ASSESSED for row in rows) or _holds(rows, t2, kept):
            continue
        metrics = comparison.measure(stacks)
        for row in rows:
            alone = judge_alone(row.series_instance_uid) if row.compared_with else row
            uid = t2.series_instance_uid if t2 is not None else ""
            by_uid[row.series_instance_uid] = judge_further(alone, metrics, uid)
    return [by_uid[entry.series_instance_uid] for entry in series]


def _holds(rows: Sequence[SeriesAssessment], t2: Stack | None, kept: Set[str]) -> bool:
    """Whether every row was compared with this T2 before, and neither has changed since."""
    if t2 is None or t2.series_instance_uid not in kept:
        return False
    return all(row.compared_with == t2.series_instance_uid and row.series_instance_uid in kept for row in rows)


def _acquisitions(stacks: Sequence[RoledStack]) -> list[list[RoledStack]]:
    """Diffusion stacks by frame of reference and grid, the image nearest to T2 first."""
    groups: dict[Hashable, list[RoledStack]] = defaultdict(list)
    for entry in stacks:
        if entry.role in NEAREST_TO_T2:
            geometry = entry.stack.geometry
            place = grid_key(geometry) if geometry is not None else entry.stack.series_instance_uid
            groups[(entry.stack.frame_of_reference_uid, place)].append(entry)
    return [sorted(group, key=_distance_from_t2) for group in groups.values()]


def _distance_from_t2(entry: RoledStack) -> tuple[int, float, str]:
    b_value = entry.stack.b_value.s_per_mm2 if entry.stack.b_value is not None else 0.0
    return [*NEAREST_TO_T2].index(Role(entry.role)), b_value, entry.stack.volume_id


class _Comparison:
    """One study's axial T2, loaded when the first acquisition needs it."""

    def __init__(self, t2: Stack | None, why_none: str, source: PixelSource) -> None:
        self._t2 = t2
        self._why_none = why_none
        self._source = source
        self._volume: Volume | None = None

    def measure(self, stacks: Sequence[RoledStack]) -> tuple[Metric, ...]:
        """The distortion of an acquisition, None with the reason where it cannot be had."""
        nearest = stacks[0].stack
        if self._t2 is None:
            return unmeasured(self._why_none)
        refusal = why_not_comparable(self._t2, nearest)
        if refusal:
            return unmeasured(refusal)
        try:
            self._volume = self._volume or load_volume(self._t2, self._source)
            return distortion_metrics(self._volume, load_volume(nearest, self._source))
        except PixelsUnavailable as unavailable:
            return unmeasured(f"pixels unavailable: {unavailable}")
