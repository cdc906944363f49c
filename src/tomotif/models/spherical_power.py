"""Rotation-invariant features as a layer: the power of each degree of the spherical harmonics on shells of a box.

Kazhdan, Funkhouser, Rusinkiewicz 2003, Symposium on Geometry Processing, 156; see ``ops.rotation_invariant``. What a
convolution must learn from many poses, that a turned particle is the same particle, holds here from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.ops.rotation_invariant import harmonics

DEGREES = 6
"""Number of degrees, from 0; higher ones of complexes at 12 Å are mostly noise, and cost most."""
_FLOOR = 1e-6
Offset = tuple[int, int, int]


class SphericalPower(nn.Module):
    """Root of the power of each degree on shells a voxel apart, from radius 1 to 3/8 of the box's edge.

    The outer shells of a crowded box are full of neighbours, and cost most. The harmonics follow from the box's edge,
    so they are no part of what is saved.

    Parameters
    ----------
    box_px
        Edge of a box in voxels.
    degrees
        Number of degrees of the spherical harmonics, from 0.
    centres
        Of the shells, in whole voxels zyx from the middle.
    """

    def __init__(self, box_px: int, degrees: int = DEGREES, centres: Sequence[Offset] = ((0, 0, 0),)) -> None:
        super().__init__()
        self.shells, self.centres = 3 * box_px // 8, len(centres)
        self.features = self.shells * degrees
        shape, every = (box_px,) * 3, harmonics(box_px, degrees)
        for shell in range(self.shells):
            rows = every[shell * degrees**2 : (shell + 1) * degrees**2].tocsc()
            voxels = np.flatnonzero(np.diff(rows.indptr))  # those that a shell runs through
            places = np.stack(np.unravel_index(voxels, shape)) + np.array(centres)[:, :, None]
            about = np.ravel_multi_index(tuple(places.swapaxes(0, 1)), shape, mode="clip")
            self.register_buffer(f"voxels{shell}", torch.tensor(about.ravel()), persistent=False)
            values = torch.tensor(rows[:, voxels].toarray())
            self.register_buffer(f"harmonics{shell}", values, persistent=False)
        degree_of = np.repeat(np.arange(degrees), 2 * np.arange(degrees) + 1)
        self.register_buffer("sums", torch.eye(degrees)[:, torch.tensor(degree_of)], persistent=False)

    def forward(self, x: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n k f"]:
        """Features about each centre: shell by shell, in each degree by degree."""
        # Boxes side by side: a voxel of all of them is one read. OpenVINO transposes three axes faster than two.
        voxels, power = x.flatten(1)[None].transpose(1, 2).contiguous()[0], []
        for shell in range(self.shells):
            on_shell = voxels[self.get_buffer(f"voxels{shell}")].unflatten(0, (self.centres, -1))
            power.append(self.get_buffer("sums") @ (self.get_buffer(f"harmonics{shell}") @ on_shell) ** 2)
        return torch.sqrt(torch.cat(power, 1) + _FLOOR).permute(2, 0, 1)
