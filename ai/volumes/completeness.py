"""Whether the volumes of one series have gaps: what geometry says of a series being complete (PS3.3 C.7.6.2).

Slices of a grid without a hole, as many for each b-value and time point, are what a finished series looks like; they
cannot tell that no further slice comes at its end. A hole, or a b-value with fewer slices, tells that one is missing.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ai.volumes.types import Stack, StackAnomaly

MINIMUM_SLICES = 3
"""Two slices are equidistant whatever they are."""


@dataclass(frozen=True)
class Completeness:
    """How many slices the volumes of a series lack, and what they look like in words."""

    missing_slices: int
    reason: str


def completeness(stacks: Sequence[Stack], announced_temporal_positions: int | None = None) -> Completeness | None:
    """What the geometry of one series' stacks says; None where it says nothing.

    Args:
        stacks: all of one series, from ``build_stacks``.
        announced_temporal_positions: Number of Temporal Positions (0020,0105), if the headers have it.
    """
    if not stacks or any(stack.geometry is None or _is_scattered(stack) for stack in stacks):
        return None
    if max(len(stack.slices) for stack in stacks) < MINIMUM_SLICES:
        return None
    holes = sum(len(stack.missing_slice_indices) for stack in stacks)
    shorter = _shorter(stacks)
    moments = _missing_moments(stacks, announced_temporal_positions)
    faults = [
        f"{holes} slice(s) missing between others" if holes else "",
        f"{shorter} slice(s) fewer than in the other volumes of the series" if shorter else "",
        f"{moments} of {announced_temporal_positions} time points missing" if moments else "",
    ]
    missing = holes + shorter + moments * max(len(stack.slices) for stack in stacks)
    words = ", ".join(fault for fault in faults if fault) or "without a gap"
    return Completeness(missing, f"{len(stacks)} volume(s) of {_counts(stacks)} slices, {words}")


def _is_scattered(stack: Stack) -> bool:
    """Part of a scout in several orientations, or of a pile: its slices are no grid to miss one of."""
    return bool({StackAnomaly.MIXED_ORIENTATION, StackAnomaly.IRREGULAR_SPACING}.intersection(stack.anomalies))


def _shorter(stacks: Sequence[Stack]) -> int:
    """Slices that volumes lack against the longest of the same image type: all b-values and time points are alike."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for stack in stacks:
        image = (stack.acquisition.image_type, stack.rows, stack.columns, stack.plane)
        groups[image].append(len(stack.slices) + len(stack.missing_slice_indices))
    return sum(max(counts) - count for counts in groups.values() for count in counts)


def _missing_moments(stacks: Sequence[Stack], announced: int | None) -> int:
    positions = {stack.acquisition.temporal_position for stack in stacks} - {None}
    return max(announced - len(positions), 0) if announced and positions else 0


def _counts(stacks: Sequence[Stack]) -> str:
    counts = sorted({len(stack.slices) for stack in stacks})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
