"""Subtomograms: particles with their cut-out boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError
from tomotif.core.missing_wedge import MissingWedge
from tomotif.core.particles import Particles

RESIDUALS = ("residual_z", "residual_y", "residual_x")
"""Columns that say how far in Å the particle's position lies from the centre of its box."""


@dataclass(frozen=True, eq=False)
class Subtomograms:
    """Particles and the stack of boxes cut at them: a lazy view, the stack is memory-mapped.

    Boxes are bright (dense matter is high) and z-scored one by one; the mean and deviation that were taken off are
    the columns ``mean`` and ``deviation`` of the particles. The box's centre is voxel box_px // 2.

    Parameters
    ----------
    particles
        n rows, row i belongs to box i.
    stack
        Boxes zyx, shape (n, D, D, D), float16 on disk.
    voxel_size
        Edge of a voxel in Å.
    missing_wedge
        The measured tilt range that all boxes share.
    """

    particles: Particles
    stack: NDArray[np.floating]
    voxel_size: float
    missing_wedge: MissingWedge

    def __post_init__(self) -> None:
        if self.stack.ndim != 4 or len(set(self.stack.shape[1:])) != 1:
            raise InputError(f"expected a stack of cubic boxes (n, D, D, D), got shape {self.stack.shape}")
        if len(self.stack) != len(self.particles):
            raise InputError(
                f"expected one box a particle, got {len(self.stack)} boxes and {len(self.particles)} particles; "
                "the star file and the stack are not of one extraction"
            )

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def box_px(self) -> int:
        """Edge of a box in voxels."""
        return int(self.stack.shape[1])

    def boxes(self, rows: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """The boxes of these rows as float32, shape (k, D, D, D), read from disk now."""
        return np.asarray(self.stack[rows], dtype=np.float32)
