"""The network in both sizes: shapes, the published layout counted by hand, determinism, what may know what."""

import numpy as np
import pytest
import torch

from ai.quality.concepts import CONCEPTS
from ai.quality.network.blocks import FiLM, PromptEncoder, TransposedAttention
from ai.quality.network.maniqa import Maniqa, ManiqaConfig, ManiqaMini, SliceQuality, parameter_count
from ai.quality.network.physics import PHYSICS, physics_of
from ai.quality.prompts import LEVELS


def batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(count, 2, 128, 128, generator=generator)
    prompts = torch.stack([torch.randint(levels, (count,), generator=generator) for levels in LEVELS], dim=1)
    return pixels, prompts, torch.rand(count, generator=generator) + 0.4


@pytest.fixture
def network() -> ManiqaMini:
    """A network whose prompt matters: FiLM starts as the identity and is moved off it."""
    network = ManiqaMini().eval()
    for module in network.modules():
        if isinstance(module, FiLM):
            torch.nn.init.normal_(module.modulation.weight, std=0.1)
    return network


def test_shapes_and_ranges(network: ManiqaMini) -> None:
    with torch.inference_mode():
        found = network(*batch())
    assert found.concepts.shape == (3, len(CONCEPTS)) == (3, 9)
    assert found.damage.shape == (3,)
    assert found.physics.shape == (3, len(PHYSICS))
    assert found.embedding.shape == (3, network.config.width)
    assert found.weights.shape == (3, 16, 16)
    assert 0.0 < float(found.weights.min()) < float(found.weights.max()) < 1.0
    assert all(torch.isfinite(part).all() for part in found)


def test_the_small_network_is_small() -> None:
    assert 400_000 < parameter_count(ManiqaMini()) < 1_500_000


def test_the_same_slices_give_the_same_bits(network: ManiqaMini) -> None:
    with torch.inference_mode():
        first, second = network(*batch()), network(*batch())
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_slice_does_not_depend_on_the_slices_beside_it(network: ManiqaMini) -> None:
    pixels, prompts, pixel_mm = batch(4)
    with torch.inference_mode():
        together = network(pixels, prompts, pixel_mm)
        alone = network(pixels[2:3], prompts[2:3], pixel_mm[2:3])
    for many, one in zip(together, alone, strict=True):
        assert torch.allclose(many[2:3], one, rtol=1e-4, atol=1e-5)


def test_prompt_and_pixel_size_reach_the_judgement_and_the_prompt_never_the_physics(network: ManiqaMini) -> None:
    pixels, prompts, pixel_mm = batch()
    with torch.inference_mode():
        told = network(pixels, prompts, pixel_mm)
        untold = network(pixels, torch.zeros_like(prompts), pixel_mm)
        larger = network(pixels, prompts, 2.0 * pixel_mm)
    assert not torch.allclose(told.concepts, untold.concepts)
    assert torch.equal(told.physics, untold.physics)
    assert not torch.allclose(told.concepts, larger.concepts)


def test_every_parameter_learns(network: ManiqaMini) -> None:
    found: SliceQuality = network.train()(*batch())
    sum(part.square().sum() for part in found).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_channel_attention_keeps_channels_and_positions_apart() -> None:
    """Against the definition, channel by channel: x + softmax(q k^T / sqrt(n)) v."""
    attention = TransposedAttention(6, 0.0).eval()
    features = torch.randn(2, 2, 3, 4)
    with torch.inference_mode():
        found = attention(features)
        for sample, result in zip(features, found, strict=True):
            rows = sample.reshape(6, 4).T
            q, k, v = attention.query(rows), attention.key(rows), attention.value(rows)
            for channel in range(4):
                share = torch.softmax(torch.stack([q[channel] @ k[other] for other in range(4)]) / 6**0.5, dim=0)
                expected = rows[channel] + sum(share[other] * v[other] for other in range(4))
                assert torch.allclose(result.reshape(6, 4)[:, channel], expected, atol=1e-5)


def test_prompts_are_forgotten_in_training_only() -> None:
    encoder = PromptEncoder(LEVELS, 16, 0.5)
    _, prompts, pixel_mm = batch(64)
    prompts = prompts[:1].expand(64, -1).clamp(min=1)
    pixel_mm = pixel_mm[:1].expand(64)
    assert len(torch.unique(encoder.train()(prompts, pixel_mm), dim=0)) > 10
    assert len(torch.unique(encoder.eval()(prompts, pixel_mm), dim=0)) == 1


# The published layout by hand (IIGROUP/MANIQA, ViT-B/8 at 224): 784 positions, widths 768 and 384.
VIT_BLOCK = 2 * 2 * 768 + (768 * 3 * 768 + 3 * 768) + (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768)
EMBEDDING = (3 * 64 * 768 + 768) + 768 + 785 * 768
TAB = 3 * (784 * 784 + 784)


def swin_layer(width: int) -> int:
    block = 2 * 2 * width + 49 * 4 + (3 * width * width + 3 * width) + (width * width + width)
    block += (width * 768 + 768) + (768 * width + width)
    return 2 * block + 9 * width * width + width


BRANCH = 384 * 384 + 384 + 384 + 1
PUBLISHED = (
    EMBEDDING
    + 12 * VIT_BLOCK
    + 2 * 768
    + 4 * TAB
    + (3072 * 768 + 768)
    + 2 * swin_layer(768)
    + (768 * 384 + 384)
    + 2 * swin_layer(384)
    + 2 * BRANCH
)


def test_the_published_layout_is_the_published_size() -> None:
    """128.34 M parameters take part or seem to; the last two ViT blocks and the final norm are computed for nothing."""
    assert PUBLISHED == 128_341_858
    with torch.device("meta"):
        network = Maniqa()
    unused = 2 * VIT_BLOCK + 2 * 768
    second_channel_of_three = 64 * 768
    more_outputs = (len(CONCEPTS) + 1 - 1) * (384 + 1)
    told = parameter_count(network.prompt) + 2 * (64 + 1) * 2 * 768 + 2 * (64 + 1) * 2 * 384
    physics = parameter_count(network.head.physics)
    expected = PUBLISHED - unused - second_channel_of_three + more_outputs + told + physics
    assert parameter_count(network) == expected == 114_622_385


def test_the_published_layout_has_the_same_outputs() -> None:
    with torch.device("meta"):
        found = Maniqa()(torch.empty(2, 2, 224, 224), torch.zeros(2, len(LEVELS), dtype=torch.long), torch.ones(2))
    assert found.concepts.shape == (2, 9)
    assert found.damage.shape == (2,)
    assert found.physics.shape == (2, len(PHYSICS))
    assert found.weights.shape == (2, 28, 28)
    assert found.embedding.shape == (2, 384)


def test_the_published_layout_computes() -> None:
    """A small one of the same build, with numbers in it."""
    config = ManiqaConfig(64, 8, 32, 2, 64, (0, 2), 1, (16, 8), 16, 1, heads=2, condition=8)
    network = Maniqa(config).eval()
    slices = torch.randn(2, 2, 64, 64), torch.zeros(2, len(LEVELS), dtype=torch.long), torch.ones(2)
    with torch.inference_mode():
        first, second = network(*slices), network(*slices)
    assert first.embedding.shape == (2, 8)
    assert all(torch.equal(one, other) and torch.isfinite(one).all() for one, other in zip(first, second, strict=True))


def test_physics_of_the_header_is_nan_where_it_is_silent(made) -> None:
    stack = made.stack(
        (4, 64, 64), b_value=0.0, magnetic_field_strength_t=3.0, echo_time_ms=np.e, repetition_time_ms=None
    )
    found = physics_of(stack, noise_over_signal=0.1)
    assert found == pytest.approx([np.log(0.1), np.nan, 3.0, 1.0, np.nan, 0.0], nan_ok=True)
