"""The real prostate studies: roles a person would give, choices explained, maps that agree with the scanner's."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest

from ai.volumes.adc import derive_diffusion
from ai.volumes.assemble import assemble, assemble_studies
from ai.volumes.load import load_volume
from ai.volumes.stacks import build_stacks
from ai.volumes.types import Assembly, Choice, StackAnomaly

pytestmark = pytest.mark.real_data

PROSTATEX = "prostate_prostatex_skyra"
SKYRA_ROLES = {
    "ProstateX-0000": [
        (3, None, "t2w-sagittal", 19),
        (4, None, "t2w-axial", 19),
        (5, None, "t2w-coronal", 15),
        (6, 50.0, "dwi", 19),
        (6, 400.0, "dwi", 19),
        (6, 800.0, "dwi", 19),
        (7, None, "adc", 19),
        (8, 1000.0, "dwi-calculated", 19),
        (9, None, "other", 16),
    ],
    "ProstateX-0001": [
        (6, None, "t2w-axial", 19),
        (7, 50.0, "dwi", 19),
        (7, 400.0, "dwi", 19),
        (7, 800.0, "dwi", 19),
        (8, None, "adc", 19),
        (9, 1000.0, "dwi-calculated", 19),
        (10, None, "t2w-axial", 19),
        (11, None, "other", 16),
    ],
}


def _choice(assembly: Assembly, purpose: str) -> Choice:
    return next(choice for choice in assembly.choices if choice.purpose == purpose)


def _series_number(assembly: Assembly, volume_id: str | None) -> int | None:
    return next(one.stack.acquisition.series_number for one in assembly.stacks if one.stack.volume_id == volume_id)


@pytest.mark.parametrize("patient", SKYRA_ROLES)
def test_every_series_of_a_study_gets_the_role_a_person_would_give_it(patient: str, read_folder: Callable) -> None:
    assembly = assemble(read_folder(f"{PROSTATEX}/{patient}").headers)
    found = [
        (
            one.stack.acquisition.series_number,
            one.stack.b_value.s_per_mm2 if one.stack.b_value else None,
            one.role,
            len(one.stack.slices),
        )
        for one in assembly.stacks
    ]
    assert found == SKYRA_ROLES[patient]
    assert all(one.reasons for one in assembly.stacks)
    assert not any(one.stack.anomalies for one in assembly.stacks)
    assert assembly.unreadable == {}


@pytest.mark.parametrize(("folder", "studies"), [("prostate_prostate3t_skyra", 3), ("prostate_philips_erc", 5)])
def test_t2_only_studies_of_two_makers_are_axial_t2(folder: str, studies: int, read_folder: Callable) -> None:
    assemblies = assemble_studies(read_folder(folder).headers)
    assert [[one.role for one in assembly.stacks] for assembly in assemblies] == [["t2w-axial"]] * studies
    assert all(_choice(assembly, "t2w").volume_id for assembly in assemblies)
    assert all(_choice(assembly, "adc").volume_id is None for assembly in assemblies)


def test_roles_do_not_need_descriptions(read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/ProstateX-0000")
    silent = []
    for header in folder.headers:
        copy = deepcopy(header)
        copy.SeriesDescription = copy.ProtocolName = "x"
        silent.append(copy)
    assert [one.role for one in assemble(silent).stacks] == [row[2] for row in SKYRA_ROLES["ProstateX-0000"]]


def test_of_two_axial_t2_the_later_is_taken_and_the_other_kept_and_explained(read_folder: Callable) -> None:
    assembly = assemble(read_folder(f"{PROSTATEX}/ProstateX-0001").headers)
    choice = _choice(assembly, "t2w")
    assert _series_number(assembly, choice.volume_id) == 10
    assert "later" in choice.reason
    (rejected,) = choice.rejected.items()
    assert _series_number(assembly, rejected[0]) == 6
    assert "earlier" in rejected[1]


def test_quality_decides_between_two_axial_t2(read_folder: Callable) -> None:
    headers = read_folder(f"{PROSTATEX}/ProstateX-0001").headers
    t2w = [one.stack.series_instance_uid for one in assemble(headers).stacks if one.role == "t2w-axial"]
    choice = _choice(assembly := assemble(headers, quality={t2w[0]: 0.9, t2w[1]: 0.2}), "t2w")
    assert _series_number(assembly, choice.volume_id) == 6
    assert "0.90" in choice.reason
    assert "0.20" in next(iter(choice.rejected.values()))


def test_the_missing_slice_is_named_and_left_empty(read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/ProstateX-missing-slice")
    (stack,), unreadable = build_stacks(folder.headers)
    assert not unreadable
    assert stack.anomalies == (StackAnomaly.MISSING_SLICE,)
    assert stack.geometry is not None
    assert stack.geometry.shape == (19, 128, 84)
    assert stack.missing_slice_indices == (13,)
    volume = load_volume(stack, folder.source)
    assert np.isnan(volume.pixels[13]).all()
    assert np.isfinite(np.delete(volume.pixels, 13, axis=0)).all()


def test_a_series_sent_again_with_a_slice_missing_changes_nothing(read_folder: Callable) -> None:
    whole = read_folder(f"{PROSTATEX}/ProstateX-0000").headers
    again = read_folder(f"{PROSTATEX}/ProstateX-missing-slice").headers
    assert [one.stack.volume_id for one in assemble([*whole, *again]).stacks] == [
        one.stack.volume_id for one in assemble(whole).stacks
    ]


@pytest.mark.parametrize("patient", SKYRA_ROLES)
def test_the_adc_refit_agrees_with_the_scanner(patient: str, read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/{patient}")
    maps = derive_diffusion(assemble(folder.headers), folder.source)
    assert maps.adc.origin == "scanner"
    scanner, ours = maps.scanner_adc.pixels, maps.computed_adc.pixels
    assert scanner is not None
    assert ours is not None
    tissue = (ours > 0) & (scanner > 0)
    assert np.corrcoef(scanner[tissue], ours[tissue])[0, 1] >= 0.998
    assert 0.94 <= float(np.median(scanner[tissue] / ours[tissue])) <= 0.97


def test_a_high_b_value_is_computed_and_said_to_be(read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/ProstateX-0000")
    assembly = assemble(folder.headers)
    assert _choice(assembly, "high-b").volume_id is None
    assert "50, 400, 800" in _choice(assembly, "high-b").reason
    maps = derive_diffusion(assembly, folder.source)
    assert (maps.high_b.origin, maps.high_b.b_s_per_mm2) == ("computed", 1400.0)
    assert "b = 50, 400, 800" in maps.high_b.sentence
    assert len(maps.high_b.volume_ids) == 3
    assert maps.geometry is not None
    assert maps.high_b.pixels is not None
    assert maps.high_b.pixels.shape == maps.geometry.shape
    calculated = next(one.stack for one in assembly.stacks if one.role == "dwi-calculated")
    theirs = load_volume(calculated, folder.source).pixels
    # The scanner's b 1000 is damped less than b 1400, but both show the same tissue.
    tissue = np.isfinite(maps.high_b.pixels) & (theirs > 0)
    assert np.corrcoef(maps.high_b.pixels[tissue], theirs[tissue])[0, 1] > 0.9


def test_an_adc_map_in_other_units_is_recognised(read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/ProstateX-0000")
    assembly = assemble(folder.headers)
    adc = next(one.stack for one in assembly.stacks if one.role == "adc")
    adc_instances = {reference.sop_instance_uid for reference in adc.slices}
    reference = derive_diffusion(assembly, folder.source)

    class Scaled:
        def __init__(self, factor: float) -> None:
            self.factor = np.float32(factor)

        def frame(self, one):  # type: ignore[no-untyped-def]
            pixels = folder.source.frame(one)
            return pixels * self.factor if one.sop_instance_uid in adc_instances else pixels

    for factor in (1e-3, 1e-6):
        maps = derive_diffusion(assembly, Scaled(factor))
        assert maps.adc.origin == "scanner"
        np.testing.assert_allclose(maps.adc.pixels, reference.adc.pixels, rtol=1e-4)
    unusable = derive_diffusion(assembly, Scaled(37.0))
    assert unusable.adc.origin == "computed"
    assert "implausible" in unusable.adc.sentence


def test_without_the_scanners_maps_both_are_computed(read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/ProstateX-0000")
    assembly = assemble([header for header in folder.headers if header.SeriesNumber not in (7, 8)])
    assert "no ADC map from the scanner" in _choice(assembly, "adc").reason
    maps = derive_diffusion(assembly, folder.source)
    assert (maps.adc.origin, maps.high_b.origin) == ("computed", "computed")
    assert maps.scanner_adc.pixels is None


def test_one_b_value_alone_is_taken_with_the_missing_one_named(read_folder: Callable) -> None:
    folder = read_folder(f"{PROSTATEX}/ProstateX-0000")
    kept = [header for header in folder.headers if header.get("SequenceName") == "*ep_b800t"]
    assembly = assemble(kept)
    maps = derive_diffusion(assembly, folder.source)
    assert "expected b-value missing" in _choice(assembly, "high-b").reason
    assert (maps.high_b.origin, maps.high_b.b_s_per_mm2) == ("acquired", 800.0)
    assert "missing" in maps.high_b.sentence
    assert maps.adc.pixels is None


def test_headers_of_two_studies_are_refused(read_folder: Callable) -> None:
    with pytest.raises(ValueError, match="2 studies"):
        assemble(
            read_folder(f"{PROSTATEX}/ProstateX-0000").headers + read_folder(f"{PROSTATEX}/ProstateX-0001").headers
        )
