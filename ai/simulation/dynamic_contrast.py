"""Dynamic contrast-enhanced series: how contrast agent washes into each tissue, and what a spoiled gradient echo sees.

Arterial input: the population average of Parker et al., Magn Reson Med 2006;56:993. Tissue: the Tofts model (Tofts et
al., J Magn Reson Imaging 1999;10:223). Signal: spoiled gradient echo at short echo time, so T1 alone decides.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ai.simulation.anatomy import Anatomy
from ai.simulation.kspace import KSpace, KSpaceData
from ai.simulation.protocol import Protocol
from ai.simulation.sequences import RESIDUAL_FAT, encode, raw_series, slabs
from ai.simulation.tissues import Tissue, property_table

RELAXIVITY_PER_MM_S = 4.5
"""r1 of a macrocyclic gadolinium agent in plasma at 3 T (Szomolanyi et al., Invest Radiol 2019;54:559)."""
HAEMATOCRIT = 0.42
ARRIVAL_S = 20.0
"""Start of the scan to the bolus' arrival in the pelvis."""
TIME_STEP_S = 0.5
"""Step of the convolution; the first pass lasts some ten seconds."""
TEXTURE_OF_SIGNAL = 0.3
"""How far the T1-weighted signal follows the tissue's texture; by eye."""

KINETICS: Mapping[Tissue, tuple[float, float]] = MappingProxyType(
    {
        Tissue.FAT: (0.01, 0.05),
        Tissue.MUSCLE: (0.04, 0.10),
        Tissue.MARROW: (0.03, 0.10),
        Tissue.BLADDER_WALL: (0.08, 0.20),
        Tissue.RECTAL_WALL: (0.15, 0.25),
        Tissue.BOWEL: (0.12, 0.25),
        Tissue.VENOUS_PLEXUS: (0.60, 0.60),
        Tissue.VESSEL_FLOW_VOID: (2.00, 1.00),
        Tissue.SEMINAL_VESICLE: (0.08, 0.30),
        Tissue.PERIPHERAL_ZONE: (0.12, 0.30),
        Tissue.TRANSITION_ZONE: (0.22, 0.30),
        Tissue.GLANDULAR_NODULE: (0.20, 0.32),
        Tissue.STROMAL_NODULE: (0.30, 0.30),
        Tissue.FIBROMUSCULAR_STROMA: (0.06, 0.20),
        Tissue.URETHRA: (0.15, 0.25),
        Tissue.CAPSULE: (0.10, 0.25),
        Tissue.LESION: (0.45, 0.35),
    }
)
"""Transfer constant in 1/min and extravascular extracellular share of volume. Of the order that DCE studies of the
prostate publish (cancer about 0.3 to 0.6, peripheral zone 0.1 to 0.2), chosen by eye within it; others do not
enhance."""


def arterial_blood_mm(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Concentration in arterial blood in mM, ``seconds`` after the bolus' arrival (Parker et al. 2006, table 1)."""
    t = np.maximum(seconds, 0) / 60.0
    peaks = [(0.809, 0.17046, 0.0563), (0.330, 0.365, 0.132)]
    bolus = sum(
        area / (width * np.sqrt(2 * np.pi)) * np.exp(-((t - centre) ** 2) / (2 * width**2))
        for area, centre, width in peaks
    )
    washout = 1.050 * np.exp(-0.1685 * t) / (1 + np.exp(-38.078 * (t - 0.483)))
    return np.asarray(np.where(seconds > 0, bolus + washout, 0.0))


def tissue_mm(seconds: NDArray[np.float64], transfer_per_min: float, extracellular: float) -> NDArray[np.float64]:
    """Concentration in a tissue in mM at times after the bolus' arrival: plasma convolved with the Tofts residue."""
    grid = np.arange(0.0, max(float(seconds.max()), 0.0) + 2 * TIME_STEP_S, TIME_STEP_S)
    plasma = arterial_blood_mm(grid) / (1 - HAEMATOCRIT)
    left = np.exp(-transfer_per_min / extracellular * grid / 60.0)
    residue = extracellular * (left - left * left[1])  # its integral over each step
    convolved = np.convolve(plasma, residue)[: len(grid)]
    return np.interp(seconds, grid, convolved, left=0.0)


def signal_by_label(protocol: Protocol) -> NDArray[np.float32]:
    """Signal of each tissue in each frame, float32 ``[time, label]``; 1 is relaxed water at a flip of 90 degrees."""
    frames = np.arange(len(protocol.averages), dtype=np.float64)
    seconds = np.asarray((frames + 0.5) * protocol.frame_s - ARRIVAL_S, np.float64)
    added = np.zeros((len(seconds), len(property_table("t1_ms"))))
    for tissue, (transfer_per_min, extracellular) in KINETICS.items():
        added[:, tissue] = tissue_mm(seconds, transfer_per_min, extracellular)
    rate_per_ms = 1 / property_table("t1_ms") + RELAXIVITY_PER_MM_S * added / 1000.0
    kept = np.exp(-protocol.repetition_time_ms * rate_per_ms)
    flip = np.deg2rad(protocol.flip_angle_deg)
    steady = np.sin(flip) * (1 - kept) / (1 - np.cos(flip) * kept)
    seen = property_table("proton_density") * np.where(property_table("is_fat") > 0, RESIDUAL_FAT, 1.0)
    return (steady * seen).astype(np.float32)


def acquire_dynamic(anatomy: Anatomy, protocol: Protocol) -> tuple[KSpace, ...]:
    """Scan the anatomy while the agent arrives: noiseless raw data, one stack per frame.

    A frame is a sum over tissues, so each tissue of a slice is encoded once and weighted per frame.
    """
    signals = signal_by_label(protocol)
    stacks: list[list[KSpaceData]] = [[] for _ in protocol.averages]
    for slab in slabs(anatomy, protocol):
        present = np.unique(slab.labels)
        present = present[signals[:, present].any(axis=0)]
        variation = (
            property_table("grain")[slab.labels] * slab.grain - property_table("septa")[slab.labels] * slab.septa
        )
        texture = 1 + TEXTURE_OF_SIGNAL * np.clip(variation, -1, 1).astype(np.float32)
        tissues = np.stack(
            [
                encode(anatomy, protocol, np.tensordot(slab.weights, texture * (slab.labels == label), 1))
                for label in present
            ]
        )
        for stack, weights in zip(stacks, signals[:, present], strict=True):
            stack.append(np.tensordot(weights, tissues, 1).astype(np.complex64))
    return raw_series(anatomy, protocol, tuple(np.stack(stack) for stack in stacks))
