"""motif3d_rif: convolutions beside rotation-invariant features (RIF), tomotif's default classifier.

Convolutions learn what a particle looks like from each side, and to look at the middle of a crowded box; the power of
spherical harmonics on shells knows from the beginning that a turned particle is the same one, but not what is particle
and what neighbour.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.motif3d import WIDTH, convolutions
from tomotif.models.registry import register
from tomotif.models.spherical_power import SphericalPower


class BesidePower(nn.Module):
    """A network of convolutions and one of rotation-invariant features, and a linear layer on both.

    Parameters
    ----------
    body
        Convolutions: takes boxes (n, 1, d, d, d) to (n, width).
    width
        Of that, and of what comes of the features.
    box_px, n_classes
        Edge of a box in voxels, number of classes.
    """

    def __init__(self, body: nn.Module, width: int, box_px: int, n_classes: int) -> None:
        super().__init__()
        self.convolutions = body
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
    return BesidePower(convolutions(box_px), WIDTH, box_px, n_classes)
