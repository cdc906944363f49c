"""Volume: one 3-D map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Volume:
    """One 3-D map on cubic voxels. Voxel index i sits at i × voxel size from the volume's corner.

    Parameters
    ----------
    data
        Densities, shape (nz, ny, nx); may be memory-mapped.
    voxel_size
        Edge of a voxel in Å.
    origin
        Position of the corner in the frame of the file, zyx in Å.

    Raises
    ------
    InputError
        When the array is not three-dimensional or the voxel size is not positive.
    """

    data: NDArray[np.generic]
    voxel_size: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or 0 in self.data.shape:
            raise InputError(f"expected a volume of three dimensions zyx, got an array of shape {self.data.shape}")
        if not self.voxel_size > 0:
            raise InputError(f"expected a voxel size above 0 Å, got {self.voxel_size}; give --voxel-size")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape zyx in voxels."""
        nz, ny, nx = self.data.shape
        return nz, ny, nx

    @property
    def extent(self) -> tuple[float, float, float]:
        """Size zyx in Å."""
        nz, ny, nx = self.shape
        return nz * self.voxel_size, ny * self.voxel_size, nx * self.voxel_size
