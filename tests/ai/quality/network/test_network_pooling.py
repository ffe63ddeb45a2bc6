"""Series scores: between worst and best, rising with every slice, blind to order and to absent slices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.quality.network.pooling import SeriesPooling, SeriesPoolingConfig

scores_of_a_series = st.lists(st.floats(0, 1), min_size=1, max_size=9)
CHANNELS = 5


def pooling(mixture: float = 0.3) -> SeriesPooling:
    torch.manual_seed(1)
    network = SeriesPooling(SeriesPoolingConfig(CHANNELS, 8)).eval().double()
    torch.nn.init.constant_(network.mixture, mixture)
    return network


def features(count: int) -> torch.Tensor:
    return torch.randn(1, count, CHANNELS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def pooled(scores: list[float]) -> float:
    return float(pooling()(torch.tensor([scores], dtype=torch.float64), features(len(scores))).score)


@given(scores=scores_of_a_series)
@settings(deadline=None, max_examples=50)
def test_a_series_is_no_better_than_its_best_and_no_worse_than_its_worst_slice(scores: list[float]) -> None:
    assert min(scores) - 1e-9 <= pooled(scores) <= max(scores) + 1e-9


@given(scores=scores_of_a_series, index=st.integers(0, 8), rise=st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_a_better_slice_never_makes_a_worse_series(scores: list[float], index: int, rise: float) -> None:
    better = list(scores)
    better[index % len(scores)] += rise
    assert pooled(better) >= pooled(scores) - 1e-12


@given(scores=st.lists(st.floats(0, 1), min_size=7, max_size=7), order=st.permutations(range(7)))
@settings(deadline=None, max_examples=30)
def test_order_does_not_matter(scores: list[float], order: list[int]) -> None:
    straight = torch.tensor([scores], dtype=torch.float64)
    one = pooling()(straight, features(7)).score
    other = pooling()(straight[:, order], features(7)[:, order]).score
    assert float(one) == pytest.approx(float(other))


def test_one_ruined_slice_is_not_averaged_away() -> None:
    assert pooled([0.95] * 6 + [0.05]) < 0.95 - 0.9 / 7 - 0.2


def test_absent_slices_do_not_count_not_even_as_nan() -> None:
    network = pooling()
    scores = torch.tensor([[0.9, 0.4, torch.nan, torch.nan]], dtype=torch.float64)
    present = torch.tensor([[True, True, False, False]])
    found = network(scores, features(4), present)
    expected = network(scores[:, :2], features(4)[:, :2])
    assert float(found.score) == pytest.approx(float(expected.score))
    assert found.attention[0, 2:].tolist() == [0.0, 0.0]
    assert float(found.attention.sum()) == pytest.approx(1.0)


def test_it_learns_without_nan_gradients() -> None:
    network = pooling().train()
    scores = torch.tensor([[0.9, 0.4, 0.0]], dtype=torch.float64, requires_grad=True)
    network(scores, features(3), torch.tensor([[True, True, False]])).score.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    assert scores.grad is not None
    assert (scores.grad[0, :2] > 0).all()
    assert scores.grad[0, 2] == 0
