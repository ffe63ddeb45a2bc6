"""The choices for detection and their explanations."""

from typing import Any

import pytest

from ai.volumes.assemble import assemble
from ai.volumes.types import Choice

TRACE = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]
ADC = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
CALCULATED = ["DERIVED", "PRIMARY", "DIFFUSION", "CALC_BVALUE"]


class Study:
    """A study put together series by series."""

    def __init__(self, synthetic: Any) -> None:
        self.synthetic = synthetic
        self.headers: list[Any] = []

    def t2w(self, number: int, time: str = "100000", **attributes: Any) -> "Study":
        return self._add(number, AcquisitionTime=time, **self.synthetic.t2w | attributes)

    def dwi(self, number: int, *b_values: float, image_type: list[str] = TRACE, **attributes: Any) -> "Study":
        for b_value in b_values:
            self._add(number, DiffusionBValue=b_value, ImageType=image_type, **self.synthetic.epi | attributes)
        return self

    def adc(self, number: int, **attributes: Any) -> "Study":
        return self._add(number, ImageType=ADC, **self.synthetic.epi | attributes)

    def _add(self, number: int, **attributes: Any) -> "Study":
        count = attributes.pop("count", 12)
        for header in self.synthetic.series(count, uid=f"1.2.{number}", SeriesNumber=number, **attributes):
            header.SOPInstanceUID += f".{len(self.headers)}"
            self.headers.append(header)
        return self

    def choose(self, purpose: str, quality: dict[str, float] | None = None) -> tuple[int | None, Choice]:
        """The series number taken, and the choice."""
        assembly = assemble(self.headers, quality)
        choice = next(one for one in assembly.choices if one.purpose == purpose)
        number = next(
            (one.stack.acquisition.series_number for one in assembly.stacks if one.stack.volume_id == choice.volume_id),
            None,
        )
        return number, choice


@pytest.fixture
def study(synthetic: Any) -> Study:
    return Study(synthetic)


def test_nothing_to_choose_from_is_said(study: Study) -> None:
    for purpose in ("t2w", "adc", "high-b"):
        number, choice = study.choose(purpose)
        assert number is None
        assert "no" in choice.reason


def test_t2w_must_be_where_the_diffusion_series_is(study: Study) -> None:
    study.dwi(5, 50.0, 800.0).t2w(3, FrameOfReferenceUID="1.2.77")
    number, choice = study.choose("t2w")
    assert number is None
    assert "frame of reference" in next(iter(choice.rejected.values()))


def test_t2w_must_cover_the_diffusion_series(study: Study) -> None:
    study.dwi(5, 50.0, 800.0).t2w(3, step_mm=3.0, count=24, PixelSpacing=[0.5, 0.5])
    number, choice = study.choose("t2w")
    assert number is None
    assert "overlaps" in next(iter(choice.rejected.values()))


def test_a_short_t2w_is_not_taken(study: Study) -> None:
    number, choice = study.t2w(3, count=8).choose("t2w")
    assert number is None
    assert "only 8 slices" in next(iter(choice.rejected.values()))


def test_a_complete_t2w_comes_before_a_later_incomplete_one(study: Study) -> None:
    study.t2w(3, "100000").t2w(4, "110000")
    study.headers = [one for one in study.headers if not (one.SeriesNumber == 4 and one.InstanceNumber == 5)]
    number, choice = study.choose("t2w")
    assert number == 3
    assert "complete" in choice.reason
    assert "missing slices: 1" in next(iter(choice.rejected.values()))


def test_better_quality_comes_before_later(study: Study) -> None:
    study.t2w(3, "100000").t2w(4, "110000")
    assert study.choose("t2w")[0] == 4
    assert study.choose("t2w", {"1.2.3": 0.8, "1.2.4": 0.3})[0] == 3
    assert study.choose("t2w", {"1.2.3": 0.5, "1.2.4": 0.5})[0] == 4


def test_an_adc_map_on_another_grid_is_not_taken(study: Study) -> None:
    study.dwi(5, 50.0, 800.0).adc(6, PixelSpacing=[2.5, 2.5])
    number, choice = study.choose("adc")
    assert number is None
    assert "to be computed from b = 50, 800" in choice.reason
    assert "grid" in next(iter(choice.rejected.values()))


def test_an_acquired_high_b_value_comes_before_a_calculated_one(study: Study) -> None:
    study.dwi(5, 50.0, 800.0, 1400.0).dwi(8, 1500.0, image_type=CALCULATED)
    number, choice = study.choose("high-b")
    assert number == 5
    assert "b = 1400 s/mm2, acquired" in choice.reason


def test_a_calculated_high_b_value_comes_before_a_computed_one(study: Study) -> None:
    study.dwi(5, 50.0, 800.0).dwi(8, 1500.0, image_type=CALCULATED)
    number, choice = study.choose("high-b")
    assert number == 8
    assert "calculated by the scanner" in choice.reason


def test_a_calculated_b_value_below_1400_is_not_enough(study: Study) -> None:
    number, choice = study.dwi(5, 50.0, 800.0).dwi(8, 1000.0, image_type=CALCULATED).choose("high-b")
    assert number is None
    assert "to be computed" in choice.reason
    assert "b = 1000 s/mm2 is below 1400" in choice.rejected.values()


def test_series_of_one_timing_are_fitted_together_and_others_are_not(study: Study) -> None:
    study.dwi(5, 50.0, 400.0).dwi(6, 1000.0)
    assert "b = 50, 400, 1000" in study.choose("adc")[1].reason
    study.dwi(7, 2000.0, EchoTime=95)
    assert "b = 50, 400, 1000 s/mm2" in study.choose("adc")[1].reason
