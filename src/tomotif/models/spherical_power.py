"""Rotation-invariant features as a layer: the power of each degree of the spherical harmonics on shells of a box.

Kazhdan, Funkhouser, Rusinkiewicz 2003, Symposium on Geometry Processing, 156; see ``ops.rotation_invariant``. What a
convolution must learn from many poses, that a turned particle is the same particle, holds here from the beginning.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tomotif.ops.rotation_invariant import harmonics

DEGREES = 8
"""Number of degrees, from 0; higher ones of complexes at 12 Å are mostly noise, and cost most."""
_FLOOR = 1e-6


class SphericalPower(nn.Module):
    """Root of the power of each degree on each shell, a voxel apart, from radius 1 to d // 2 - 1.

    The harmonics follow from the box's edge, so they are no part of what is saved.

    Parameters
    ----------
    box_px
        Edge of a box in voxels.
    degrees
        Number of degrees of the spherical harmonics, from 0.
    """

    def __init__(self, box_px: int, degrees: int = DEGREES) -> None:
        super().__init__()
        self.shells, self.features = box_px // 2 - 1, (box_px // 2 - 1) * degrees
        every = harmonics(box_px, degrees)
        for shell in range(self.shells):
            rows = every[shell * degrees**2 : (shell + 1) * degrees**2].tocsc()
            voxels = np.flatnonzero(np.diff(rows.indptr))  # those that a shell runs through
            self.register_buffer(f"voxels{shell}", torch.tensor(voxels), persistent=False)
            values = torch.tensor(rows[:, voxels].toarray().T)
            self.register_buffer(f"harmonics{shell}", values, persistent=False)
        degree_of = np.repeat(np.arange(degrees), 2 * np.arange(degrees) + 1)
        self.register_buffer("sums", torch.eye(degrees)[torch.tensor(degree_of)], persistent=False)

    def forward(self, x: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n f"]:
        """Features shell by shell, in each degree by degree."""
        voxels, power = x.flatten(1), []
        for shell in range(self.shells):
            on_shell = voxels[:, self.get_buffer(f"voxels{shell}")]
            power.append((on_shell @ self.get_buffer(f"harmonics{shell}")) ** 2 @ self.get_buffer("sums"))
        return torch.sqrt(torch.cat(power, 1) + _FLOOR)
