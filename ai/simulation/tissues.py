"""The tissues of the simulated pelvis and their magnetic properties at 3 T.

T1 and T2 of muscle, marrow, fat and prostate: de Bazelaire et al., Radiology 2004;230:652-659 (3 T, in vivo).
T2 and ADC of peripheral zone, transition zone and tumour: Simpkin et al., Br J Radiol 2013;86:20120469
(PZ 149 +- 49 ms, 1680e-6 mm2/s; TZ 125 +- 26 ms, 1478e-6; tumour 97 +- 23 ms, 1030 +- 205e-6). Values here lie
within one to two standard deviations of those; the transition zone is split into stromal and glandular tissue around
its mean. Echo trains brighten fat (J-coupling; Pai et al., Magn Reson Imaging 2008;26:1215 report up to 143 ms): fat
and marrow carry that effective T2. Proton densities are relative to water and, like all values without a source named
here, chosen by eye.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Tissue(IntEnum):
    """Labels of the anatomy's label map."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    MARROW = 3
    CORTEX = 4
    BLADDER_WALL = 5
    URINE = 6
    RECTAL_WALL = 7
    STOOL = 8
    RECTAL_GAS = 9
    VESSEL_FLOW_VOID = 10
    VENOUS_PLEXUS = 11
    SEMINAL_VESICLE = 12
    PERIPHERAL_ZONE = 13
    TRANSITION_ZONE = 14
    GLANDULAR_NODULE = 15
    STROMAL_NODULE = 16
    FIBROMUSCULAR_STROMA = 17
    URETHRA = 18
    CAPSULE = 19
    LESION = 20
    BOWEL = 21


GLAND_TISSUES = (
    Tissue.PERIPHERAL_ZONE,
    Tissue.TRANSITION_ZONE,
    Tissue.GLANDULAR_NODULE,
    Tissue.STROMAL_NODULE,
    Tissue.FIBROMUSCULAR_STROMA,
    Tissue.URETHRA,
    Tissue.CAPSULE,
    Tissue.LESION,
)
"""What belongs to the prostate gland; a lesion never leaves it."""
GLAND_TABLE = np.isin(np.arange(max(Tissue) + 1), GLAND_TISSUES)
"""The same as bool ``[label]``, to index with a label map."""


@dataclass(frozen=True)
class TissueProperties:
    """What decides a tissue's signal.

    ``proton_density`` is relative to water, ``adc_um2_per_s`` in 10^-6 mm2/s. ``is_fat`` tissues are suppressed in
    diffusion sequences. ``grain`` and ``septa`` are the relative variation of T2 by smooth texture and by thin
    membranes (negative septa brighten, as fat strands in muscle do).
    """

    proton_density: float
    t1_ms: float
    t2_ms: float
    adc_um2_per_s: float
    is_fat: bool = False
    grain: float = 0.03
    septa: float = 0.0


PROPERTIES: dict[Tissue, TissueProperties] = {
    Tissue.AIR: TissueProperties(0.0, 1000.0, 50.0, 0.0, grain=0.0),
    Tissue.FAT: TissueProperties(0.90, 382.0, 133.0, 50.0, is_fat=True, grain=0.08, septa=0.34),
    Tissue.MUSCLE: TissueProperties(0.80, 898.0, 33.0, 1300.0, grain=0.14, septa=-0.55),
    Tissue.MARROW: TissueProperties(0.70, 586.0, 88.0, 350.0, is_fat=True, grain=0.16, septa=0.10),
    Tissue.CORTEX: TissueProperties(0.12, 900.0, 20.0, 300.0),
    Tissue.BLADDER_WALL: TissueProperties(0.80, 1200.0, 42.0, 1400.0, grain=0.08),
    Tissue.URINE: TissueProperties(1.00, 4000.0, 900.0, 3000.0, grain=0.005),
    Tissue.RECTAL_WALL: TissueProperties(0.80, 1200.0, 50.0, 1300.0, grain=0.15, septa=-0.30),
    Tissue.STOOL: TissueProperties(0.60, 900.0, 60.0, 1300.0, grain=0.40),
    Tissue.RECTAL_GAS: TissueProperties(0.0, 1000.0, 50.0, 0.0, grain=0.0),
    Tissue.VESSEL_FLOW_VOID: TissueProperties(0.10, 1900.0, 40.0, 1500.0),
    Tissue.VENOUS_PLEXUS: TissueProperties(0.85, 1900.0, 150.0, 2600.0, grain=0.30, septa=0.90),
    Tissue.SEMINAL_VESICLE: TissueProperties(0.95, 2000.0, 210.0, 1900.0, grain=0.25, septa=1.10),
    Tissue.PERIPHERAL_ZONE: TissueProperties(0.90, 1597.0, 155.0, 1700.0, grain=0.22, septa=0.60),
    Tissue.TRANSITION_ZONE: TissueProperties(0.86, 1500.0, 84.0, 1400.0, grain=0.28, septa=0.30),
    Tissue.GLANDULAR_NODULE: TissueProperties(0.90, 1600.0, 135.0, 1650.0, grain=0.26, septa=0.35),
    Tissue.STROMAL_NODULE: TissueProperties(0.84, 1400.0, 68.0, 1230.0, grain=0.12),
    Tissue.FIBROMUSCULAR_STROMA: TissueProperties(0.80, 1200.0, 46.0, 1200.0, grain=0.22),
    Tissue.URETHRA: TissueProperties(0.90, 1600.0, 130.0, 1600.0, grain=0.05),
    Tissue.CAPSULE: TissueProperties(0.75, 1200.0, 50.0, 1300.0, grain=0.05),
    Tissue.LESION: TissueProperties(0.84, 1400.0, 66.0, 800.0, grain=0.10),
    Tissue.BOWEL: TissueProperties(0.80, 1200.0, 52.0, 1400.0, grain=0.25),
}


def property_table(name: str) -> NDArray[np.float32]:
    """One property of all tissues as float32 ``[label]``, to index with a label map."""
    table = np.zeros(max(Tissue) + 1, np.float32)
    for tissue, properties in PROPERTIES.items():
        table[tissue] = getattr(properties, name)
    return table
