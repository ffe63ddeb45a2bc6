"""Envelopes: a complete, checked table; nothing is scored outside, a 2-D image is a set of one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.quality.assess import assess
from ai.quality.envelopes import BadEnvelope, Reach, envelope_of, read_envelopes, shipped_envelopes
from ai.quality.projection import exposed_field, exposure_metrics, projection_metrics
from ai.quality.scoring import CRITERIA, DEFECTS
from ai.quality.tomography import global_noise_level, soft_tissue, streak_index, tomography_metrics
from ai.quality.types import SeriesAssessment, Verdict
from ai.volumes.types import (
    Acquisition,
    Assembly,
    Geometry,
    PixelsUnavailable,
    Role,
    RoledStack,
    SliceReference,
    Volume,
)

ROW = {"name": "a", "modalities": ["MR"], "verdict": "none", "reason": "why", "source": "us"}


def table(*rows: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {"version": version, "envelope": list(rows)}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (table(ROW, version=2), "version 2"),
        (table(), "empty"),
        (table(ROW, ROW), "alike"),
        (table({**ROW, "verdict": "perhaps"}), "envelope a: 'perhaps'"),
        (table({**ROW, "colour": "red"}), "envelope a: .*colour"),
        (table({key: value for key, value in ROW.items() if key != "modalities"}), "envelope a: 'modalities'"),
        (table({**ROW, "reason": ""}), "envelope a: no reason"),
    ],
)
def test_a_damaged_table_is_refused_with_the_row(document: dict[str, Any], words: str) -> None:
    with pytest.raises(BadEnvelope, match=words):
        read_envelopes(document)


def test_the_shipped_table_has_criteria_wherever_it_promises_a_verdict() -> None:
    for envelope in shipped_envelopes():
        assert envelope.source
        if envelope.verdict is not Reach.NONE:
            roles = envelope.roles or tuple(modality.lower() for modality in envelope.modalities)
            criteria = CRITERIA if envelope.verdict is Reach.FULL else DEFECTS
            assert set(roles) <= set(criteria), envelope.name


@given(
    modality=st.sampled_from(["MR", "CT", "DX", "CR", "MG", "US", "XA", "OT", "PT", ""]),
    role=st.sampled_from([*map(str, Role), "ct", "dx", "us"]),
    body_part=st.sampled_from(["", "PROSTATE", "PELVIS", "HEAD", "brain ", "KNEE", "CHEST", "WHAT"]),
)
def test_only_prostate_mr_can_be_called_diagnostic(made, modality: str, role: str, body_part: str) -> None:
    stack = made.stack((4, 8, 8), body_part_examined=body_part, modality=modality)
    envelope = envelope_of(RoledStack(stack, role, ()))
    full = envelope is not None and envelope.verdict is Reach.FULL
    prostate = body_part in ("", "PROSTATE", "PELVIS", "WHAT")
    judged = role in set(Role) - {Role.LOCALIZER, Role.OTHER}
    assert full == (modality == "MR" and judged and prostate)


class Pixels:
    def __init__(self, volume: Volume) -> None:
        self._frames = {one.sop_instance_uid: volume.pixels[i] for i, one in enumerate(volume.stack.slices)}

    def frame(self, reference: SliceReference) -> NDArray[np.float32]:
        return self._frames[reference.sop_instance_uid]


def judged(volume: Volume, role: str) -> SeriesAssessment:
    (row,) = assess(Assembly("1.2", (RoledStack(volume.stack, role, ()),), ()), Pixels(volume)).series
    return row


def radiograph(made, **header: Any) -> Volume:
    """One image, dark outside a collimated field, with noise."""
    rng = np.random.default_rng(0)
    image = np.zeros((1, 300, 240))
    y, x = np.mgrid[:200, :160]
    image[0, 50:250, 40:200] = 2000 + 10 * y + 400 * np.sin(x / 9) + rng.normal(0, 20, (200, 160))
    volume = made.volume(image, modality="DX", **header)
    return replace(volume, stack=replace(volume.stack, geometry=None))


@pytest.mark.parametrize(
    ("deviation", "verdict", "code"),
    [(-7.0, Verdict.LIMITED, "111211"), (0.3, Verdict.NOT_ASSESSED, None), (4.0, Verdict.LIMITED, "111212")],
)
def test_exposure_can_limit_a_single_radiograph_but_never_pass_it(made, deviation, verdict, code) -> None:
    row = judged(radiograph(made, deviation_index=deviation), "dx")
    assert row.verdict is verdict
    assert [finding.code.value for finding in row.findings] == ([code] if code else [])
    assert (row.score is None) == (code is None)
    if code is None:
        assert "measured deviation index 0.3" in row.reason
        assert "positioning" in row.reason


def test_an_exposure_with_a_defect_rules_its_series_and_an_undecodable_one_is_told(made) -> None:
    deviations = {"1.2.5": 0.1, "1.2.6": -4.0, "1.2.7": 0.2}
    volumes = [radiograph(made, series=uid, deviation_index=value) for uid, value in deviations.items()]
    stacks = [replace(volume.stack, series_instance_uid="1.2.5") for volume in volumes]
    frames = {volume.stack.slices[0].sop_instance_uid: volume.pixels[0] for volume in volumes}

    class Source:
        def frame(self, reference: SliceReference) -> NDArray[np.float32]:
            if reference.sop_instance_uid not in frames:
                raise PixelsUnavailable("no decoder for this syntax")
            return frames[reference.sop_instance_uid]

    assembly = Assembly("1.2", tuple(RoledStack(stack, "dx", ()) for stack in stacks), ())
    (row,) = assess(assembly, Source()).series
    assert row.verdict is Verdict.LIMITED
    assert "deviation index -4" in row.reason
    good = Assembly("1.2", (assembly.stacks[0], assembly.stacks[2]), ())
    del frames["1.2.5.0"]
    (row,) = assess(good, Source()).series
    assert row.verdict is Verdict.NOT_ASSESSED
    assert "measured deviation index 0.2" in row.reason
    assert "no decoder" in row.reason


def test_a_mammogram_is_measured_and_never_judged(made) -> None:
    volume = radiograph(made, deviation_index=-7.0)
    stack = replace(volume.stack, acquisition=replace(volume.stack.acquisition, modality="MG"))
    row = judged(replace(volume, stack=stack), "mg")
    assert (row.verdict, row.score, row.findings) == (Verdict.NOT_ASSESSED, None, ())
    assert "no limits are set for mg images" in row.reason


@given(index=st.floats(1, 5000), target=st.floats(1, 5000))
def test_the_deviation_index_follows_its_definition(index: float, target: float) -> None:
    acquisition = Acquisition("DX", exposure_index=index, target_exposure_index=target)
    computed = {metric.name: metric.value for metric in exposure_metrics(acquisition)}["deviation_index"]
    assert 10 ** (computed / 10) * target == pytest.approx(index)
    told = exposure_metrics(replace(acquisition, deviation_index=-1.5))
    assert told[1].value == -1.5
    assert exposure_metrics(Acquisition("DX", exposure_index=index))[1].reason


def test_the_collimated_field_is_found_however_the_image_is_turned_and_scaled(made) -> None:
    image = radiograph(made).pixels[0]
    for turned, box in ((image, (200, 160)), (image[::-1], (200, 160)), (4096 - image.T, (160, 200))):
        for scaled in (turned, turned * 0.01 + 3):
            rows, columns = exposed_field(scaled.astype(np.float32))
            assert (rows.stop - rows.start, columns.stop - columns.start) == box


def test_radiograph_metrics_do_not_depend_on_the_grey_scale(made) -> None:
    volume = radiograph(made)
    wanted = {metric.name: metric.value for metric in projection_metrics(volume)}
    for factor, offset in ((0.1, 0.0), (-1.0, 4096.0)):
        other = made.with_pixels(volume, volume.pixels * factor + offset)
        for metric in projection_metrics(other):
            known = wanted[metric.name]
            assert metric.value == (known if known is None else pytest.approx(known, rel=0.02)), metric.name
    flat = projection_metrics(made.with_pixels(volume, np.ones_like(volume.pixels)))
    assert {metric.value for metric in flat} == {None, 0.0}


def abdomen(noise_hu: float, streaks_hu: float = 0.0, slices: int = 3) -> NDArray[np.float64]:
    """An ellipse of soft tissue in air, with organs, a bone, white noise and horizontal streaks."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    image = np.where((y / 0.7) ** 2 + (x / 0.9) ** 2 < 1, 50.0, -1000.0)
    image[(y + 0.2) ** 2 + (x - 0.3) ** 2 < 0.04] = 70.0
    image[y**2 + (x + 0.5) ** 2 < 0.01] = 800.0
    streak = rng.normal(0, streaks_hu, 200)[:, None]
    return image + streak + rng.normal(0, noise_hu, (slices, 200, 200))


@pytest.mark.parametrize("noise_hu", [4.0, 12.0, 30.0])
def test_ct_noise_is_that_of_the_soft_tissue(noise_hu: float) -> None:
    image = abdomen(noise_hu)[0]
    spacing = (1.0, 1.0)
    for turned in (image, image.T, image[::-1]):
        assert global_noise_level(turned, soft_tissue(turned, spacing), spacing) == pytest.approx(noise_hu, rel=0.12)


def test_streaks_stand_out_in_any_orientation_and_noise_does_not() -> None:
    spacing = (1.0, 1.0)
    quiet = abdomen(10.0)[0]
    assert streak_index(quiet, soft_tissue(quiet, spacing), spacing) < 1.5
    rising = []
    for strength in (2.0, 4.0, 8.0):
        streaked = abdomen(10.0, strength)[0]
        found = [
            streak_index(one, soft_tissue(one, spacing), spacing) for one in (streaked, streaked.T, streaked[::-1])
        ]
        assert found == pytest.approx([found[0]] * 3, rel=0.05)
        rising.append(found[0])
    assert rising == sorted(rising)
    assert rising[-1] > 3.0


def test_a_ct_with_a_missing_slice_is_limited_and_a_whole_one_not_assessed(made) -> None:
    whole = made.volume(abdomen(8.0, slices=6), modality="CT", pixel_spacing_mm=(1.0, 1.0), spacing_mm=(5.0, 1.0, 1.0))
    row = judged(whole, "ct")
    assert row.verdict is Verdict.NOT_ASSESSED
    assert "measured noise hu" in row.reason
    assert "clinical question" in row.reason
    stack = whole.stack
    gap = replace(
        stack,
        slices=stack.slices[:3] + stack.slices[4:],
        slice_indices=(0, 1, 2, 4, 5),
        geometry=Geometry(stack.geometry.affine_lps_mm, stack.geometry.shape),
    )
    (missing,) = assess(Assembly("1.2", (RoledStack(gap, "ct", ()),), ()), Pixels(whole)).series
    assert missing.verdict is Verdict.LIMITED
    assert "missing" in missing.reason


def test_irregular_table_steps_are_told(made) -> None:
    volume = made.volume(abdomen(8.0, slices=4), modality="CT", spacing_mm=(4.0, 1.0, 1.0), slice_thickness_mm=4.0)
    moved = tuple(
        replace(one, position_lps_mm=(0.0, 0.0, z))
        for one, z in zip(volume.stack.slices, (0.0, 4.0, 5.0, 12.0), strict=True)
    )
    metrics = tomography_metrics(replace(volume, stack=replace(volume.stack, slices=moved, geometry=None)))
    found = {metric.name: metric for metric in metrics}
    assert (found["slice_step_least"].value, found["slice_step_most"].value) == (1.0, 7.0)
    assert found["coverage"].value == 16.0
    assert "irregular" in found["missing_fraction"].reason
    assert "pixel spacing" in found["noise_hu"].reason


@pytest.mark.real_data
def test_a_real_head_ct_and_real_radiographs_are_measured(real) -> None:
    head = real("ct_ge_head")
    (row,) = assess(head.assembly, head.source).series
    values = {metric.name: metric.value for metric in row.metrics}
    assert row.verdict is Verdict.NOT_ASSESSED
    assert 3.0 < values["noise_hu"] < 7.0
    assert values["streak_index"] < 2.0
    assert (values["slice_step_least"], values["slice_step_most"]) == pytest.approx((1.14, 7.38), abs=0.01)
