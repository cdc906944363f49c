"""RB3D: four blocks that concatenate a shortcut with a bottleneck. The literal network, and one with a light head.

Che et al. 2018, arXiv 1707.04885. Nearly all of its 263 million parameters lie between the last block and the first
hidden layer; ``rb3d_gap`` puts a global average there, and normalises batches.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.dsrf3d import hidden_layers
from tomotif.models.registry import register
from tomotif.models.start import start_as_glorot


def convolution(channels_in: int, channels_out: int, kernel: int, *, normalised: bool) -> nn.Sequential:
    """Convolution of the same size, perhaps batch normalisation."""
    layers = [nn.Conv3d(channels_in, channels_out, kernel, padding=kernel // 2)]
    return nn.Sequential(*layers, *([nn.BatchNorm3d(channels_out)] if normalised else []))


class Block(nn.Module):
    """A 3³ convolution beside a bottleneck, concatenated: 32 → 16 + 16 channels."""

    def __init__(self, *, normalised: bool) -> None:
        super().__init__()
        self.shortcut = convolution(32, 16, 3, normalised=normalised)
        self.main = nn.Sequential(
            *convolution(32, 16, 1, normalised=normalised),
            nn.ReLU(),
            *convolution(16, 32, 3, normalised=normalised),
            nn.ReLU(),
            *convolution(32, 16, 1, normalised=normalised),
            nn.Dropout(0.7),
        )

    def forward(self, x: Float[Tensor, "n 32 d d d"]) -> Float[Tensor, "n 32 d d d"]:
        """Run both paths; the shortcut's own ReLU is that of the whole."""
        return torch.relu(torch.cat([self.shortcut(x), self.main(x)], dim=1))


def trunk(*, normalised: bool = False) -> nn.Sequential:
    """All but the head: (n, 1, d, d, d) → (n, 32, d/2, d/2, d/2)."""
    blocks = [Block(normalised=normalised) for _ in range(4)]
    return nn.Sequential(*convolution(1, 32, 3, normalised=normalised), nn.ReLU(), nn.MaxPool3d(2), *blocks)


@register("rb3d", source="Che et al. 2018, arXiv 1707.04885", box_multiple=2)
def rb3d(box_px: int, n_classes: int) -> nn.Module:
    """Build RB3D with its two hidden layers of 1024."""
    literal = nn.Sequential(trunk(), hidden_layers(32 * (box_px // 2) ** 3, 1024, n_classes, dropout=0.5))
    return literal.apply(start_as_glorot)


@register("rb3d_gap", source="Che et al. 2018, arXiv 1707.04885; the head is tomotif's", box_multiple=2)
def rb3d_gap(box_px: int, n_classes: int) -> nn.Module:
    """Build RB3D with batch normalisation, a global average and one linear layer."""
    return nn.Sequential(trunk(normalised=True), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, n_classes))
