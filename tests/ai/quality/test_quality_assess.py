"""Whole studies: real ones are not condemned, ruined ones are, and nothing depends on chance or on the grey scale."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ai.quality.assess import assess
from ai.quality.document import from_document, to_document
from ai.quality.gate import judge_series
from ai.quality.metrics import slice_metrics, volume_metrics
from ai.quality.types import SeriesAssessment, Verdict
from ai.volumes.types import Assembly, PixelsUnavailable, Role, RoledStack, SliceReference, Volume

T2_STUDIES = [
    *(f"prostate_prostate3t_skyra/Prostate3T-03-000{number}" for number in (1, 2, 4)),
    *(f"prostate_philips_erc/MIP-PROSTATE-01-000{number}" for number in (2, 3, 5, 6, 7)),
]
HELD_OUT_T2 = [T2_STUDIES[1], T2_STUDIES[2], T2_STUDIES[3], T2_STUDIES[5], T2_STUDIES[7]]
"""Series of which no ruined version was looked at when the curves were placed (see ``ai.quality.scoring``)."""


def judge(volume: Volume, role: str) -> SeriesAssessment:
    slices = slice_metrics(volume, role)
    return judge_series(RoledStack(volume.stack, role, ()), slices, volume_metrics(volume, role, slices))


class Pixels:
    """A pixel source over volumes in memory; ``broken`` slices have none."""

    def __init__(self, *volumes: Volume, broken: frozenset[str] = frozenset()) -> None:
        self._broken = broken
        self._frames = {
            reference.sop_instance_uid: volume.pixels[index]
            for volume in volumes
            for index, reference in enumerate(volume.stack.slices)
        }

    def frame(self, reference: SliceReference) -> np.ndarray:
        if reference.sop_instance_uid in self._broken:
            raise PixelsUnavailable("no decoder for this syntax")
        return self._frames[reference.sop_instance_uid]


def test_pixels_that_cannot_be_had_are_not_assessed_with_the_reason(made) -> None:
    volume = made.volume(made.pelvis(slices=19))
    assembly = Assembly("1.2", (RoledStack(volume.stack, Role.T2W_AXIAL, ()),), ())
    study = assess(assembly, Pixels(volume, broken=frozenset({"1.2.3.4"})))
    assert [entry.verdict for entry in study.series] == [Verdict.NOT_ASSESSED]
    assert "no decoder" in study.series[0].reason
    assert not study.gate.open


@pytest.mark.parametrize("body_part", ["BRAIN", "head ", "KNEE"])
def test_another_part_of_the_body_gets_no_verdict_and_opens_no_gate(made, body_part: str) -> None:
    volume = made.volume(made.pelvis(slices=19))
    stack = replace(volume.stack, acquisition=replace(volume.stack.acquisition, body_part_examined=body_part))
    study = assess(Assembly("1.2", (RoledStack(stack, Role.T2W_AXIAL, ()),), ()), Pixels(volume))
    assert [entry.verdict for entry in study.series] == [Verdict.NOT_ASSESSED]
    assert body_part.strip().upper() in study.series[0].reason
    assert not study.gate.open


def test_what_is_no_prostate_mr_is_not_assessed(made) -> None:
    volume = made.volume(made.pelvis(slices=19))
    for role in ("ct", Role.LOCALIZER, Role.OTHER):
        study = assess(Assembly("1.2", (RoledStack(volume.stack, role, ()),), ()), Pixels(volume))
        assert study.verdict is Verdict.NOT_ASSESSED
        assert study.series[0].score is None
        assert study.series[0].reason
        assert study.findings == ()
    gridless = replace(volume.stack, geometry=None)
    study = assess(Assembly("1.2", (RoledStack(gridless, Role.T2W_AXIAL, ()),), ()), Pixels(volume))
    assert "grid" in study.series[0].reason


def test_a_series_of_several_b_values_is_one_row_ruled_by_its_worst(made) -> None:
    images = {b: made.pelvis(slices=19) * np.exp(-b / 1500.0) for b in (50.0, 800.0, 1400.0)}
    images[800.0] = made.corrupt.ghosts(images[800.0], 0.6)
    arguments = {"spacing_mm": (3.0, 1.0, 1.0), "series": "1.2.7"}
    volumes = []
    for order, (b, pixels) in enumerate(images.items()):
        volume = made.volume(pixels, b_value=b, **arguments)
        named = [replace(one, sop_instance_uid=f"1.2.7.{order}.{i}") for i, one in enumerate(volume.stack.slices)]
        volumes.append(replace(volume, stack=replace(volume.stack, slices=tuple(named))))
    assembly = Assembly("1.2", tuple(RoledStack(volume.stack, Role.DWI, ()) for volume in volumes), ())
    (row,) = assess(assembly, Pixels(*volumes)).series
    assert (row.b_value, row.b_values) == (1400.0, (50.0, 800.0, 1400.0))
    assert row.verdict is Verdict.NON_DIAGNOSTIC
    assert row.reason.startswith("b 800: ")
    assert len(row.slices) == 57


def test_progress_is_told_before_each_series(made) -> None:
    volume = made.volume(made.pelvis(slices=19), series_description="t2 axial")
    told: list[str] = []
    assess(Assembly("1.2", (RoledStack(volume.stack, Role.T2W_AXIAL, ()),), ()), Pixels(volume), told.append)
    assert told == ["quality of series t2 axial"]


@pytest.mark.parametrize("factor", [1e-3, 1.0, 37.0])
def test_score_is_independent_of_the_grey_scale(made, factor: float) -> None:
    pixels = made.pelvis(slices=19)
    reference = judge(made.volume(pixels), Role.T2W_AXIAL)
    scaled = judge(made.volume(pixels * factor), Role.T2W_AXIAL)
    assert scaled.score == pytest.approx(reference.score, abs=0.002)
    assert scaled.verdict is reference.verdict


def test_score_is_independent_of_slice_order_and_mirroring(made) -> None:
    pixels = made.pelvis(slices=19)
    reference = judge(made.volume(pixels), Role.T2W_AXIAL).score
    for changed in (pixels[::-1], pixels[:, ::-1], pixels[:, :, ::-1]):
        assert judge(made.volume(changed), Role.T2W_AXIAL).score == pytest.approx(reference, abs=0.05)


def test_same_input_same_assessment(made) -> None:
    volume = made.volume(made.corrupt.noise(made.pelvis(slices=12), 0.1))
    assert judge(volume, Role.T2W_AXIAL) == judge(volume, Role.T2W_AXIAL)


@pytest.mark.parametrize(
    ("kind", "strengths"),
    [("noise", (0.05, 0.15, 0.3, 0.6, 1.2)), ("blur", (1.0, 1.8, 3.0, 4.5, 7.0)), ("ghosts", (0.05, 0.15, 0.3, 0.5))],
)
def test_a_stronger_defect_never_scores_higher(made, kind: str, strengths: tuple[float, ...]) -> None:
    pixels = made.pelvis(slices=19)
    extra = {"blur": ((0.5, 0.5),)}.get(kind, ())
    scores = [judge(made.volume(pixels), Role.T2W_AXIAL).score]
    for strength in strengths:
        ruined = getattr(made.corrupt, kind)(pixels, strength, *extra)
        scores.append(judge(made.volume(ruined), Role.T2W_AXIAL).score)
    # 0.1: noise drowns what a scene of few shapes has in common with itself, and a chance ghost peak loses height.
    assert all(later <= earlier + 0.1 for earlier, later in pairwise(scores)), scores
    assert scores[0] >= 0.7
    assert scores[-1] < 0.4


@pytest.mark.real_data
@pytest.mark.parametrize("folder", T2_STUDIES)
def test_real_t2_only_studies_are_diagnostic_and_shut(real, folder: str) -> None:
    known = real(folder)
    study = assess(known.assembly, known.source)
    assert study.verdict is Verdict.DIAGNOSTIC
    assert not study.gate.open
    assert study.gate.reasons[0].startswith("no diffusion images")


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("patient", ["0000", "0001"])
def test_prostatex_opens_the_gate(real, patient: str) -> None:
    known = real(f"prostate_prostatex_skyra/ProstateX-{patient}")
    study = assess(known.assembly, known.source)
    assert study.gate.open
    judged = [entry for entry in study.series if entry.role != Role.OTHER]
    assert {entry.verdict for entry in judged} <= {Verdict.DIAGNOSTIC, Verdict.LIMITED}
    expected = len({entry.stack.series_instance_uid for entry in known.assembly.stacks})
    assert len(study.series) == expected
    assert from_document(to_document(study)) == study
    for entry in judged:
        uids = {
            reference.sop_instance_uid
            for roled in known.assembly.stacks
            if roled.stack.series_instance_uid == entry.series_instance_uid
            for reference in roled.stack.slices
        }
        assert {score.sop_instance_uid for score in entry.slices} == uids
    # The lateral band of 0001 outshines the gland: said, but no reason to throw the images away.
    dwi = next(entry for entry in study.series if entry.role == Role.DWI)
    assert dwi.verdict is (Verdict.DIAGNOSTIC if patient == "0000" else Verdict.LIMITED)
    assert dwi.b_values == (50.0, 400.0, 800.0)


@pytest.mark.real_data
def test_a_missing_slice_limits(real) -> None:
    known = real("prostate_prostatex_skyra/ProstateX-missing-slice")
    (entry,) = assess(known.assembly, known.source).series
    assert entry.verdict is Verdict.LIMITED
    assert "missing" in entry.reason


def thinned(volume: Volume, step: int = 3) -> Volume:
    """Every third slice at the same extent: enough to judge, a third of the time."""
    stack = volume.stack
    geometry = volume.geometry
    affine = geometry.affine_lps_mm.copy()
    affine[:, 0] *= step
    pixels = volume.pixels[::step]
    slices = stack.slices[::step]
    return Volume(
        replace(
            stack,
            slices=slices,
            slice_indices=tuple(range(len(slices))),
            geometry=replace(geometry, affine_lps_mm=affine, shape=pixels.shape),
        ),
        pixels,
    )


@pytest.mark.real_data
@pytest.mark.parametrize("folder", HELD_OUT_T2)
@pytest.mark.parametrize("kind", ["motion", "noise", "ghosts", "blur"])
def test_held_out_real_t2_is_condemned_when_ruined_and_spared_when_impaired(real, made, folder: str, kind: str) -> None:
    volume = thinned(real(folder).volume(Role.T2W_AXIAL))
    spacing = volume.geometry.spacing_mm[1:]
    # Philips reconstructs 304 x 234 samples to 512 pixels: noise belongs on the samples, not between them.
    interpolation = 512 / 234 if volume.stack.rows == 512 else 1.0
    impaired, ruined = {
        "motion": ((0.7, 0.5, spacing), (5.0, 4.0, spacing)),
        "noise": ((0.2 * interpolation,), (0.6 * interpolation,)),
        "ghosts": ((0.2,), (0.6,)),
        "blur": ((2.5, spacing), (5.0, spacing)),
    }[kind]
    pixels = volume.pixels.astype(np.float64)
    corrupt = getattr(made.corrupt, kind)
    clean = judge(volume, Role.T2W_AXIAL)
    assert clean.verdict is Verdict.DIAGNOSTIC
    assert judge(made.with_pixels(volume, corrupt(pixels, *ruined)), Role.T2W_AXIAL).verdict is Verdict.NON_DIAGNOSTIC
    part = judge(made.with_pixels(volume, corrupt(pixels, *impaired)), Role.T2W_AXIAL)
    assert part.verdict is not Verdict.NON_DIAGNOSTIC
    assert clean.score is not None
    assert part.score is not None
    assert part.score < clean.score - 0.05


@pytest.mark.real_data
@pytest.mark.parametrize("b_value", [50.0, 800.0])
def test_ruined_real_dwi_is_non_diagnostic(real, made, b_value: float) -> None:
    volume = real("prostate_prostatex_skyra/ProstateX-0001").volume(Role.DWI, b_value=b_value)
    pixels = volume.pixels.astype(np.float64)
    spacing = volume.geometry.spacing_mm[1:]
    for ruined in (
        made.corrupt.noise(pixels, 3.0),
        made.corrupt.ghosts(pixels, 0.6, period=2),
        made.corrupt.blur(pixels, 8.0, spacing),
    ):
        assert judge(made.with_pixels(volume, ruined), Role.DWI).verdict is Verdict.NON_DIAGNOSTIC
