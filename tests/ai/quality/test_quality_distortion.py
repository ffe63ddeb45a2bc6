"""Distortion by geometry: known shifts are found whatever the contrast, flips and grey scale; reasons where not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ai.quality import compare
from ai.quality.assess import assess, assess_series
from ai.quality.distortion import DEFINITIONS, displacement, distortion_metrics
from ai.quality.document import from_document, to_document
from ai.quality.registration import displacement_along
from ai.quality.types import SeriesAssessment, Severity, Verdict
from ai.volumes.types import Assembly, Choice, Geometry, Role, RoledStack, SliceReference, Volume

SPACING_MM = (3.0, 1.0, 1.0)
SHAPE = (16, 176, 176)


def scene() -> NDArray[np.float64]:
    """Blobs of many sizes: structure everywhere, no two places alike."""
    noise = np.random.default_rng(0).normal(size=SHAPE)
    return sum(ndimage.gaussian_filter(noise, (1.0, size, size)) * size for size in (2.0, 4.0, 8.0))


def bent(image: NDArray[np.float64], shift_mm: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The image whose tissue at x lies at x + shift(x) along ``axis``: fixed point of x = y - shift(x)."""
    index = list(np.indices(image.shape, dtype=float))
    target = index[axis].copy()
    for _ in range(12):
        index[axis] = target - ndimage.map_coordinates(shift_mm, index, order=1, mode="nearest") / SPACING_MM[axis]
    return np.asarray(ndimage.map_coordinates(image, index, order=1, mode="nearest"))


def bump(peak_mm: float) -> NDArray[np.float64]:
    """A field like that of gas behind the gland: highest at the back of the centre, gone 60 mm away."""
    z, y, x = np.indices(SHAPE, dtype=float)
    distance = ((z - 8) * 3.0 / 40) ** 2 + ((y - 108) / 28) ** 2 + ((x - 88) / 28) ** 2
    return peak_mm * np.exp(-distance)


def other_contrast(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """A grey scale that no straight line leads to: dark and bright are both bright."""
    return np.abs(image - np.median(image))


def pair(
    made, shift_mm: NDArray[np.float64], axis: int = 2, image: NDArray[np.float64] | None = None
) -> tuple[Volume, Volume]:
    image = scene() if image is None else image
    image = image - image.min()
    direction = {1: "COL", 2: "ROW"}[axis]
    header = {"spacing_mm": SPACING_MM, "in_plane_phase_encoding_direction": direction}
    t2 = made.volume(image, series="1.2.3", **header)
    return t2, made.volume(other_contrast(bent(image, shift_mm, axis)), series="1.2.4", b_value=50.0, **header)


def values(t2: Volume, diffusion: Volume) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in distortion_metrics(t2, diffusion)}


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shift_mm", [-7.0, 0.0, 3.0])
def test_a_rigid_shift_is_found_and_called_rigid(made, axis: int, shift_mm: float) -> None:
    found = values(*pair(made, np.full(SHAPE, shift_mm), axis))
    assert found["distortion_rigid"] == pytest.approx(abs(shift_mm), abs=0.3)
    assert found["displacement_p95"] == pytest.approx(abs(shift_mm), abs=0.6)
    assert found["distortion_p95"] < 0.6


def test_a_bent_image_is_measured_where_it_is_bent(made) -> None:
    field = bump(6.0)
    t2, diffusion = pair(made, field)
    found = displacement(t2, diffusion)
    index = np.indices(found.grid.shape).reshape(3, -1).T.astype(float)
    true = ndimage.map_coordinates(field, t2.geometry.to_index(found.grid.to_lps_mm(index)).T, order=1)
    error = np.abs(found.shift_mm - true.reshape(found.grid.shape))[found.centre]
    assert np.median(error) < 0.4
    assert np.percentile(error, 95) < 1.5
    measured = values(t2, diffusion)
    wanted = np.percentile(np.abs(true.reshape(found.grid.shape)[found.centre]), 95)
    assert measured["displacement_p95"] == pytest.approx(wanted, rel=0.25)
    assert measured["t2_dwi_mismatch"] > values(*pair(made, bump(0.0)))["t2_dwi_mismatch"]


def flipped(volume: Volume, axis: int) -> Volume:
    """The same voxels at the same places, stored the other way round along one axis."""
    geometry = volume.geometry
    affine = geometry.affine_lps_mm.copy()
    affine[:3, 3] += affine[:3, axis] * (geometry.shape[axis] - 1)
    affine[:3, axis] *= -1
    stack = replace(volume.stack, geometry=Geometry(affine, geometry.shape))
    return Volume(stack, np.flip(volume.pixels, axis).copy())


@settings(max_examples=6, deadline=None)
@given(
    flips=st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=3),
    factors=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
)
def test_storage_order_and_grey_scale_change_nothing(made, flips, factors) -> None:
    t2, diffusion = pair(made, bump(5.0))
    wanted = values(t2, diffusion)
    for both, axis in flips:
        diffusion = flipped(diffusion, axis)
        t2 = flipped(t2, axis) if both else t2
    t2, diffusion = (replace(v, pixels=v.pixels * np.float32(f)) for v, f in zip((t2, diffusion), factors, strict=True))
    for name, value in values(t2, diffusion).items():
        assert value == pytest.approx(wanted[name], abs=0.05), name


def test_what_cannot_be_measured_says_why(made) -> None:
    t2, diffusion = pair(made, bump(0.0))
    geometry = t2.geometry
    away = geometry.affine_lps_mm.copy()
    away[:3, 3] += 300.0
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]]
    silent = replace(diffusion.stack.acquisition, in_plane_phase_encoding_direction=None)
    cases = {
        "frame of reference": replace(diffusion.stack, frame_of_reference_uid="1.8"),
        "phase direction": replace(diffusion.stack, acquisition=silent),
        "no regular grid": replace(diffusion.stack, geometry=None),
        "share too little": replace(diffusion.stack, geometry=Geometry(away, SHAPE)),
        "tilted by 34": replace(diffusion.stack, geometry=Geometry(turn @ geometry.affine_lps_mm, SHAPE)),
    }
    for words, stack in cases.items():
        metrics = distortion_metrics(t2, Volume(stack, diffusion.pixels))
        assert {metric.name for metric in metrics} == set(DEFINITIONS)
        assert {metric.value for metric in metrics} == {None}
        assert all(words in metric.reason for metric in metrics)
    flat = replace(diffusion, pixels=np.ones_like(diffusion.pixels))
    assert "structure" in distortion_metrics(t2, flat)[0].reason


def test_an_image_without_structure_is_refused() -> None:
    with pytest.raises(ValueError, match="structure"):
        displacement_along(np.ones((2, 20, 20), np.float32), np.ones((2, 20, 20), np.float32), 1, (3.0, 2.0, 2.0), 4.0)


class Pixels:
    """A pixel source over volumes in memory."""

    def __init__(self, *volumes: Volume) -> None:
        self._frames = {
            reference.sop_instance_uid: volume.pixels[index]
            for volume in volumes
            for index, reference in enumerate(volume.stack.slices)
        }

    def frame(self, reference: SliceReference) -> NDArray[np.float32]:
        return self._frames[reference.sop_instance_uid]


def study(made, peak_mm: float, with_t2: bool = True) -> tuple[Assembly, Pixels]:
    t2, diffusion = pair(made, bump(peak_mm), image=made.pelvis(*SHAPE[:2]))
    entries = [RoledStack(diffusion.stack, Role.DWI, ())]
    choice = Choice("t2w", None, "there is no axial T2-weighted volume")
    if with_t2:
        entries.insert(0, RoledStack(t2.stack, Role.T2W_AXIAL, ()))
        choice = Choice("t2w", t2.stack.volume_id, "the only one")
    return Assembly("1.2", tuple(entries), (choice,)), Pixels(t2, diffusion)


def of_diffusion(series) -> SeriesAssessment:
    return next(entry for entry in series if entry.role == Role.DWI)


@pytest.mark.parametrize(
    ("peak_mm", "verdict", "code"),
    [(0.0, Verdict.DIAGNOSTIC, None), (5.0, Verdict.LIMITED, "130586"), (15.0, Verdict.NON_DIAGNOSTIC, "130584")],
)
def test_the_study_lowers_the_verdict_of_a_bent_series(made, peak_mm: float, verdict: Verdict, code) -> None:
    assembly, source = study(made, peak_mm)
    alone = of_diffusion(assess_series(assembly, source))
    assert alone.verdict is Verdict.DIAGNOSTIC
    assert not {metric.name for metric in alone.metrics} & set(DEFINITIONS)
    whole = assess(assembly, source)
    row = of_diffusion(whole.series)
    assert (row.verdict, row.compared_with) == (verdict, "1.2.3")
    assert row.score <= alone.score
    bent_findings = [finding for finding in row.findings if finding.severity is not Severity.ADVISORY]
    assert [finding.code.value for finding in bent_findings] == ([code] if code else [])
    assert all("mm" in finding.value and finding.text in row.reason for finding in bent_findings)
    assert of_diffusion(from_document(to_document(whole)).series) == row


def test_a_ruined_t2_says_nothing_about_where_tissue_lies(made) -> None:
    assembly, source = study(made, 0.0)
    rng = np.random.default_rng(0)
    t2 = assembly.stacks[0].stack
    for reference in t2.slices:
        frame = source.frame(reference)
        source._frames[reference.sop_instance_uid] = rng.rayleigh(frame.max(), frame.shape).astype(np.float32)
    t2_row, diffusion = assess(assembly, source).series
    assert t2_row.verdict is Verdict.NON_DIAGNOSTIC
    assert diffusion.compared_with == ""
    assert {m.reason for m in diffusion.metrics if m.name in DEFINITIONS} == {"the axial T2 is non-diagnostic"}


def test_without_t2_the_series_keeps_its_verdict_and_says_what_was_not_measured(made) -> None:
    assembly, source = study(made, 15.0, with_t2=False)
    alone, whole = of_diffusion(assess_series(assembly, source)), of_diffusion(assess(assembly, source).series)
    assert (whole.verdict, whole.score, whole.compared_with) == (alone.verdict, alone.score, "")
    reasons = {metric.reason for metric in whole.metrics if metric.name in DEFINITIONS}
    assert len(reasons) == 1
    assert "no axial T2" in reasons.pop()


def test_a_comparison_is_kept_while_both_series_are_and_made_again_when_the_t2_changed(made, monkeypatch) -> None:
    assembly, source = study(made, 15.0)
    first = {entry.series_instance_uid: entry for entry in assess(assembly, source).series}
    measured: list[str] = []

    def counted(t2: Volume, diffusion: Volume):
        measured.append(diffusion.stack.series_instance_uid)
        return distortion_metrics(t2, diffusion)

    monkeypatch.setattr(compare, "distortion_metrics", counted)
    assert {entry.series_instance_uid: entry for entry in assess(assembly, source, known=first).series} == first
    assert measured == []
    early = {entry.series_instance_uid: entry for entry in assess_series(assembly, source)}
    assert {entry.series_instance_uid: entry for entry in assess(assembly, source, known=early).series} == first
    assert measured == ["1.2.4"]
    measured.clear()
    only_diffusion = {uid: entry for uid, entry in first.items() if entry.role == Role.DWI}
    again = assess(assembly, source, known=only_diffusion)
    assert measured == ["1.2.4"]
    assert {entry.series_instance_uid: entry for entry in again.series} == first


@pytest.mark.real_data
@pytest.mark.parametrize("patient", ["ProstateX-0000", "ProstateX-0001"])
def test_undistorted_real_diffusion_lies_where_t2_shows_it(real, patient: str) -> None:
    # The constants of the registration were looked at with these two patients: no independent test.
    known = real(f"prostate_prostatex_skyra/{patient}")
    found = values(known.volume(Role.T2W_AXIAL), known.volume(Role.DWI, b_value=50.0))
    assert found["displacement_p95"] < 3.0
    assert found["distortion_median"] < 1.0
    assert found["t2_dwi_mismatch"] < 0.15
