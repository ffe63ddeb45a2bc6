"""Properties of grids in patient space: sorting, index and position, resampling, overlap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.volumes.geometry import MAX_VOXELS, overlap_fraction, resample, same_grid
from ai.volumes.grid import fit_grid, plane_of, position_groups, slice_normal
from ai.volumes.types import Geometry, StackAnomaly

spacings = st.floats(0.2, 8.0)
angles = st.floats(-np.pi, np.pi)
lengths = st.integers(1, 9)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Six direction cosines of a random rotation, rounded as DICOM writes them."""
    a, b, c = draw(angles), draw(angles), draw(angles)
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    y = np.array([[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]])
    rotation = np.round(z @ x @ y, 8)
    return tuple(float(value) for value in (*rotation[:, 0], *rotation[:, 1]))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    orientation = draw(orientations())
    step = slice_normal(orientation) * draw(spacings)
    origin = np.array([draw(st.floats(-200, 200)) for _ in range(3)])
    shape = draw(lengths), draw(lengths), draw(lengths)
    positions = origin + np.outer(np.arange(shape[0]), step)
    grid = fit_grid(positions, orientation, (draw(spacings), draw(spacings)), shape[1:], float(np.linalg.norm(step)))
    assert grid.geometry is not None
    return grid.geometry


@given(geometries())
def test_index_and_position_are_inverse(geometry: Geometry) -> None:
    index = np.random.default_rng(0).uniform(-5, 20, (10, 3))
    np.testing.assert_allclose(geometry.to_index(geometry.to_lps_mm(index)), index, atol=1e-6)


@given(geometries())
def test_slices_rise_along_the_normal(geometry: Geometry) -> None:
    step = geometry.to_lps_mm(np.array([[1.0, 0, 0]])) - geometry.to_lps_mm(np.zeros((1, 3)))
    assert float(step[0] @ geometry.normal_lps) > 0
    assert np.linalg.det(geometry.affine_lps_mm[:3, :3]) != 0


@given(orientations(), st.integers(2, 30), spacings, st.randoms(use_true_random=False))
def test_any_order_of_slices_gives_the_same_grid(
    orientation: tuple[float, ...], count: int, step_mm: float, random
) -> None:  # type: ignore[no-untyped-def]
    normal = slice_normal(orientation)
    positions = np.array([10.0, -20.0, 30.0]) + np.outer(np.arange(count) * step_mm, normal)
    order = list(range(count))
    random.shuffle(order)
    groups = position_groups(positions[order], normal)
    assert [order[group[0]] for group in groups] == list(range(count))


@given(orientations(), st.integers(3, 30), spacings, st.data())
def test_a_gap_leaves_an_empty_grid_row(
    orientation: tuple[float, ...], count: int, step_mm: float, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(1, count - 2)) if count > 3 else None
    kept = [number for number in range(count) if number != lost]
    positions = np.outer(np.array(kept) * step_mm, slice_normal(orientation))
    grid = fit_grid(positions, orientation, (1.0, 1.0), (4, 4), None)
    assert grid.geometry is not None
    assert grid.indices == tuple(kept)
    assert grid.geometry.shape[0] == count
    assert (StackAnomaly.MISSING_SLICE in grid.anomalies) == (lost is not None)
    np.testing.assert_allclose(grid.geometry.spacing_mm[0], step_mm, rtol=1e-6)


@given(orientations(), st.integers(3, 20), st.floats(0.15, 0.85))
def test_a_slice_between_the_grid_rows_is_irregular(orientation: tuple[float, ...], count: int, shift: float) -> None:
    steps = np.arange(count, dtype=float)
    steps[-1] += shift
    grid = fit_grid(np.outer(steps * 3.0, slice_normal(orientation)), orientation, (1.0, 1.0), (4, 4), None)
    assert grid.geometry is None
    assert StackAnomaly.IRREGULAR_SPACING in grid.anomalies


@given(orientations(), st.floats(0.02, 0.5))
def test_a_sheared_stack_keeps_its_positions(orientation: tuple[float, ...], tangent: float) -> None:
    step = 4.0 * (slice_normal(orientation) + tangent * np.array(orientation[3:]))
    positions = np.outer(np.arange(8), step)
    grid = fit_grid(positions, orientation, (1.0, 1.0), (4, 4), None)
    assert grid.geometry is not None
    assert grid.anomalies == (StackAnomaly.SHEARED,)
    index = np.column_stack([np.arange(8), np.zeros(8), np.zeros(8)])
    np.testing.assert_allclose(grid.geometry.to_lps_mm(index), positions, atol=1e-6)


@given(geometries(), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_resampling_to_the_own_grid_changes_nothing(geometry: Geometry, order: int) -> None:
    pixels = np.random.default_rng(1).normal(size=geometry.shape).astype(np.float32)
    np.testing.assert_allclose(resample(pixels, geometry, geometry, order), pixels, atol=1e-4)


@given(geometries())
@settings(deadline=None, max_examples=60)
def test_a_missing_slice_stays_missing_and_spoils_nothing_else(geometry: Geometry) -> None:
    pixels = np.random.default_rng(2).normal(size=geometry.shape).astype(np.float32)
    pixels[geometry.shape[0] // 2] = np.nan
    for order in (0, 1, 3):
        moved = resample(pixels, geometry, geometry, order)
        np.testing.assert_array_equal(np.isnan(moved), np.isnan(pixels))


@given(geometries())
@settings(deadline=None, max_examples=60)
def test_flipping_the_stored_direction_moves_no_value(geometry: Geometry) -> None:
    """The same voxels stored in reverse order, with the affine that says so, give the same values in space."""
    pixels = np.random.default_rng(3).normal(size=geometry.shape).astype(np.float32)
    reverse = np.eye(4)
    reverse[0, 0], reverse[0, 3] = -1.0, geometry.shape[0] - 1.0
    flipped = Geometry(geometry.affine_lps_mm @ reverse, geometry.shape)
    np.testing.assert_allclose(resample(pixels[::-1], flipped, geometry, 1), pixels, atol=1e-4)
    np.testing.assert_allclose(flipped.normal_lps, -geometry.normal_lps, atol=1e-9)


def test_a_linear_field_is_resampled_exactly_between_oblique_grids() -> None:
    axial = Geometry(np.diag([3.0, 0.5, 0.5, 1.0])[[2, 1, 0, 3]], (20, 100, 100))
    angle = np.deg2rad(15)
    orientation = (1, 0, 0, 0, np.cos(angle), -np.sin(angle))
    positions = np.array([10.0, 15.0, 15.0]) + np.outer(np.arange(5) * 2.0, slice_normal(orientation))
    target = fit_grid(positions, orientation, (2.0, 2.0), (8, 8), None).geometry
    assert target is not None
    weights = np.array([1.0, -2.0, 0.5])

    def field(geometry: Geometry) -> np.ndarray:
        index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
        return (geometry.to_lps_mm(index) @ weights).reshape(geometry.shape).astype(np.float32)

    np.testing.assert_allclose(resample(field(axial), axial, target, 1), field(target), atol=1e-3)


def test_outside_the_source_is_the_fill_value() -> None:
    source = Geometry(np.eye(4), (4, 4, 4))
    shifted = np.eye(4)
    shifted[0, 3] = 3.0
    moved = resample(np.ones((4, 4, 4), np.float32), source, Geometry(shifted, (4, 4, 4)), 1, fill=-7.0)
    assert (moved[0] == 1).all()
    assert (moved[1:] == -7).all()


def test_sizes_are_bounded_before_anything_is_allocated() -> None:
    source = Geometry(np.eye(4), (1, 1, 1))
    with pytest.raises(ValueError, match=str(MAX_VOXELS)):
        resample(np.ones((1, 1, 1), np.float32), source, Geometry(np.eye(4), (2**20, 2**20, 2**20)), 1)
    with pytest.raises(ValueError, match="shape"):
        resample(np.ones((1, 1, 2), np.float32), source, source, 1)


@pytest.mark.parametrize(("shift", "fraction"), [(0, 1.0), (5, 0.5), (2.5, 0.75), (10, 0.0)])
def test_overlap_of_shifted_boxes(shift: float, fraction: float) -> None:
    moved = np.eye(4)
    moved[1, 3] = shift
    a, b = Geometry(np.eye(4), (10, 10, 10)), Geometry(moved, (10, 10, 10))
    assert overlap_fraction(a, b) == pytest.approx(fraction, abs=0.04)
    assert overlap_fraction(a, b) == pytest.approx(overlap_fraction(b, a), abs=0.04)


def test_a_small_box_inside_a_large_one_overlaps_fully() -> None:
    inner = np.eye(4)
    inner[:3, 3] = 3.0
    assert overlap_fraction(Geometry(np.eye(4), (10, 10, 10)), Geometry(inner, (3, 3, 3))) == 1.0


@given(geometries())
def test_a_grid_is_itself_and_not_its_neighbour(geometry: Geometry) -> None:
    moved = geometry.affine_lps_mm.copy()
    moved[:3, 3] += 0.5 * min(geometry.spacing_mm)
    assert same_grid(geometry, geometry)
    assert not same_grid(geometry, Geometry(moved, geometry.shape))


@pytest.mark.parametrize(
    ("degrees", "plane"), [(0, "axial"), (25, "axial"), (-40, "axial"), (50, "coronal"), (90, "coronal")]
)
def test_a_tilted_axial_stack_is_still_axial(degrees: float, plane: str) -> None:
    angle = np.deg2rad(degrees)
    assert plane_of((1, 0, 0, 0, np.cos(angle), -np.sin(angle))) == plane


def test_a_plane_between_all_three_is_oblique() -> None:
    normal = np.ones(3) / np.sqrt(3)
    row = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    assert plane_of((*row, *np.cross(normal, row))) == "oblique"
