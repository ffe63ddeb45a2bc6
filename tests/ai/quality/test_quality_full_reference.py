"""HaarPSI and GMSD against a brute-force reading of the papers, and the behaviour that the papers report."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai.quality.acquired import AcquiredGrid
from ai.quality.full_reference import damage_region, gmsd, haarpsi, haarpsi_map

SIZE = 96


@pytest.fixture(scope="module")
def image(made) -> np.ndarray:
    return np.asarray(made.pelvis(slices=1, size=SIZE, noise=0.0)[0])


def filtered(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Convolution of the same size, zero beyond the image, one product after the other."""
    rows, columns = mask.shape
    padded = np.pad(image, [(rows, rows), (columns, columns)])
    result = np.zeros_like(image)
    for (row, column), weight in np.ndenumerate(mask):
        down, across = rows + rows // 2 - row, columns + columns // 2 - column
        result += weight * padded[down : down + image.shape[0], across : across + image.shape[1]]
    return result


def halved(image: np.ndarray) -> np.ndarray:
    return filtered(image, np.full((2, 2), 0.25))[::2, ::2]


def slow_haarpsi(reference: np.ndarray, distorted: np.ndarray) -> float:
    """Equations 8 to 13 of arXiv 1607.06140 as they stand, on images of 0..255."""
    images = [halved(picture) for picture in (reference, distorted)]
    above = below = 0.0
    for turned in (False, True):
        coefficients = []
        for picture in images:
            scales = []
            for scale in (1, 2, 3):
                mask = np.full((2**scale, 2**scale), 2.0**-scale)
                mask[: 2 ** (scale - 1)] *= -1.0
                scales.append(np.abs(filtered(picture, mask.T if turned else mask)))
            coefficients.append(scales)
        one, two = coefficients
        similarity = sum((2 * one[s] * two[s] + 30.0) / (one[s] ** 2 + two[s] ** 2 + 30.0) for s in (0, 1)) / 2.0
        weight = np.maximum(one[2], two[2])
        above += float(np.sum(weight / (1.0 + np.exp(-4.2 * similarity))))
        below += float(np.sum(weight))
    return float((np.log(above / below / (1.0 - above / below)) / 4.2) ** 2)


def to_grey_levels(picture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return picture * 255.0 / np.percentile(reference, 99.5)


def noisy(image: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return image + np.random.default_rng(seed).normal(0, share * image.mean(), image.shape)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 2.0))
@settings(max_examples=10, deadline=None)
def test_haarpsi_is_the_papers(image: np.ndarray, seed: int, share: float) -> None:
    distorted = noisy(image, share, seed)
    expected = slow_haarpsi(*(to_grey_levels(picture, image) for picture in (image, distorted)))
    assert haarpsi(image, distorted) == pytest.approx(expected, rel=1e-9)


def test_gmsd_is_the_papers(image: np.ndarray) -> None:
    distorted = noisy(image, 0.3)
    down = np.repeat([[1.0], [0.0], [-1.0]], 3, axis=1) / 3.0
    gradients = [
        np.hypot(filtered(grey, down), filtered(grey, down.T))
        for grey in (halved(to_grey_levels(picture, image)) for picture in (image, distorted))
    ]
    similarity = (2 * gradients[0] * gradients[1] + 170.0) / (gradients[0] ** 2 + gradients[1] ** 2 + 170.0)
    assert gmsd(image, distorted) == pytest.approx(float(similarity.std()), rel=1e-9)


def test_identity_is_one_and_everything_else_below(image: np.ndarray) -> None:
    assert haarpsi(image, image) == pytest.approx(1.0)
    assert haarpsi(image, image) <= 1.0
    assert gmsd(image, image) == pytest.approx(0.0)
    assert np.allclose(haarpsi_map(image, image), 1.0)
    assert 0.0 <= haarpsi(image, np.random.default_rng(1).permuted(image)) < 0.4


@pytest.mark.parametrize("damage", ["noise", "blur", "ghosts"])
def test_more_damage_is_a_lower_haarpsi_and_a_higher_gmsd(made, image: np.ndarray, damage: str) -> None:
    strengths = {"noise": (0.05, 0.1, 0.2, 0.4), "blur": (1.0, 2.0, 3.0, 5.0), "ghosts": (0.05, 0.1, 0.2, 0.4)}[damage]
    stack = image[None]
    made_worse = {
        "noise": lambda strength: made.corrupt.noise(stack, strength)[0],
        "blur": lambda strength: made.corrupt.blur(stack, strength, (1.0, 1.0))[0],
        "ghosts": lambda strength: made.corrupt.ghosts(stack, strength)[0],
    }[damage]
    similarities = [haarpsi(image, made_worse(strength)) for strength in strengths]
    deviations = [gmsd(image, made_worse(strength)) for strength in strengths]
    assert np.all(np.diff([1.0, *similarities]) < 0)
    assert np.all(np.diff([0.0, *deviations]) > 0)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 1.0))
@settings(max_examples=10, deadline=None)
def test_order_and_unit_of_the_images_do_not_matter(image: np.ndarray, seed: int, share: float) -> None:
    distorted = np.abs(noisy(image, share, seed))
    distorted *= np.percentile(image, 99.5) / np.percentile(distorted, 99.5)
    value = haarpsi(image, distorted)
    assert 0.0 <= value <= 1.0
    assert haarpsi(distorted, image) == pytest.approx(value)
    assert haarpsi(0.01 * image, 0.01 * distorted) == pytest.approx(value)
    for axis in (0, 1):
        assert haarpsi(np.flip(image, axis), np.flip(distorted, axis)) == pytest.approx(value, abs=0.02)


def test_at_equal_error_brightness_is_forgiven_before_blur_and_blur_before_noise(image: np.ndarray) -> None:
    """The order in which people mind them, which the mean squared error does not see."""
    blurred = ndimage.gaussian_filter(image, 1.0)
    error = float(np.sqrt(np.mean((blurred - image) ** 2)))
    brighter = image * (1.0 + error / float(np.sqrt(np.mean(image**2))))
    noise = np.random.default_rng(2).normal(0, error, image.shape)
    values = [haarpsi(image, other) for other in (brighter, blurred, image + noise)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[1] + 0.05


def test_damage_outside_the_region_does_not_count(image: np.ndarray) -> None:
    region = np.zeros(image.shape, dtype=bool)
    region[31:64, 35:67] = True
    distorted = noisy(image, 0.3)
    near, far = image.copy(), image.copy()
    far[:10] = distorted[:10]
    near[40:50, 40:50] = distorted[40:50, 40:50]
    assert haarpsi(image, far, region) == pytest.approx(1.0)
    assert haarpsi(image, near, region) < 0.99
    assert haarpsi(image, near, region) < haarpsi(image, near)


def test_a_region_is_only_a_weight(image: np.ndarray) -> None:
    """Cutting out the region's surroundings for speed must not change what is inside."""
    distorted = noisy(image, 0.3)
    region = np.zeros(image.shape, dtype=bool)
    region[38:60, 41:63] = True
    wide = region.copy()
    # Two far corners make the rectangle the whole image; their weight is the price of a comparison of maps.
    wide[0, 0] = wide[-1, -1] = True
    scale = np.percentile(image[wide], 99.5) / np.percentile(image[region], 99.5)
    assert scale == pytest.approx(1.0, rel=1e-2)
    cut, whole = haarpsi_map(image, distorted, region), haarpsi_map(image, distorted, wide)
    first_row, first_column = (38 - 16) // 2, (41 - 16) // 2
    rows, columns = slice(38 // 2, 60 // 2), slice(42 // 2, 62 // 2)
    seen = cut[
        rows.start - first_row : rows.stop - first_row, columns.start - first_column : columns.stop - first_column
    ]
    assert np.allclose(seen, whole[rows, columns], atol=5e-3)


@pytest.mark.parametrize(
    ("spacing", "stored", "sides"), [((1.0, 0.5), (200, 400), (80, 160)), ((1.0, 0.5), (50, 400), (50, 160))]
)
def test_damage_region_is_eighty_millimetres_about_the_centre(spacing, stored, sides) -> None:
    acquired = (stored[0] // 2, stored[1] // 2)
    region = damage_region(AcquiredGrid(acquired, (2 * spacing[0], 2 * spacing[1]), 1, known=True), stored)
    assert region.any(axis=1).sum() == sides[0]
    assert region.any(axis=0).sum() == sides[1]
    assert np.array_equal(region, np.flip(region, (0, 1)))


@pytest.mark.parametrize(
    ("reference", "distorted", "region", "words"),
    [
        (np.ones((32, 32)), np.ones((32, 30)), None, "shapes differ"),
        (np.ones((32, 32)), np.ones((32, 32)), np.zeros((32, 32), bool), "region is empty"),
        (np.zeros((32, 32)), np.ones((32, 32)), None, "reference is empty"),
        (np.ones((32, 32)), np.full((32, 32), np.nan), None, "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(reference, distorted, region, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        haarpsi(reference, distorted, region)


def test_flat_images_have_nothing_to_be_compared_by() -> None:
    region = np.zeros((96, 96), dtype=bool)
    region[40:56, 40:56] = True
    with pytest.raises(ValueError, match="structure"):
        haarpsi(np.ones((96, 96)), np.ones((96, 96)), region)
