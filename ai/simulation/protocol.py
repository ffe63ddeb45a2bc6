"""Scan protocols of a prostate MR examination that meets PI-RADS v2.1 (2019), section on technical specifications.

T2: 3 mm without gap, field of view 120-200 mm, at most 0.4 mm (frequency) by 0.7 mm (phase). DWI: at most 4 mm and
2.5 mm in plane, field of view 160-220 mm, TE <= 90 ms, TR >= 3000 ms, low b 50-100, 800-1000 and at least 1400 s/mm2.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Plane = Literal["axial", "sagittal", "coronal"]


class SeriesKind(StrEnum):
    """The series of a simulated study."""

    T2_AXIAL = "t2-axial"
    T2_SAGITTAL = "t2-sagittal"
    T2_CORONAL = "t2-coronal"
    DWI = "dwi"
    ADC = "adc"
    DCE = "dce"


T2_KINDS = frozenset({SeriesKind.T2_AXIAL, SeriesKind.T2_SAGITTAL, SeriesKind.T2_CORONAL})


@dataclass(frozen=True)
class Protocol:
    """How one series is acquired. ``averages`` has one entry per volume: b-value, or frame of ``frame_s`` seconds.

    ``frequency_samples`` and ``phase_lines`` count over the square ``field_of_view_mm``; oversampling comes on top.
    ``phase_direction`` is In-plane Phase Encoding Direction (0018,1312): ROW means along a row of the image.
    ``noise_sd`` is the thermal noise of one average, relative to the signal of undecayed water.
    """

    kind: SeriesKind
    series_number: int
    series_description: str
    sequence_name: str
    plane: Plane
    repetition_time_ms: float
    echo_time_ms: float
    echo_train_length: int
    echo_spacing_ms: float
    flip_angle_deg: float
    pixel_bandwidth_hz: float
    field_of_view_mm: float
    slices: int
    slice_thickness_mm: float
    frequency_samples: int
    phase_lines: int
    phase_direction: Literal["ROW", "COL"]
    matrix: int
    averages: tuple[int, ...]
    noise_sd: float
    b_values: tuple[float, ...] = ()
    seconds: float = 240.0
    frame_s: float = 0.0

    @property
    def pixel_spacing_mm(self) -> float:
        """Spacing of the reconstructed pixels."""
        return self.field_of_view_mm / self.matrix


T2_AXIAL = Protocol(
    kind=SeriesKind.T2_AXIAL,
    series_number=4,
    series_description="t2_tse_tra",
    sequence_name="*tse2d1_20",
    plane="axial",
    repetition_time_ms=5660.0,
    echo_time_ms=104.0,
    echo_train_length=20,
    echo_spacing_ms=10.4,
    flip_angle_deg=160.0,
    pixel_bandwidth_hz=200.0,
    field_of_view_mm=160.0,
    slices=24,
    slice_thickness_mm=3.0,
    frequency_samples=416,
    phase_lines=272,
    phase_direction="ROW",
    matrix=416,
    averages=(3,),
    noise_sd=0.022,
)
"""Phase runs left-right, so that bowel and breathing ghosts do not cross the gland."""

T2_SAGITTAL = replace(
    T2_AXIAL,
    kind=SeriesKind.T2_SAGITTAL,
    series_number=3,
    series_description="t2_tse_sag",
    plane="sagittal",
    repetition_time_ms=5200.0,
    echo_time_ms=101.0,
    echo_spacing_ms=10.1,
    slices=20,
    phase_lines=256,
    phase_direction="COL",
    averages=(2,),
)

T2_CORONAL = replace(
    T2_SAGITTAL,
    kind=SeriesKind.T2_CORONAL,
    series_number=5,
    series_description="t2_tse_cor",
    plane="coronal",
    slices=18,
    phase_direction="ROW",
)

DWI = Protocol(
    kind=SeriesKind.DWI,
    series_number=6,
    series_description="ep2d_diff_tra_b50_400_800_1400",
    sequence_name="*ep_b",
    plane="axial",
    repetition_time_ms=4600.0,
    echo_time_ms=64.0,
    echo_train_length=50,
    echo_spacing_ms=0.36,
    flip_angle_deg=90.0,
    pixel_bandwidth_hz=1500.0,
    field_of_view_mm=200.0,
    slices=20,
    slice_thickness_mm=3.6,
    frequency_samples=100,
    phase_lines=100,
    phase_direction="ROW",
    matrix=200,
    averages=(2, 4, 8, 14),
    noise_sd=0.026,
    b_values=(50.0, 400.0, 800.0, 1400.0),
)
"""``echo_spacing_ms`` is effective: parallel imaging with factor 2 halves the time between lines."""

DCE = Protocol(
    kind=SeriesKind.DCE,
    series_number=8,
    series_description="t1_vibe_tra_dyn",
    sequence_name="*fl3d1",
    plane="axial",
    repetition_time_ms=4.0,
    echo_time_ms=1.5,
    echo_train_length=1,
    echo_spacing_ms=4.0,
    flip_angle_deg=12.0,
    pixel_bandwidth_hz=500.0,
    field_of_view_mm=192.0,
    slices=20,
    slice_thickness_mm=3.0,
    frequency_samples=128,
    phase_lines=112,
    phase_direction="ROW",
    matrix=128,
    averages=(1,) * 24,
    noise_sd=0.003,
    seconds=192.0,
    frame_s=8.0,
)
"""PI-RADS v2.1: 3 mm, at most 2 mm in plane, at most 15 s a frame, more than 2 minutes."""

ADC_SERIES_NUMBER = 7
ADC_FIT_UP_TO_B = 1000.0
"""PI-RADS v2.1: the ADC map is fitted to b-values of at most 1000 s/mm2 (kurtosis bends the decay beyond)."""

PROSTATE_PROTOCOLS = (T2_SAGITTAL, T2_AXIAL, T2_CORONAL, DWI)
"""One biparametric examination, in the order of acquisition; ``DCE`` makes it multiparametric."""
