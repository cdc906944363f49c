"""motif3d_rif: convolutions beside rotation-invariant features (RIF), tomotif's default classifier.

Convolutions learn what a particle looks like from each side, and to look at the middle of a crowded box; the power of
spherical harmonics on shells knows from the beginning that a turned particle is the same one, but not what is particle
and what neighbour. Each is about as good as the other alone, and both together much better.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.motif3d import Residual, SpaceToDepth, WeightedPool, convolution
from tomotif.models.registry import register
from tomotif.models.spherical_power import SphericalPower


class BesidePower(nn.Module):
    """A network of convolutions and one of rotation-invariant features, and a linear layer on both.

    Parameters
    ----------
    convolutions
        Takes boxes (n, 1, d, d, d) to (n, width).
    width
        Of that, and of what comes of the features.
    box_px, n_classes
        Edge of a box in voxels, number of classes.
    """

    def __init__(self, convolutions: nn.Module, width: int, box_px: int, n_classes: int) -> None:
        super().__init__()
        self.convolutions = convolutions
        power = SphericalPower(box_px)
        self.invariants = nn.Sequential(
            power,
            nn.BatchNorm1d(power.features),
            nn.Linear(power.features, 2 * width, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(2 * width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width, n_classes))

    def forward(self, x: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n c"]:
        """Logits."""
        logits: Tensor = self.head(torch.cat([self.convolutions(x), self.invariants(x)], dim=1))
        return logits


@register("motif3d_rif", source="tomotif", box_multiple=8)
def motif3d_rif(box_px: int, n_classes: int) -> nn.Module:
    """Build the default classifier; it takes any box that is a multiple of 8 voxels."""
    convolutions = nn.Sequential(
        SpaceToDepth(),
        convolution(8, 32),
        convolution(32, 48, stride=2),
        Residual(48),
        convolution(48, 96, stride=2),
        Residual(96),
        WeightedPool(96, box_px // 8),
    )
    return BesidePower(convolutions, 96, box_px, n_classes)
