"""MANIQA for slices (Yang et al., arXiv 2204.08958): attention between channels, then between positions, then patches
weighed against each other. In two sizes with the same outputs: one that runs on a processor, and the published layout.

``ManiqaMini`` has a small convolutional encoder and takes 128 x 128 native pixels. ``Maniqa`` has the published ViT-B/8
encoder, attention and head sizes for 224 x 224 pixels and needs a graphics processor; it differs in what it is told
(prompt and pixel size, by FiLM where MedIQA adds them) and in what it says (concepts instead of one score).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ai.quality.concepts import CONCEPTS
from ai.quality.network.blocks import DualBranch, Encoder, PromptEncoder, ScaleSwin, TransposedAttention
from ai.quality.network.inputs import CHANNELS, SIZE
from ai.quality.network.physics import PHYSICS
from ai.quality.prompts import LEVELS

PHYSICS_HIDDEN = 64


class SliceQuality(NamedTuple):
    """What a network says of ``n`` slices.

    Attributes:
        concepts: logits ``[n, concept]`` that the slice is damaged by each concept.
        damage: logits ``[n]`` that it is damaged at all, by whatever.
        physics: ``[n, parameter]``, on the scales of ``ai.quality.network.physics``.
        weights: ``[n, row, column]``, how much each patch counted, 0..1.
        embedding: ``[n, channel]``, the weighted mean of the features.
    """

    concepts: Tensor
    damage: Tensor
    physics: Tensor
    weights: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class ManiqaMiniConfig:
    """Sizes of the small network; the defaults are the ones it is trained with.

    ``channels`` and ``depths`` are the encoder's stages, ``width`` the channels after it, ``scale`` weighs the Swin
    layer's residual.
    """

    channels: tuple[int, int, int] = (24, 48, 96)
    depths: tuple[int, int, int] = (1, 1, 2)
    attention_blocks: int = 1
    width: int = 48
    window: int = 4
    heads: int = 4
    mlp_ratio: float = 2.0
    scale: float = 0.8
    condition: int = 64
    dropout: float = 0.1
    prompt_dropout: float = 0.15


@dataclass(frozen=True)
class ManiqaConfig:
    """Sizes of the published layout (IIGROUP/MANIQA, Apache-2.0); ``taps`` are ViT blocks counted from 0.

    Blocks behind the last tap are not built: the published code runs them and uses nothing of them.
    """

    image_size: int = 224
    patch_size: int = 8
    vit_width: int = 768
    vit_heads: int = 12
    vit_mlp: int = 3072
    taps: tuple[int, ...] = (6, 7, 8, 9)
    attention_blocks: int = 2
    widths: tuple[int, int] = (768, 384)
    mlp_hidden: int = 768
    swin_layers: int = 2
    window: int = 4
    heads: int = 4
    scale: float = 0.8
    condition: int = 64
    dropout: float = 0.1
    prompt_dropout: float = 0.15


class QualityHead(nn.Module):
    """The outputs of both sizes. Physics is read from the encoder alone: behind the prompt it would be given away."""

    def __init__(self, encoder_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.patches = DualBranch(channels, len(CONCEPTS) + 1, dropout)
        self.physics = nn.Sequential(
            nn.Linear(encoder_channels + 1, PHYSICS_HIDDEN), nn.GELU(), nn.Linear(PHYSICS_HIDDEN, len(PHYSICS))
        )

    def forward(self, encoded: Tensor, features: Tensor, pixel_mm: Tensor) -> SliceQuality:
        """Encoder features ``[n, channel]``, final feature map ``[n, row, column, channel]``, pixel sizes ``[n]``."""
        outputs, embedding, weights = self.patches(features)
        physics = self.physics(torch.cat((encoded, torch.log(pixel_mm)[:, None]), dim=1))
        return SliceQuality(outputs[:, :-1], outputs[:, -1], physics, weights, embedding)


class ManiqaMini(nn.Module):
    """The processor's size: half a million parameters, slices of 128 x 128 native pixels."""

    def __init__(self, config: ManiqaMiniConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ManiqaMiniConfig()
        grid = SIZE // Encoder.STRIDES[1]
        self.encoder = Encoder(CHANNELS, config.channels, config.depths)
        self.prompt = PromptEncoder(LEVELS, config.condition, config.prompt_dropout)
        self.channel_attention = _channel_attention(config.attention_blocks, grid, config.dropout)
        self.narrow = nn.Linear(self.encoder.out_channels, config.width)
        self.position_attention = ScaleSwin(
            config.width,
            grid,
            layers=1,
            window=config.window,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            scale=config.scale,
            condition=config.condition,
            dropout=config.dropout,
        )
        self.head = QualityHead(self.encoder.out_channels, config.width, config.dropout)

    def forward(self, pixels: Tensor, prompts: Tensor, pixel_mm: Tensor) -> SliceQuality:
        """Judge slices.

        Args:
            pixels: float32 ``[n, 2, 128, 128]`` of ``ai.quality.network.inputs``.
            prompts: int64 ``[n, field]``, the indices of ``ai.quality.prompts.Prompt``.
            pixel_mm: float32 ``[n]``, pixel size of the input.
        """
        encoded = self.encoder(pixels)
        condition = self.prompt(prompts, pixel_mm)
        features = self.narrow(self.channel_attention(encoded.permute(0, 2, 3, 1)))
        return self.head(encoded.mean(dim=(2, 3)), self.position_attention(features, condition), pixel_mm)


class Maniqa(nn.Module):
    """The published layout: ViT-B/8, its blocks 6 to 9 side by side, two stages of attention."""

    def __init__(self, config: ManiqaConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ManiqaConfig()
        grid = config.image_size // config.patch_size
        self.encoder = TappedViT(config)
        self.prompt = PromptEncoder(LEVELS, config.condition, config.prompt_dropout)
        sources = (config.vit_width * len(config.taps), config.widths[0])
        self.stages = nn.ModuleList(
            MixedAttention(source, width, grid, config) for source, width in zip(sources, config.widths, strict=True)
        )
        self.head = QualityHead(sources[0], config.widths[1], config.dropout)

    def forward(self, pixels: Tensor, prompts: Tensor, pixel_mm: Tensor) -> SliceQuality:
        """As of ``ManiqaMini``, with pixels float32 ``[n, 2, image_size, image_size]``."""
        encoded = self.encoder(pixels)
        condition = self.prompt(prompts, pixel_mm)
        features = encoded
        for stage in self.stages:
            features = stage(features, condition)
        return self.head(encoded.mean(dim=(1, 2)), features, pixel_mm)


class MixedAttention(nn.Module):
    """One stage of the published layout: attention between channels, fewer channels, attention between positions."""

    def __init__(self, source: int, width: int, grid: int, config: ManiqaConfig) -> None:
        super().__init__()
        self.channel_attention = _channel_attention(config.attention_blocks, grid, config.dropout)
        self.narrow = nn.Linear(source, width)
        self.position_attention = ScaleSwin(
            width,
            grid,
            layers=config.swin_layers,
            window=config.window,
            heads=config.heads,
            mlp_ratio=config.mlp_hidden / width,
            scale=config.scale,
            condition=config.condition,
            dropout=config.dropout,
        )

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Feature map of ``source`` channels and condition to a feature map of ``width`` channels."""
        return self.position_attention(self.narrow(self.channel_attention(features)), condition)


class TappedViT(nn.Module):
    """A vision transformer (Dosovitskiy et al., arXiv 2010.11929) whose inner blocks are its features."""

    def __init__(self, config: ManiqaConfig) -> None:
        super().__init__()
        positions = (config.image_size // config.patch_size) ** 2
        self.taps = frozenset(config.taps)
        self.grid = config.image_size // config.patch_size
        self.patches = nn.Conv2d(CHANNELS, config.vit_width, config.patch_size, config.patch_size)
        self.summary = nn.Parameter(torch.zeros(1, 1, config.vit_width))
        self.places = nn.Parameter(torch.empty(1, positions + 1, config.vit_width))
        nn.init.trunc_normal_(self.places, std=0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.vit_width,
                config.vit_heads,
                config.vit_mlp,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(max(config.taps) + 1)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, channel, row, column]`` to the tapped blocks' outputs side by side, ``[n, row, column, channel]``."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.summary.expand(len(patches), -1, -1), patches), dim=1) + self.places
        tapped = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.taps:
                tapped.append(tokens[:, 1:])
        return torch.cat(tapped, dim=-1).unflatten(1, (self.grid, self.grid))


def _channel_attention(blocks: int, grid: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(*(TransposedAttention(grid * grid, dropout) for _ in range(blocks)))


def parameter_count(modules: nn.Module | Sequence[nn.Module]) -> int:
    """Number of trainable values."""
    parts = [modules] if isinstance(modules, nn.Module) else modules
    return sum(parameter.numel() for part in parts for parameter in part.parameters())
