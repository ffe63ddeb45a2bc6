"""Familiarity: each step lowers its own loss, a score is of its slice alone, and it comes to know what it was shown."""

import copy

import pytest
import torch

from ai.quality.network.adversarial import (
    Familiarity,
    autoencoder_loss,
    discriminator_loss,
    draw_noise,
    training_step,
)
from ai.quality.network.maniqa import parameter_count


@pytest.fixture
def model() -> Familiarity:
    return Familiarity()


def slices(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth texture."""
    noise = torch.randn(count, 2, 128, 128, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 9, 1, 4) * 9.0


def optimisers(model: Familiarity, rate: float) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    parts = (model.discriminator, model.autoencoder)
    discriminator, autoencoder = (torch.optim.Adam(part.parameters(), rate, betas=(0.5, 0.999)) for part in parts)
    return discriminator, autoencoder


def test_it_is_small(model: Familiarity) -> None:
    assert parameter_count(model) < 1_000_000


def test_patches_are_the_fixed_grid_of_every_slice(model: Familiarity) -> None:
    pixels = slices(2)
    patches = model.patches(pixels)
    assert patches.shape == (18, 2, 64, 64)
    assert torch.equal(patches[9 + 5], pixels[1, :, 32:96, 64:128])


@pytest.mark.parametrize("loss_of", [discriminator_loss, autoencoder_loss])
def test_a_step_lowers_its_loss(model: Familiarity, loss_of) -> None:
    patches = model.patches(slices(2))
    noise = draw_noise(len(patches), model.config.latent, torch.Generator().manual_seed(1))
    part = model.discriminator if loss_of is discriminator_loss else model.autoencoder
    before = loss_of(model, patches, noise)
    before.backward()
    torch.optim.SGD(part.parameters(), 1e-3).step()
    with torch.no_grad():
        assert loss_of(model, patches, noise) < before


def test_a_training_step_updates_both_parts_and_is_repeatable(model: Familiarity) -> None:
    untouched, twin = copy.deepcopy(model), copy.deepcopy(model)
    found = [
        training_step(one, optimisers(one, 1e-3), slices(2), torch.Generator().manual_seed(5)) for one in (model, twin)
    ]
    assert found[0] == found[1]
    for part in ("discriminator", "autoencoder"):
        moved, repeated, before = (
            torch.nn.utils.parameters_to_vector(getattr(one, part).parameters()) for one in (model, twin, untouched)
        )
        assert torch.equal(moved, repeated)
        assert not torch.equal(moved, before)


def test_a_score_does_not_depend_on_the_batch(model: Familiarity) -> None:
    pixels = slices(4)
    with torch.inference_mode():
        together, alone = model(pixels), torch.cat([model(one[None]) for one in pixels])
        among_others = model(torch.cat((pixels[:1], 50.0 * slices(3, seed=9))))[:1]
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together[:1], among_others, atol=1e-6)
    assert ((together > 0) & (together < 1)).all()


@pytest.mark.slow
def test_it_comes_to_know_the_texture_it_was_shown(model: Familiarity) -> None:
    pair = optimisers(model, 1e-3)
    generator = torch.Generator().manual_seed(2)
    for step in range(10):
        training_step(model, pair, slices(2, seed=step), generator)
    foreign = torch.randn(4, 2, 128, 128, generator=torch.Generator().manual_seed(77))
    with torch.inference_mode():
        assert float(model(slices(4, seed=500)).min()) > float(model(foreign).max())
