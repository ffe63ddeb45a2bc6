"""The header check: measured truth on real studies, both sides of every limit, silence."""

from dataclasses import replace

import pytest

from ai.quality import codes
from ai.quality.protocol import LIMITS, Outcome, Quantity, check_series, check_study, not_checkable, series_checks
from ai.quality.types import Severity
from ai.volumes.types import Assembly, Role, RoledStack

GOOD_T2 = {"spacing_mm": (3.0, 0.5, 0.5), "acquisition_matrix": (0, 480, 300, 0), "percent_phase_field_of_view": 100.0}


def good_t2(made, **changes):
    """A T2W that meets every limit: 180 mm, 0.375 x 0.6 mm acquired, reconstructed to 0.5 mm."""
    return made.stack((24, 360, 360), **(GOOD_T2 | changes))


def good_dwi(made, **changes):
    header = {"repetition_time_ms": 4500.0, "echo_time_ms": 70.0, "spacing_mm": (3.6, 2.0, 2.0)}
    return made.stack((20, 100, 100), **(header | changes))


def broken(role, stack) -> set[Quantity]:
    return {check.limit.quantity for check in series_checks(role, stack) if check.outcome is Outcome.NOT_MET}


def test_a_series_within_the_limits_meets_the_standard(made) -> None:
    assert check_series(Role.T2W_AXIAL, good_t2(made)) == ([], True)
    assert check_series(Role.DWI, good_dwi(made)) == ([], True)


@pytest.mark.parametrize(
    ("changes", "quantity"),
    [
        ({"slice_thickness_mm": 3.5, "spacing_mm": (3.5, 0.5, 0.5)}, Quantity.SLICE_THICKNESS),
        ({"slice_thickness_mm": 3.0, "spacing_mm": (3.6, 0.5, 0.5)}, Quantity.SLICE_GAP),
        ({"acquisition_matrix": (0, 400, 300, 0)}, Quantity.FREQUENCY_RESOLUTION),
        ({"acquisition_matrix": (0, 480, 240, 0)}, Quantity.PHASE_RESOLUTION),
        ({"spacing_mm": (3.0, 0.6, 0.6), "acquisition_matrix": (0, 600, 400, 0)}, Quantity.FIELD_OF_VIEW),
        ({"spacing_mm": (3.0, 0.3, 0.3)}, Quantity.FIELD_OF_VIEW),
    ],
)
def test_each_t2_limit_is_noticed_alone(made, changes, quantity) -> None:
    stack = good_t2(made, **({"slice_thickness_mm": 3.0} | changes))
    assert broken(Role.T2W_AXIAL, stack) == {quantity}
    findings, meets = check_series(Role.T2W_AXIAL, stack)
    assert meets is False
    assert [finding.severity for finding in findings] == [Severity.ADVISORY]


@pytest.mark.parametrize(
    ("changes", "quantity"),
    [
        ({"repetition_time_ms": 2700.0}, Quantity.REPETITION_TIME),
        ({"echo_time_ms": 95.0}, Quantity.ECHO_TIME),
        ({"spacing_mm": (3.6, 2.56, 2.56), "acquisition_matrix": (0, 120, 120, 0)}, Quantity.FIELD_OF_VIEW),
    ],
)
def test_each_dwi_limit_is_noticed_alone(made, changes, quantity) -> None:
    assert broken(Role.DWI, good_dwi(made, **changes)) == {quantity}


def test_pixel_spacing_does_not_count_as_resolution(made) -> None:
    interpolated = good_t2(made, acquisition_matrix=(0, 250, 250, 0))
    assert interpolated.geometry is not None
    assert interpolated.geometry.spacing_mm[1:] == (0.5, 0.5)
    assert broken(Role.T2W_AXIAL, interpolated) == {Quantity.FREQUENCY_RESOLUTION, Quantity.PHASE_RESOLUTION}


def test_a_silent_header_is_no_finding_but_recorded(made) -> None:
    stack = good_t2(made, acquisition_matrix=None, slice_thickness_mm=None)
    assert check_series(Role.T2W_AXIAL, stack) == ([], None)
    texts = " ".join(not_checkable(Role.T2W_AXIAL, stack))
    for quantity in (Quantity.SLICE_THICKNESS, Quantity.SLICE_GAP, Quantity.PHASE_RESOLUTION):
        assert quantity in texts
    without_grid = replace(stack, geometry=None)
    assert len(not_checkable(Role.T2W_AXIAL, without_grid)) == len(LIMITS[Role.T2W_AXIAL])


def test_roles_without_limits_are_not_held_against_any(made) -> None:
    for role in (Role.ADC, Role.LOCALIZER, "ct"):
        assert check_series(role, good_t2(made)) == ([], None)


def study(*entries: tuple[str, object]) -> Assembly:
    return Assembly("1.2", tuple(RoledStack(stack, role, ()) for role, stack in entries), ())


def found(assembly: Assembly) -> list[str]:
    return [finding.code.value for finding in check_study(assembly)]


def test_a_complete_study_has_no_finding(made) -> None:
    dwi = [(Role.DWI, good_dwi(made, series="1.2.8", b_value=b)) for b in (50.0, 800.0, 1400.0)]
    complete = study(
        (Role.T2W_AXIAL, good_t2(made)),
        (Role.T2W_SAGITTAL, good_t2(made)),
        (Role.ADC, made.stack((20, 100, 100))),
        *dwi,
    )
    assert found(complete) == []


def test_what_a_study_lacks_is_named(made) -> None:
    t2, dwi = (Role.T2W_AXIAL, good_t2(made)), (Role.DWI, good_dwi(made, b_value=800.0))
    calculated = (Role.DWI_CALCULATED, good_dwi(made, b_value=1500.0))
    missing_b, missing_adc = codes.EXPECTED_B_VALUE_MISSING.value, codes.EXPECTED_ADC_MISSING.value
    assert found(study(t2)) == [codes.INCOMPLETE_STUDY.value, codes.PROTOCOL_NOT_FOLLOWED.value]
    assert found(study(dwi)) == [codes.INCOMPLETE_STUDY.value, missing_b, missing_adc]
    assert found(study(t2, (Role.T2W_CORONAL, good_t2(made)), dwi, calculated)) == [missing_adc]
    assert found(study(("ct", good_t2(made)))) == []


def test_slow_and_short_dynamic_series_are_named(made) -> None:
    def dynamic(step_s: int, count: int) -> Assembly:
        stacks = [
            made.stack(
                (20, 100, 100),
                series=f"1.3.{i}",
                acquisition_time=f"1200{i * step_s % 60:02d}.5"
                if i * step_s < 60
                else f"12{i * step_s // 60:02d}{i * step_s % 60:02d}.5",
            )
            for i in range(count)
        ]
        t2 = [(Role.T2W_AXIAL, good_t2(made)), (Role.T2W_SAGITTAL, good_t2(made))]
        return study(
            *t2,
            (Role.ADC, made.stack((20, 100, 100))),
            (Role.DWI, good_dwi(made, b_value=1400.0)),
            *((Role.DCE, stack) for stack in stacks),
        )

    assert found(dynamic(10, 20)) == []
    assert found(dynamic(20, 20)) == [codes.POOR_CONTRAST_TIMING.value]
    assert found(dynamic(5, 10)) == [codes.POOR_CONTRAST_TIMING.value]


@pytest.mark.real_data
@pytest.mark.parametrize("patient", ["0000", "0001"])
def test_prostatex_fails_what_was_measured_on_it(real, patient: str) -> None:
    known = real(f"prostate_prostatex_skyra/ProstateX-{patient}")
    t2 = known.entry(Role.T2W_AXIAL)
    assert broken(Role.T2W_AXIAL, t2.stack) == {Quantity.FREQUENCY_RESOLUTION}
    assert check_series(Role.T2W_AXIAL, t2.stack)[0][0].value == "0.5 mm > 0.4 mm"
    dwi = known.entry(Role.DWI, b_value=800.0)
    assert broken(Role.DWI, dwi.stack) == {Quantity.REPETITION_TIME, Quantity.FIELD_OF_VIEW}
    assert {finding.value for finding in check_series(Role.DWI, dwi.stack)[0]} == {
        "2700 ms < 3000 ms",
        "256 mm > 220 mm",
    }
    assert codes.EXPECTED_B_VALUE_MISSING.value in found(known.assembly)
    assert codes.EXPECTED_ADC_MISSING.value not in found(known.assembly)


@pytest.mark.real_data
def test_philips_interpolation_is_seen_through(real) -> None:
    known = real("prostate_philips_erc/MIP-PROSTATE-01-0003")
    checks = {check.limit.quantity: check for check in series_checks(Role.T2W_AXIAL, known.entry(Role.T2W_AXIAL).stack)}
    # 140 mm over 304 and 234 acquired samples, reconstructed to 512 pixels of 0.273 mm.
    assert checks[Quantity.FREQUENCY_RESOLUTION].measured == pytest.approx(140 / 304, abs=0.001)
    assert checks[Quantity.PHASE_RESOLUTION].measured == pytest.approx(140 / 234, abs=0.001)
    assert checks[Quantity.FREQUENCY_RESOLUTION].outcome is Outcome.NOT_MET
    assert checks[Quantity.PHASE_RESOLUTION].outcome is Outcome.MET
