"""Salient slices: the right number, in order, full of anatomy, independent of order and scale."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ai.quality.salience import SALIENT_SLICES, salient_slices, select
from ai.volumes.types import Role

stacks = st.integers(1, 20).flatmap(lambda n: arrays(np.float32, (n, 12, 12), elements=st.integers(0, 1000)))


def positions(count: int) -> np.ndarray:
    return np.arange(count) * 3.0


@given(images=stacks, count=st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_as_many_as_asked_for_in_order_and_each_once(images: np.ndarray, count: int) -> None:
    chosen = select(images, positions(len(images)), count)
    assert len(chosen.indices) == min(count, len(images))
    assert list(chosen.indices) == sorted(set(chosen.indices))
    assert all(0.0 <= value <= 1.0 for value in (*chosen.salience, *chosen.dissimilarity))


@given(images=stacks, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_the_order_on_disk_and_the_intensity_scale_do_not_matter(images: np.ndarray, seed: int) -> None:
    place = positions(len(images))
    shuffled = np.random.default_rng(seed).permutation(len(images))
    chosen = select(images, place)
    # A power of two scales without rounding, so that even ties stay ties.
    again = select(images[shuffled] * np.float32(0.25), place[shuffled])
    assert tuple(shuffled[list(again.indices)]) == chosen.indices
    assert again.salience == pytest.approx(chosen.salience)


@given(images=stacks, empty=st.sets(st.integers(0, 19)), filler=st.sampled_from([0.0, 800.0, np.nan]))
@settings(deadline=None, max_examples=60)
def test_an_empty_slice_is_never_taken_before_one_with_anatomy(images, empty: set[int], filler: float) -> None:
    images = images.copy()
    # Structure in every box, so that "empty" is what the test made empty and nothing else.
    images[:, 5:7, 5:7] = [[500, 900], [900, 700]]
    empty = {index for index in empty if index < len(images)}
    images[list(empty)] = filler
    filled = len(images) - len(empty)
    chosen = select(images, positions(len(images)))
    assert len(empty.intersection(chosen.indices)) == max(0, min(SALIENT_SLICES, len(images)) - filled)


def test_repeated_slices_are_passed_over(made) -> None:
    images = made.pelvis(slices=14)
    images[6:9] = images[5]
    chosen = select(images, positions(14))
    assert len({5, 6, 7, 8}.intersection(chosen.indices)) == 1


def test_the_gland_draws_the_choice(made) -> None:
    images, place = made.pelvis(slices=24), positions(24)
    lowest_mm, highest_mm = 39.0, 63.0

    def outside_mm(indices: tuple[int, ...]) -> np.ndarray:
        chosen = place[list(indices)]
        return np.maximum(np.maximum(lowest_mm - chosen, chosen - highest_mm), 0.0)

    drawn = outside_mm(select(images, place, gland_mm=(lowest_mm, highest_mm)).indices)
    assert drawn.max() <= 9.0
    assert np.count_nonzero(drawn == 0.0) >= 5
    assert outside_mm(select(images, place).indices).max() > 9.0


def test_slices_of_a_volume_carry_their_instance_and_spread(made) -> None:
    volume = made.volume(made.pelvis(slices=24))
    chosen = salient_slices(volume)
    assert len(chosen) == SALIENT_SLICES
    assert [entry.reference for entry in chosen] == [volume.stack.slices[entry.index] for entry in chosen]
    assert chosen[-1].index - chosen[0].index >= 9
    assert np.max(np.diff([entry.index for entry in chosen])) <= 6


def test_few_slices_are_all_taken_and_none_is_an_error(made) -> None:
    assert [entry.index for entry in salient_slices(made.volume(made.pelvis(slices=3)))] == [0, 1, 2]
    with pytest.raises(ValueError, match="cannot be chosen"):
        select(np.zeros((0, 8, 8)), np.zeros(0))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("collection", "patient"),
    [("prostate_prostatex_skyra", "ProstateX-0000"), ("prostate_prostate3t_skyra", "Prostate3T-03-0001")],
)
def test_the_slices_chosen_of_real_studies_show_the_prostate(real, shared_data, collection: str, patient: str) -> None:
    """Against outlines of the gland, which are for evaluation only: most without knowing it, all when told."""
    volume = real(f"{collection}/{patient}").volume(Role.T2W_AXIAL)
    outline = nibabel.load(next((shared_data / "labels_picai_nc" / patient).glob("*whole_gland*Bosma22b*")))
    inside_ras_mm = nibabel.affines.apply_affine(outline.affine, np.argwhere(np.asarray(outline.dataobj) > 0))
    rows = np.unique(np.round(volume.geometry.to_index(inside_ras_mm * [-1.0, -1.0, 1.0])[:, 0]).astype(int))
    spacing_mm = volume.geometry.spacing_mm[0]
    blind = salient_slices(volume)
    told = salient_slices(volume, gland_mm=(rows[0] * spacing_mm, rows[-1] * spacing_mm))
    assert np.isin([entry.index for entry in blind], rows).sum() >= 5
    assert np.isin([entry.index for entry in told], rows).all()
