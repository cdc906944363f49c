"""motif3d: tomotif's fast classifier.

Memory traffic at full resolution, not arithmetic, decides the speed of a 3-D network on a CPU. So the box is folded
into 8 channels at half resolution (space to depth) before the first convolution, and most of the arithmetic is done on
a quarter and an eighth of the edge with many channels. In a crowded box the answer lies in the middle: each channel has
learned weights of its own for the places of the last map, instead of an average over the neighbours as well. Residual
blocks: He et al. 2016, CVPR; space to depth: Shi et al. 2016, CVPR.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.registry import register


class SpaceToDepth(nn.Module):
    """Fold every 2³ voxels into 8 channels."""

    def forward(self, x: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n 8 e e e"]:
        """Give the eight half-resolution volumes of a volume."""
        half = x.shape[2] // 2
        folded = x.reshape(-1, half, 2, half, 2, half, 2)
        return folded.permute(0, 2, 4, 6, 1, 3, 5).reshape(-1, 8, half, half, half)


def convolution(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    """3³ convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(channels_out),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, channels),
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(channels),
        )
        self.activation = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c d d d"]) -> Float[Tensor, "n c d d d"]:
        """Add what the two convolutions find to what came in."""
        return self.activation(x + self.body(x))


class WeightedPool(nn.Module):
    """One number a channel: the sum over places with learned weights, which start as those of an average."""

    def __init__(self, channels: int, edge: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, edge, edge, edge), 1 / edge**3))
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Float[Tensor, "n c e e e"]) -> Float[Tensor, "n c"]:
        """Weigh, add up and normalise."""
        pooled: Tensor = self.norm((x * self.weight).sum((2, 3, 4)))
        return pooled


WIDTH = 96
"""Of what the convolutions make of a box."""


def convolutions(box_px: int) -> nn.Sequential:
    """From a box to a vector of ``WIDTH`` values."""
    return nn.Sequential(
        SpaceToDepth(),
        convolution(8, 32),
        convolution(32, 48, stride=2),
        Residual(48),
        convolution(48, WIDTH, stride=2),
        Residual(WIDTH),
        WeightedPool(WIDTH, box_px // 8),
    )


@register("motif3d", source="tomotif", box_multiple=8)
def motif3d(box_px: int, n_classes: int) -> nn.Module:
    """Build the classifier of convolutions alone; it takes any box that is a multiple of 8 voxels."""
    return nn.Sequential(*convolutions(box_px), nn.Dropout(0.2), nn.Linear(WIDTH, n_classes))
