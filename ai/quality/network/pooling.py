"""One score for a series from the scores of its slices: a learned average, held down by the worst slice.

An average alone hides the one ruined slice behind which a lesion lies; a minimum alone condemns a series for its first
slice. The series score is ``(1 - m) * attention mean + m * soft minimum`` with a learned mixture ``m``. Attention looks
at the features of the slices and never at their scores, so the result rises with every score.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

SOFTNESS = 0.05
"""Scale of the soft minimum in units of the score: one ruined slice of seven lies 0.1 above the true minimum."""


@dataclass(frozen=True)
class SeriesPoolingConfig:
    """``channels`` of a slice's features, ``hidden`` of the attention."""

    channels: int = 64
    hidden: int = 32


class SeriesScore(NamedTuple):
    """Score of each series ``[series]`` and the attention its slices had ``[series, slice]``, which sums to 1."""

    score: Tensor
    attention: Tensor


class SeriesPooling(nn.Module):
    """Attention-weighted mean (Ilse et al., arXiv 1802.04712) and soft minimum, mixed."""

    def __init__(self, config: SeriesPoolingConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SeriesPoolingConfig()
        self.attention = nn.Sequential(
            nn.LayerNorm(config.channels),
            nn.Linear(config.channels, config.hidden),
            nn.Tanh(),
            nn.Linear(config.hidden, 1),
        )
        self.mixture = nn.Parameter(torch.zeros(()))

    def forward(self, scores: Tensor, features: Tensor, present: Tensor | None = None) -> SeriesScore:
        """Pool slices.

        Args:
            scores: ``[series, slice]``, 0 (worst) to 1 (best).
            features: ``[series, slice, channel]``.
            present: bool ``[series, slice]``, False where a series has fewer slices; at least one per series is True.
        """
        if present is None:
            present = torch.ones_like(scores, dtype=torch.bool)
        attention = torch.softmax(self.attention(features)[..., 0].masked_fill(~present, -torch.inf), dim=1)
        # What fills absent places must not reach the result, not even as 0 x NaN.
        mean = (attention * scores.masked_fill(~present, 0.0)).sum(dim=1)
        mixture = torch.sigmoid(self.mixture)
        return SeriesScore((1.0 - mixture) * mean + mixture * soft_minimum(scores, present), attention)


def soft_minimum(scores: Tensor, present: Tensor) -> Tensor:
    """``-t log mean exp(-score / t)`` of the present slices, ``[series]``: from minimum to mean, rising in each."""
    exponents = (-scores / SOFTNESS).masked_fill(~present, -torch.inf)
    count = present.sum(dim=1).to(scores.dtype)
    return -SOFTNESS * (torch.logsumexp(exponents, dim=1) - torch.log(count))
