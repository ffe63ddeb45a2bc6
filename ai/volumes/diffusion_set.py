"""The diffusion-weighted volumes of one acquisition that may be fitted together: same place, same timing, several b."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ai.volumes.geometry import grid_key, same_grid
from ai.volumes.types import Geometry, Role, RoledStack, Stack

SAME_TIMING_MS = 1.0
"""Volumes whose TE and TR differ by less carry the same T1 and T2 weighting; others cannot be fitted together."""


@dataclass(frozen=True)
class DiffusionSet:
    """Acquired volumes on one grid by b-value in s/mm2, rising; several per b-value are directions or repetitions."""

    stacks_by_b: Mapping[float, tuple[Stack, ...]]
    geometry: Geometry
    frame_of_reference_uid: str

    @property
    def b_values_s_per_mm2(self) -> tuple[float, ...]:
        """The b-values, rising."""
        return tuple(self.stacks_by_b)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """All volumes, by rising b-value."""
        return tuple(stack for stacks in self.stacks_by_b.values() for stack in stacks)

    def describe(self) -> str:
        """The b-values and series in words."""
        b_values = ", ".join(f"{b_value:g}" for b_value in self.b_values_s_per_mm2)
        series = sorted({describe_series(stack) for stack in self.stacks})
        return f"b = {b_values} s/mm2 of {' and '.join(series)}"


def choose_diffusion_set(
    roled: Sequence[RoledStack], quality: Mapping[str, float] | None = None
) -> DiffusionSet | None:
    """The acquired diffusion series to work with, completed by other series of the same grid and timing.

    The one with most b-values is taken; between equals the better ``quality`` (by Series Instance UID), then the
    higher b-value, then the later one. None where no acquired volume has a b-value and a geometry.
    """
    groups: dict[Hashable, list[Stack]] = defaultdict(list)
    for stack in (one.stack for one in roled if one.role == Role.DWI):
        if stack.geometry is not None and stack.b_value is not None:
            acquisition = stack.acquisition
            timing = (acquisition.echo_time_ms, acquisition.repetition_time_ms)
            place = (stack.frame_of_reference_uid, grid_key(stack.geometry))
            groups[(stack.series_instance_uid, place, timing)].append(stack)
    if not groups:
        return None
    candidates = list(groups.values())
    best = max(candidates, key=lambda part: _rank(part, quality or {}))
    return _completed(best, candidates)


def describe_series(stack: Stack) -> str:
    """A series as a reader finds it in the PACS."""
    number = stack.acquisition.series_number
    name = f"series {number}" if number is not None else f"series {stack.series_instance_uid}"
    return f"{name} ({stack.acquisition.series_description})" if stack.acquisition.series_description else name


def moment(stack: Stack) -> tuple[str, str, int]:
    """When a stack was acquired, for sorting within a study."""
    acquisition = stack.acquisition
    return (acquisition.acquisition_time, acquisition.series_time, acquisition.series_number or 0)


def comparable_frame_of_reference(a: str, b: str) -> bool:
    """Whether positions can be compared; an empty UID (some anonymisers blank it) is given the benefit of the doubt."""
    return not a or not b or a == b


def _rank(part: Sequence[Stack], quality: Mapping[str, float]) -> tuple[int, float, float, tuple[str, str, int]]:
    b_values = {_b(stack) for stack in part}
    score = quality.get(part[0].series_instance_uid, 0.0)
    return (len(b_values), score, max(b_values), max(moment(stack) for stack in part))


def _completed(best: Sequence[Stack], candidates: Sequence[Sequence[Stack]]) -> DiffusionSet:
    by_b: dict[float, list[Stack]] = defaultdict(list)
    for stack in best:
        by_b[_b(stack)].append(stack)
    others = sorted((part for part in candidates if part is not best), key=lambda part: moment(part[0]), reverse=True)
    for part in others:
        if _fit_together(best[0], part[0]):
            new = {_b(stack) for stack in part} - by_b.keys()
            for stack in part:
                if _b(stack) in new:
                    by_b[_b(stack)].append(stack)
    geometry = best[0].geometry
    if geometry is None:
        raise ValueError("a diffusion set needs a geometry")
    ordered = {b_value: tuple(by_b[b_value]) for b_value in sorted(by_b)}
    return DiffusionSet(ordered, geometry, best[0].frame_of_reference_uid)


def _b(stack: Stack) -> float:
    if stack.b_value is None:
        raise ValueError(f"volume {stack.volume_id} has no b-value")
    return float(round(stack.b_value.s_per_mm2))


def _fit_together(a: Stack, b: Stack) -> bool:
    if a.geometry is None or b.geometry is None or a.frame_of_reference_uid != b.frame_of_reference_uid:
        return False
    return same_grid(a.geometry, b.geometry) and _same_timing(a, b)


def _same_timing(a: Stack, b: Stack) -> bool:
    pairs = (
        (a.acquisition.echo_time_ms, b.acquisition.echo_time_ms),
        (a.acquisition.repetition_time_ms, b.acquisition.repetition_time_ms),
    )
    return all(one == two or (one and two and abs(one - two) < SAME_TIMING_MS) for one, two in pairs)
