"""The mono-exponential model in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.volumes.adc import calculated_b, fit_adc
from ai.volumes.monoexponential import geometric_mean

SHAPE = (2, 3, 4)


def _signals(s0: float, adc_um2_per_s: float, b_values: list[float]) -> dict[float, np.ndarray]:
    return {b: np.full(SHAPE, s0 * np.exp(-b * adc_um2_per_s * 1e-6), np.float32) for b in b_values}


@given(
    st.floats(10, 4000),
    st.floats(100, 3000),
    st.lists(st.integers(0, 20), min_size=2, max_size=6, unique=True),
)
@settings(deadline=None)
def test_the_fit_gives_back_what_made_the_signal(s0: float, adc: float, hundreds: list[int]) -> None:
    fitted, start = fit_adc(_signals(s0, adc, [100.0 * value for value in hundreds]))
    np.testing.assert_allclose(fitted, adc, rtol=2e-2, atol=5)
    np.testing.assert_allclose(start, s0, rtol=2e-2)


@given(st.floats(0, 3000), st.floats(10, 1000))
@settings(deadline=None)
def test_the_predicted_signal_is_the_model_s(b: float, adc: float) -> None:
    predicted = calculated_b(np.full(SHAPE, 100, np.float32), np.full(SHAPE, adc, np.float32), b)
    np.testing.assert_allclose(predicted, 100 * np.exp(-b * adc * 1e-6), rtol=1e-4)


def test_all_b_values_count_alike() -> None:
    """Against numpy's own least squares on noisy signals."""
    b_values = [0.0, 50.0, 400.0, 800.0]
    noisy = {b: np.random.default_rng(int(b)).uniform(50, 400, SHAPE).astype(np.float32) for b in b_values}
    logs = np.log(np.stack([noisy[b] for b in b_values]).reshape(4, -1).astype(float))
    slope, intercept = np.polyfit(b_values, logs, 1)
    fitted, start = fit_adc(noisy)
    np.testing.assert_allclose(fitted.ravel(), -slope * 1e6, rtol=1e-4)
    np.testing.assert_allclose(start.ravel(), np.exp(intercept), rtol=1e-4)


def test_without_signal_there_is_no_adc() -> None:
    signals = _signals(100, 1000, [0.0, 500.0, 1000.0])
    signals[500.0][0, 0, 0] = 0
    signals[500.0][0, 0, 1] = -3
    signals[1000.0][0, 0, 2] = np.nan
    fitted, start = fit_adc(signals)
    assert np.isnan(fitted[0, 0, :3]).all()
    assert np.isnan(start[0, 0, :3]).all()
    assert np.isfinite(fitted).sum() == fitted.size - 3
    assert np.isnan(calculated_b(start, fitted)[0, 0, :3]).all()


def test_wild_values_stay_finite() -> None:
    signals = {0.0: np.full(SHAPE, 1e-30, np.float32), 1.0: np.full(SHAPE, 1e30, np.float32)}
    fitted, start = fit_adc(signals)
    assert np.isfinite(fitted).all()
    assert np.isfinite(calculated_b(start, fitted)).all()


def test_one_b_value_or_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two b-values"):
        fit_adc({800.0: np.ones(SHAPE, np.float32)})
    with pytest.raises(ValueError, match="shapes"):
        fit_adc({0.0: np.ones(SHAPE, np.float32), 800.0: np.ones((1, 1, 1), np.float32)})


def test_the_mean_over_directions_is_geometric() -> None:
    mean = geometric_mean([np.full(SHAPE, 10, np.float32), np.full(SHAPE, 1000, np.float32)])
    np.testing.assert_allclose(mean, 100, rtol=1e-5)
