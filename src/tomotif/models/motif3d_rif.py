"""motif3d_rif: convolutions beside rotation-invariant features (RIF), tomotif's default classifier.

Convolutions learn what a particle looks like from each side, and to look at the middle of a crowded box; the power of
spherical harmonics on shells knows from the beginning that a turned particle is the same one, but not what is particle
and what neighbour, nor where its centre lies.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.motif3d import WIDTH, convolutions
from tomotif.models.registry import register
from tomotif.models.spherical_power import Offset, SphericalPower

_SIDES: tuple[Offset, ...] = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
_CORNERS: tuple[Offset, ...] = tuple((z, y, x) for z, y, x in product((-1, 1), repeat=3))
CENTRES = ((0, 0, 0), *_SIDES, *_CORNERS)
"""Where the particle's own centre may lie, in voxels from the middle of the box."""


class BesidePower(nn.Module):
    """A network of convolutions and one of rotation-invariant features, and a linear layer on both.

    The power on shells about a wrong centre says little, and picks are a voxel or two off. So it is taken about several
    centres, and what the convolutions found decides how much each of them counts.

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
        self.power = SphericalPower(box_px, centres=CENTRES)
        self.invariants = nn.Sequential(
            nn.BatchNorm1d(self.power.features),
            nn.Linear(self.power.features, 2 * width, bias=False),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(2 * width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.where = nn.Linear(width, len(CENTRES))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width, n_classes))

    def forward(self, x: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n c"]:
        """Logits."""
        seen = self.convolutions(x)
        about = self.invariants(self.power(x).flatten(0, 1)).unflatten(0, (-1, len(CENTRES)))
        weight = self.where(seen).softmax(dim=1)
        logits: Tensor = self.head(torch.cat([seen, (weight[:, :, None] * about).sum(dim=1)], dim=1))
        return logits


@register("motif3d_rif", source="tomotif", box_multiple=8)
def motif3d_rif(box_px: int, n_classes: int) -> nn.Module:
    """Build the default classifier; it takes any box that is a multiple of 8 voxels."""
    return BesidePower(convolutions(box_px), WIDTH, box_px, n_classes)
