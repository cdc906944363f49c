"""Inception3D, literally: one wide convolution, one inception block.

Xu, Chai, Muthakana, Liang, Yang, Zeev-Ben-Mordehai, Xing 2017, Bioinformatics 33:i13; the block is that of
Szegedy et al. 2015, CVPR.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.registry import register
from tomotif.models.start import start_as_glorot


def activated(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    """Convolution of the same size, ReLU."""
    return nn.Sequential(nn.Conv3d(channels_in, channels_out, kernel, padding=kernel // 2), nn.ReLU())


class Inception(nn.Module):
    """Four branches side by side, their channels concatenated: 32 → 160."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                activated(32, 32, 1),
                nn.Sequential(activated(32, 32, 1), activated(32, 64, 3)),
                nn.Sequential(activated(32, 16, 1), activated(16, 32, 5)),
                nn.Sequential(nn.ConstantPad3d((0, 1) * 3, 0.0), nn.MaxPool3d(2, 1), activated(32, 32, 1)),
            ]
        )

    def forward(self, x: Float[Tensor, "n 32 d d d"]) -> Float[Tensor, "n 160 d d d"]:
        """Run all branches."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@register("inception3d", source="Xu et al. 2017, Bioinformatics 33:i13", box_multiple=4)
def inception3d(box_px: int, n_classes: int) -> nn.Module:
    """Build Inception3D; it pools its channels by overlapping windows and ends in one linear layer."""
    return nn.Sequential(
        nn.Conv3d(1, 32, 5),
        nn.ReLU(),
        nn.MaxPool3d(2),
        Inception(),
        nn.AvgPool3d(2, 1),
        nn.Flatten(),
        nn.Dropout(0.7),
        nn.Linear(160 * ((box_px - 4) // 2 - 1) ** 3, n_classes),
    ).apply(start_as_glorot)
