"""Which sequence an image shows, from its pixels alone: asked where the header is silent, and to check it.

It sees neither prompt nor pixel size, so that it is a second opinion and no echo of the header.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ai.quality.network.blocks import Encoder
from ai.quality.network.inputs import CHANNELS, NetworkInput
from ai.quality.prompts import Family, FamilyGuess

FAMILIES: tuple[Family, ...] = tuple(family for family in Family if family is not Family.UNKNOWN)
"""The classes, in the order of the outputs."""

MINIMUM_PROBABILITY = 0.9
"""Below it the classifier abstains: a wrong word in the prompt costs more than none."""


@dataclass(frozen=True)
class FamilyClassifierConfig:
    """Channels and depths of the encoder's stages."""

    channels: tuple[int, int, int] = (16, 32, 48)
    depths: tuple[int, int, int] = (1, 1, 1)


class FamilyClassifier(nn.Module):
    """The encoder of the quality network with few channels, averaged over the slice."""

    def __init__(self, config: FamilyClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FamilyClassifierConfig()
        self.encoder = Encoder(CHANNELS, config.channels, config.depths)
        self.norm = nn.LayerNorm(self.encoder.out_channels)
        self.classes = nn.Linear(self.encoder.out_channels, len(FAMILIES))

    def forward(self, pixels: Tensor) -> Tensor:
        """Slices float32 ``[n, 2, 128, 128]`` to logits ``[n, family]``."""
        return self.classes(self.norm(self.encoder(pixels).mean(dim=(2, 3))))


def decide(logits: Tensor) -> FamilyGuess | None:
    """The family of a series from the logits ``[slice, family]`` of its slices, or None below MINIMUM_PROBABILITY.

    Log probabilities are averaged, not added: slices of one series err together.
    """
    probabilities = torch.softmax(torch.log_softmax(logits, dim=1).mean(dim=0), dim=0)
    best = int(probabilities.argmax())
    probability = float(probabilities[best])
    return FamilyGuess(FAMILIES[best], probability) if probability >= MINIMUM_PROBABILITY else None


def guess_family(classifier: FamilyClassifier, slices: NetworkInput) -> FamilyGuess | None:
    """The family that the slices of one series show, or None where the classifier abstains."""
    with torch.inference_mode():
        return decide(classifier(torch.from_numpy(slices.pixels)))
