"""Labels: what every voxel of a tomogram belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Labels:
    """Per-voxel classes or instances of a tomogram; 0 is background.

    Parameters
    ----------
    data
        Non-negative integers, shape (nz, ny, nx).
    voxel_size
        Edge of a voxel in Å.
    names
        Class name of each label; empty for instances, whose label i is row i - 1 of the particle table.
    """

    data: NDArray[np.integer]
    voxel_size: float
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or not np.issubdtype(self.data.dtype, np.integer):
            raise InputError(f"expected integer labels zyx, got {self.data.dtype} of shape {self.data.shape}")
