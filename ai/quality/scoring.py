"""From metrics to sub-scores: one published piecewise-linear curve per metric and kind of sequence, 0 worst, 1 best.

How the curves were chosen. There are hardly any labelled prostate scans, so the points are an assumption, placed by eye
between clean and ruined versions of real series: T2W of Philips MIP-PROSTATE-01-0003 and -0006, Prostate3T-03-0001 and
ProstateX-0001, DWI and ADC of ProstateX-0000 and -0001; ruined by k-space motion between echo trains, Rician noise,
periodic ghosts and blur at graded strength; and of simulated studies (seeds 1 and 2) with the artefacts of
``ai.simulation``. The clean versions of all other series were looked at too, so only the ruined versions of
MIP-PROSTATE-01-0002, -0005, -0007, Prostate3T-03-0002, -0004 and the T2W of ProstateX-0000, and simulated seeds beyond
2, are held out from placing the points, though their scores were looked at while the curves were drawn: an independent
test they are not. The points are to be refitted when a site gives graded scans. Every curve is monotone: a worse metric
never scores higher.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.quality import codes
from ai.quality.definitions import METRICS_VERSION
from ai.quality.types import Code
from ai.volumes.types import Role

NON_DIAGNOSTIC_BELOW = 0.4
LIMITED_BELOW = 0.7
"""Cut points of every sub-score and of the score. The curves are placed so that 0.4 and 0.7 are where the metric of a
visibly ruined and of a visibly impaired series begins."""

WORST_SHARE = 0.25
"""Share of the slices, the worst ones, that counts as much as the median slice: a lesion spans few slices."""


@dataclass(frozen=True)
class Criterion:
    """One way a series can fail: a metric, its curve of (value, score) points, and the code and words of the defect.

    ``per_slice`` criteria are scored on every slice and pooled; others on the volume's metric. A curve that ends above
    NON_DIAGNOSTIC_BELOW can limit a series, never disqualify it.
    """

    metric: str
    curve: tuple[tuple[float, float], ...]
    code: Code
    defect: str
    per_slice: bool = True
    code_if_disqualifying: Code | None = None
    """Where the standard has a word of its own for the worst."""

    def score(self, value: float | None) -> float | None:
        """Sub-score of a metric value; None where the metric could not be computed."""
        if value is None:
            return None
        positions, scores = zip(*self.curve, strict=True)
        return float(np.interp(value, positions, scores))


def pooled(scores: Sequence[float | None]) -> float | None:
    """Mean of the median slice and of the worst quarter of the slices; None where no slice has a score.

    Monotone: no slice can get worse and the pool better.
    """
    known = np.sort([score for score in scores if score is not None])
    if known.size == 0:
        return None
    return float(0.5 * np.median(known) + 0.5 * worst_mean(known))


def worst_mean(scores: NDArray[np.floating]) -> float:
    """Mean of the worst ``WORST_SHARE`` of the scores, of one at least; in any order."""
    return float(np.sort(scores)[: max(1, int(np.ceil(len(scores) * WORST_SHARE)))].mean())


_GHOST = Criterion(
    "ghost_prominence",
    ((0.08, 1.0), (0.13, 0.7), (0.22, 0.4), (0.42, 0.0)),
    codes.GHOST,
    "discrete ghosts along the phase-encoding axis",
)
_DROP = Criterion(
    "signal_drop",
    ((0.15, 1.0), (0.4, 0.7), (1.0, 0.4), (2.3, 0.0)),
    codes.IMAGE_ARTIFACT,
    "slices lose signal against their neighbours",
)
_CLIPPED = Criterion(
    "clipped_fraction",
    ((0.001, 1.0), (0.01, 0.7), (0.1, 0.4), (0.3, 0.0)),
    codes.IMAGE_ARTIFACT,
    "tissue is clipped at the highest value",
)
_EMPTY = Criterion(
    "valid_fraction",
    ((0.02, 0.0), (0.05, 0.4), (0.1, 0.7), (0.2, 1.0)),
    codes.IMAGE_ARTIFACT,
    "slices are empty",
)
_MISSING = Criterion(
    "missing_fraction",
    ((0.0, 1.0), (0.01, 0.69), (0.2, 0.4), (0.5, 0.0)),
    codes.ANATOMY_COVERAGE_INCOMPLETE,
    "slices are missing inside the stack",
    per_slice=False,
)
# Gland extent along the axis of the body in 32 public prostates (MSD Task05): 32 mm least, 40 mm 10th percentile,
# 56 mm median.
_COVERAGE = Criterion(
    "coverage",
    ((16.0, 0.0), (32.0, 0.4), (40.0, 0.7), (56.0, 1.0)),
    codes.ANATOMY_COVERAGE_INCOMPLETE,
    "the stack is shorter than most prostates",
    per_slice=False,
)
_BIAS = Criterion(
    "bias_field_range",
    ((4.0, 1.0), (8.0, 0.69), (20.0, 0.5)),
    codes.NON_UNIFORM_SIGNAL,
    "strong coil bias",
    per_slice=False,
)
_HOT_SPOT = Criterion(
    "hot_spot_ratio",
    ((1.5, 1.0), (2.5, 0.69), (6.0, 0.5)),
    codes.NON_UNIFORM_SIGNAL,
    "the periphery outshines the gland",
    per_slice=False,
)

# Up to an acquired voxel (2 mm; PI-RADS v2.1 allows 2.5) nothing is lost. Cancer becomes significant at 0.5 ml
# (PI-RADS v2.1), a sphere of 4.9 mm radius: displaced by 5 mm it lies half outside its place on T2, by 10 mm wholly.
_DISPLACED = Criterion(
    "displacement_p95",
    ((2.0, 1.0), (3.0, 0.7), (5.0, 0.4), (10.0, 0.0)),
    codes.DISTORTION,
    "tissue lies elsewhere than on the axial T2",
    per_slice=False,
    code_if_disqualifying=codes.SEVERE_DISTORTION,
)


def _noise(*curve: tuple[float, float]) -> Criterion:
    return Criterion("structure_to_noise", curve, codes.POOR_SNR, "noise")


def _edges(*curve: tuple[float, float]) -> Criterion:
    return Criterion("edge_width", curve, codes.SMEARING, "edges are blurred")


_COMMON = (_GHOST, _DROP, _CLIPPED, _EMPTY, _MISSING, _BIAS)
_T2 = (
    *_COMMON,
    _noise((2.5, 0.0), (6.0, 0.4), (10.5, 0.7), (15.0, 1.0)),
    _edges((0.9, 1.0), (1.2, 0.7), (2.1, 0.4), (3.5, 0.0)),
    Criterion(
        "gradient_concentration",
        ((1.16, 0.0), (1.25, 0.4), (1.34, 0.7), (1.42, 1.0)),
        codes.MOTION_ARTIFACT,
        "edges are spread as by motion",
    ),
)
_DIFFUSION_EDGES = _edges((2.4, 1.0), (2.9, 0.7), (3.7, 0.4), (5.5, 0.0))
_DWI = (
    *_COMMON,
    _COVERAGE,
    _HOT_SPOT,
    _noise((0.9, 0.0), (1.3, 0.4), (2.2, 0.7), (4.5, 1.0)),
    _DIFFUSION_EDGES,
    _DISPLACED,
)
_MAP = (
    _MISSING,
    _DROP,
    _COVERAGE,
    _noise((1.6, 0.0), (2.5, 0.4), (4.5, 0.7), (8.0, 1.0)),
    _DIFFUSION_EDGES,
    Criterion(
        "valid_fraction",
        ((0.05, 0.0), (0.15, 0.4), (0.3, 0.7), (0.45, 1.0)),
        codes.ANATOMY_COVERAGE_INCOMPLETE,
        "the map is empty over much of the centre",
    ),
    _DISPLACED,
)
# No T1W or DCE with known flaws was at hand: only what needs no calibration by sequence.
_UNCALIBRATED = (_GHOST, _DROP, _CLIPPED, _EMPTY, _MISSING)

# AAPM report 116 (2009), deviation index in clinical images: below -1 under-exposed, a repeat is to be considered;
# above +1 over-exposed, above +3 too much dose, but no worse an image. By itself it decides no repeat: it only limits.
_UNDER_EXPOSED = Criterion(
    "deviation_index",
    ((-6.0, 0.5), (-1.0, 0.7), (-0.5, 1.0)),
    codes.UNDER_EXPOSED,
    "exposure is below its target",
    per_slice=False,
)
_OVER_EXPOSED = Criterion(
    "deviation_index",
    ((1.0, 1.0), (3.0, 0.7), (6.0, 0.5)),
    codes.OVER_EXPOSED,
    "exposure is above its target",
    per_slice=False,
)
_RADIOGRAPH = (_UNDER_EXPOSED, _OVER_EXPOSED)

CRITERIA: Mapping[str, tuple[Criterion, ...]] = {
    Role.T2W_AXIAL: (*_T2, _COVERAGE),
    Role.T2W_SAGITTAL: _T2,
    Role.T2W_CORONAL: _T2,
    Role.DWI: _DWI,
    Role.DWI_CALCULATED: (*_MAP, _HOT_SPOT),
    Role.ADC: _MAP,
    Role.T1W: _UNCALIBRATED,
    Role.DCE: _UNCALIBRATED,
}
"""What each role is judged by, inside its envelope (``ai.quality.envelopes``); other roles have no full verdict."""

DEFECTS: Mapping[str, tuple[Criterion, ...]] = {"ct": (_MISSING,), "cr": _RADIOGRAPH, "dx": _RADIOGRAPH}
"""What is a defect of any image of a role that has no full verdict; without one it is not assessed."""


def score_definition(roles: Sequence[str]) -> str:
    """SHA-256 over all that makes the score of these roles; what was learned of scores holds for this definition only.

    Raises:
        KeyError: a role without criteria, which has no score.
    """
    criteria = [
        (str(role), [(one.metric, one.curve, one.per_slice) for one in CRITERIA[role]]) for role in sorted(roles)
    ]
    return hashlib.sha256(repr((METRICS_VERSION, WORST_SHARE, criteria)).encode()).hexdigest()
