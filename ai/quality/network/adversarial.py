"""How familiar a slice's texture is: a discriminator that knows images of the trained kind from imitations.

AdverX-Ray (arXiv 2502.16610) trains a variational autoencoder and a discriminator on patches; the discriminator's mean
output over patches tells images of another machine. Three changes make the score a function of the slice alone: group
instead of batch normalisation, a fixed grid of patches instead of random ones, and noise drawn from a generator that is
handed in. An unfamiliar image is out of scope, which is not the same as bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ai.quality.network.inputs import CHANNELS

NORM_GROUPS = 8


@dataclass(frozen=True)
class FamiliarityConfig:
    """``channels`` of the stride-2 stages, ``latent`` size, ``patch`` size and ``stride`` of the patch grid in pixels,
    weights of the Kullback-Leibler divergence and of the adversarial loss in the autoencoder's loss."""

    channels: tuple[int, ...] = (16, 32, 64, 96)
    latent: int = 64
    patch: int = 64
    stride: int = 32
    divergence_weight: float = 1e-4
    adversarial_weight: float = 1e-2


class Noise(NamedTuple):
    """Standard normal numbers of one training step: for the posterior and for samples of the prior, ``[n, latent]``."""

    posterior: Tensor
    prior: Tensor


class StepLosses(NamedTuple):
    """Losses of one training step, each before its update."""

    discriminator: float
    autoencoder: float


class Autoencoder(nn.Module):
    """Variational autoencoder of patches (Kingma and Welling, arXiv 1312.6114)."""

    def __init__(self, config: FamiliarityConfig) -> None:
        super().__init__()
        self.smallest = config.patch // 2 ** len(config.channels)
        flat = config.channels[-1] * self.smallest**2
        self.encoder = _contracting(config.channels)
        self.posterior = nn.Linear(flat, 2 * config.latent)
        self.expand = nn.Linear(config.latent, flat)
        self.decoder = _expanding(config.channels[::-1])

    def encode(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches to mean and log variance of the posterior, ``[n, latent]`` each."""
        mean, log_variance = self.posterior(self.encoder(patches).flatten(1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)

    def decode(self, latent: Tensor) -> Tensor:
        """``[n, latent]`` to patches."""
        return self.decoder(self.expand(latent).unflatten(1, (-1, self.smallest, self.smallest)))


class Familiarity(nn.Module):
    """A discriminator, and the autoencoder that trains it and is needed for nothing else."""

    def __init__(self, config: FamiliarityConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FamiliarityConfig()
        self.autoencoder = Autoencoder(config)
        smallest = config.patch // 2 ** len(config.channels)
        self.discriminator = nn.Sequential(
            _contracting(config.channels), nn.Flatten(), nn.Linear(config.channels[-1] * smallest**2, 1)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Slices ``[n, channel, row, column]`` to familiarity ``[n]``, 0 (foreign) to 1."""
        patches = self.patches(pixels)
        return torch.sigmoid(self.discriminator(patches)).view(len(pixels), -1).mean(dim=1)

    def patches(self, pixels: Tensor) -> Tensor:
        """The grid of overlapping patches of every slice, ``[n * patches, channel, patch, patch]``."""
        size, stride = self.config.patch, self.config.stride
        grid = pixels.unfold(2, size, stride).unfold(3, size, stride)
        return grid.permute(0, 2, 3, 1, 4, 5).reshape(-1, CHANNELS, size, size)


def discriminator_loss(model: Familiarity, patches: Tensor, noise: Noise) -> Tensor:
    """Cross entropy of telling real patches from reconstructions and samples, which share the weight of one class."""
    with torch.no_grad():
        reconstructed, sampled, _, _ = _imitate(model.autoencoder, patches, noise)
    real = _cross_entropy(model.discriminator(patches), 1.0)
    fakes = [_cross_entropy(model.discriminator(fake), 0.0) for fake in (reconstructed, sampled)]
    return real + 0.5 * (fakes[0] + fakes[1])


def autoencoder_loss(model: Familiarity, patches: Tensor, noise: Noise) -> Tensor:
    """Squared error + divergence from the prior + how far the discriminator sees through its imitations."""
    reconstructed, sampled, mean, log_variance = _imitate(model.autoencoder, patches, noise)
    divergence = -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp()).sum(dim=1).mean()
    seen_through = [_cross_entropy(model.discriminator(fake), 1.0) for fake in (reconstructed, sampled)]
    return (
        functional.mse_loss(reconstructed, patches)
        + model.config.divergence_weight * divergence
        + model.config.adversarial_weight * 0.5 * (seen_through[0] + seen_through[1])
    )


def draw_noise(count: int, latent: int, generator: torch.Generator) -> Noise:
    """The random numbers of one step on ``count`` patches."""
    return Noise(*torch.randn(2, count, latent, generator=generator, device=generator.device))


def training_step(
    model: Familiarity, optimisers: tuple[Optimizer, Optimizer], slices: Tensor, generator: torch.Generator
) -> StepLosses:
    """One update of the discriminator, then one of the autoencoder, on slices ``[n, channel, row, column]``.

    ``optimisers`` hold the parameters of ``model.discriminator`` and of ``model.autoencoder``, in this order.
    """
    patches = model.patches(slices)
    noise = draw_noise(len(patches), model.config.latent, generator)
    losses = []
    for loss_of, optimiser in zip((discriminator_loss, autoencoder_loss), optimisers, strict=True):
        loss = loss_of(model, patches, noise)
        # The autoencoder's loss leaves gradients in the discriminator too: all are cleared, one part is updated.
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return StepLosses(*losses)


def _imitate(autoencoder: Autoencoder, patches: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reconstructions, samples, and mean and log variance of the posterior."""
    mean, log_variance = autoencoder.encode(patches)
    reconstructed = autoencoder.decode(mean + noise.posterior * torch.exp(0.5 * log_variance))
    return reconstructed, autoencoder.decode(noise.prior), mean, log_variance


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _contracting(channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source, width in zip((CHANNELS, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(source, width, 4, 2, 1), nn.GroupNorm(NORM_GROUPS, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def _expanding(channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source, width in pairwise(channels):
        layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(source, width, 3, padding=1)]
        layers += [nn.GroupNorm(NORM_GROUPS, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Upsample(scale_factor=2.0), nn.Conv2d(channels[-1], CHANNELS, 3, padding=1))
