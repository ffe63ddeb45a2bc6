"""Loss of resolution: all round, by decay along the echo train, and by too few phase lines."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ai.simulation.artifacts.severity import strength
from ai.simulation.kspace import KSpace, along, resize_centre

BLUR_KEPT_SHARE = (0.70, 0.50, 0.34, 0.22, 0.14)
"""Where the Gaussian over k-space has fallen to 1/e, as a share of its edge."""
TRAIN_OVER_T2 = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Duration of the echo train over T2: long trains, low refocusing angles."""
FEWEST_ECHOES = 16
"""A scan that blurs by its echo train has a long one, whatever the header of the clean series says."""
PHASE_LINES_KEPT = (0.70, 0.52, 0.38, 0.27, 0.18)


def blur(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Low resolution in both directions: a Gaussian over k-space, 1/e at ``BLUR_KEPT_SHARE`` of its edge."""
    narrowing = _narrowing(severity)
    data = kspace.data
    for axis in (1, 2):
        size = data.shape[axis]
        distance = (np.arange(size) - size // 2) / (size / 2)
        data = data * along(axis, np.exp(-((distance * narrowing) ** 2)).astype(np.float32))
    return replace(kspace, data=data)


def kept_share(severity: float) -> float:
    """Share of k-space that ``blur`` leaves, 1 where the image is as sharp as it was acquired."""
    return min(1.0, 1.0 / max(_narrowing(severity), 1.0))


def _narrowing(severity: float) -> float:
    return strength([1 / share for share in BLUR_KEPT_SHARE], severity)


def t2_blur(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """T2 decay along a centre-out echo train: the point spread is a Lorentzian along the phase axis only.

    Its full width at half maximum is ``2 / pi`` pixels times the train's duration over T2.
    """
    return replace(kspace, data=kspace.data * kspace.along_phase(t2_decay(kspace, strength(TRAIN_OVER_T2, severity))))


def t2_decay(kspace: KSpace, train_over_t2: float) -> NDArray[np.float32]:
    """Signal of each phase line relative to the first echo, which is in the middle of k-space."""
    echoes = max(kspace.echo_train_length, FEWEST_ECHOES)
    distance = np.abs(kspace.phase_frequencies) / (kspace.phase_lines / 2)
    echo = np.minimum(np.floor(distance * echoes), echoes - 1)
    return np.exp(-train_over_t2 * echo / echoes).astype(np.float32)


def gibbs(kspace: KSpace, severity: float, _rng: np.random.Generator) -> KSpace:
    """Few phase lines and no raw filter: edges ring along the phase axis (Gibbs), at the period of the lines kept.

    Fewer samples also mean less noise in the image, by the root of their share.
    """
    lines = max(2, round(kspace.phase_lines * strength(PHASE_LINES_KEPT, severity, clean=1.0)))
    rows, columns = kspace.data.shape[1:]
    shape = (lines, columns) if kspace.phase_axis == 1 else (rows, lines)
    return replace(
        kspace,
        data=resize_centre(kspace.data, *shape),
        noise_sd=kspace.noise_sd * float(np.sqrt(lines / kspace.phase_lines)),
        typical_noise_sd=kspace.typical_noise_sd * float(np.sqrt(lines / kspace.phase_lines)),
        filter_taper=kspace.filter_taper * max(0.0, 1.0 - severity),
        off_resonance_hz=None,
        gas=None,
        fat=None,
    )
