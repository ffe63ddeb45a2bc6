"""Simulated examinations of seeds that no threshold was looked at with: what the demonstration relies on."""

import numpy as np
import pytest

from ai.quality.gate import judge_series
from ai.quality.metrics import slice_metrics, volume_metrics
from ai.quality.types import Verdict
from ai.simulation.protocol import DWI, T2_AXIAL, SeriesKind
from ai.simulation.study import SimulatedSeries, simulate_study
from ai.volumes.types import Role, RoledStack, Volume

pytestmark = pytest.mark.slow

ROLES = {SeriesKind.T2_AXIAL: Role.T2W_AXIAL, SeriesKind.DWI: Role.DWI, SeriesKind.ADC: Role.ADC}
HELD_OUT_SEED = 11


def verdicts(made, series: SimulatedSeries) -> list[Verdict]:
    """One verdict per volume of a simulated series."""
    protocol, geometry = series.protocol, series.geometry
    found = []
    for pixels in series.pixels:
        stack = made.stack(
            pixels.shape,
            geometry.spacing_mm,
            acquisition_matrix=(0, protocol.frequency_samples, protocol.phase_lines, 0),
            percent_phase_field_of_view=100.0,
            in_plane_phase_encoding_direction=protocol.phase_direction,
        )
        volume = Volume(stack, pixels.astype(np.float32))
        role = ROLES[series.kind]
        slices = slice_metrics(volume, role)
        metrics = volume_metrics(volume, role, slices)
        found.append(judge_series(RoledStack(stack, role, ()), slices, metrics).verdict)
    return found


def test_a_clean_examination_is_not_condemned(made) -> None:
    study = simulate_study(HELD_OUT_SEED, protocols=(T2_AXIAL, DWI))
    assert verdicts(made, study.of(SeriesKind.T2_AXIAL)) == [Verdict.DIAGNOSTIC]
    for kind in (SeriesKind.DWI, SeriesKind.ADC):
        assert Verdict.NON_DIAGNOSTIC not in verdicts(made, study.of(kind))


@pytest.mark.parametrize(("artifact", "severity"), [("motion", 4), ("motion", 5), ("noise", 5), ("ghosting", 5)])
def test_a_ruined_t2_is_non_diagnostic(made, artifact: str, severity: int) -> None:
    study = simulate_study(HELD_OUT_SEED, artifact, severity, protocols=(T2_AXIAL,))
    assert verdicts(made, study.of(SeriesKind.T2_AXIAL)) == [Verdict.NON_DIAGNOSTIC]
