"""The building blocks of the quality networks. Feature maps are ``[n, row, column, channel]`` unless said otherwise.

None keeps statistics of a batch: what a slice is given never depends on the slices beside it.
"""

from collections.abc import Sequence

import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask
from torch import Tensor, nn
from torch.nn import functional


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7 convolution, then a two-layer perceptron per position (Liu et al., arXiv 2201.03545)."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """``[n, channel, row, column]`` to the same shape."""
        positions = self.norm(self.spatial(features).permute(0, 2, 3, 1))
        change = self.project(functional.gelu(self.expand(positions)))
        return features + change.permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """Three stages of ConvNeXt blocks at strides 4, 8 and 16; the outputs of the last two are its features.

    Patches are cut without overlap, so that the first layer can keep every frequency of a patch.
    """

    STRIDES = (4, 8, 16)

    def __init__(self, in_channels: int, channels: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        sources = (in_channels, *channels[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(source, width, stride, stride),
                nn.GroupNorm(1, width),
                *(ConvNeXtBlock(width) for _ in range(depth)),
            )
            for source, width, depth, stride in zip(sources, channels, depths, (4, 2, 2), strict=True)
        )
        self.out_channels = sum(channels[1:])

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, channel, row, column]`` to ``[n, out_channels, row / 8, column / 8]``, coarse features repeated."""
        fine = self.stages[1](self.stages[0](pixels))
        coarse = functional.interpolate(self.stages[2](fine), scale_factor=2.0, mode="nearest")
        return torch.cat((fine, coarse), dim=1)


class TransposedAttention(nn.Module):
    """Attention between channels, each described by all its positions (the TAB of MANIQA, arXiv 2204.08958).

    Query, key and value are linear maps over the positions; one head, no projection. The published code reshapes the
    result without undoing the transposition and so mixes channels with positions; this one does not.
    """

    def __init__(self, positions: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(positions, positions)
        self.key = nn.Linear(positions, positions)
        self.value = nn.Linear(positions, positions)
        self.dropout = nn.Dropout(dropout)
        self.scale = positions**-0.5

    def forward(self, features: Tensor) -> Tensor:
        """Feature map to the same shape."""
        rows, columns = features.shape[1:3]
        channels = features.flatten(1, 2).transpose(1, 2)
        attention = torch.softmax(self.query(channels) @ self.key(channels).transpose(1, 2) * self.scale, dim=-1)
        attended = channels + self.dropout(attention @ self.value(channels))
        return attended.transpose(1, 2).unflatten(1, (rows, columns))


class PromptEncoder(nn.Module):
    """A prompt and the pixel size as one vector: the sum of an embedding per field, then a perceptron.

    In training each field is forgotten (becomes level 0, unknown) with probability ``dropout``, so that the network
    works without a prompt and trusts none blindly.
    """

    def __init__(self, levels: Sequence[int], width: int, dropout: float) -> None:
        super().__init__()
        self.fields = nn.ModuleList(nn.Embedding(count, width) for count in levels)
        self.pixel_size = nn.Linear(1, width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.dropout = dropout

    def forward(self, prompts: Tensor, pixel_mm: Tensor) -> Tensor:
        """Levels int64 ``[n, field]`` and pixel sizes float32 ``[n]`` to ``[n, width]``."""
        if self.training and self.dropout > 0:
            prompts = prompts * (torch.rand(prompts.shape, device=prompts.device) >= self.dropout)
        told = self.pixel_size(torch.log(pixel_mm)[:, None])
        for index, field in enumerate(self.fields):
            told = told + field(prompts[:, index])
        return self.mix(told)


class FiLM(nn.Module):
    """Feature-wise scale and shift by a condition (Perez et al., arXiv 1709.07871); the identity before training."""

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Feature map and condition ``[n, condition]`` to a feature map of the same shape."""
        scale, shift = self.modulation(condition)[:, None, None, :].chunk(2, dim=-1)
        return features * (1.0 + scale) + shift


class SwinLayer(nn.Module):
    """Two Swin blocks, the second with shifted windows, the prompt, then a 3 x 3 convolution and ReLU."""

    def __init__(
        self, channels: int, grid: int, window: int, heads: int, mlp_ratio: float, condition: int, drop_path: float
    ) -> None:
        super().__init__()
        windows, shift = (window, window), (window // 2, window // 2)
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(channels, heads, windows, offset, mlp_ratio, drop_path=rate)
            for offset, rate in (((0, 0), 0.0), (shift, drop_path))
        )
        self.film = FiLM(condition, channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.register_buffer("mask", compute_mask((grid, grid), windows, shift, None), persistent=False)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Feature map and condition to a feature map of the same shape."""
        for block in self.blocks:
            features = block(features, self.mask)
        conditioned = self.film(features, condition).permute(0, 3, 1, 2)
        return torch.relu(self.convolution(conditioned)).permute(0, 2, 3, 1)


class ScaleSwin(nn.Module):
    """Swin layers as scaled residuals, ``x + scale * layer(x)`` (the SSTB of MANIQA), conditioned by the prompt."""

    def __init__(
        self,
        channels: int,
        grid: int,
        *,
        layers: int,
        window: int,
        heads: int,
        mlp_ratio: float,
        scale: float,
        condition: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        rates = torch.linspace(0.0, dropout, layers + 1, device="cpu").tolist()[1:]
        self.layers = nn.ModuleList(
            SwinLayer(channels, grid, window, heads, mlp_ratio, condition, rate) for rate in rates
        )
        self.scale = scale

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Feature map and condition to a feature map of the same shape."""
        features = self.dropout(features)
        for layer in self.layers:
            features = features + self.scale * layer(features, condition)
        return features


class DualBranch(nn.Module):
    """Per patch some outputs and one weight; a slice has the weighted mean of its patches (MANIQA's two branches)."""

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.value = _perceptron(channels, channels, outputs, dropout)
        self.weight = _perceptron(channels, channels, 1, dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature map to outputs ``[n, output]``, weighted mean features ``[n, channel]``, weights ``[n, row, column]``
        (0..1)."""
        weights = torch.sigmoid(self.weight(features))
        total = weights.sum(dim=(1, 2)).clamp_min(1e-6)
        outputs = (weights * self.value(features)).sum(dim=(1, 2)) / total
        pooled = (weights * features).sum(dim=(1, 2)) / total
        return outputs, pooled, weights[..., 0]


def _perceptron(channels: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
