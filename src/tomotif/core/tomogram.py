"""Tomogram: a volume with the facts of its tilt series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from tomotif.core.errors import InputError, UnknownNameError
from tomotif.core.missing_wedge import MissingWedge
from tomotif.core.particles import Particles
from tomotif.core.volume import Volume

Contrast = Literal["dark", "bright"]


@dataclass(frozen=True, eq=False)
class Tomogram:
    """A reconstructed tilt series, memory-mapped and never loaded whole.

    Parameters
    ----------
    volume
        The reconstruction.
    name
        Its name in particle tables (RELION's ``rlnTomoName``).
    missing_wedge
        The measured tilt range and tilt axis.
    contrast
        ``"dark"`` (raw tomograms: dense matter is low) or ``"bright"``.
    path
        The file it lies in, when it lies in one.
    """

    volume: Volume
    name: str
    missing_wedge: MissingWedge = field(default_factory=MissingWedge)
    contrast: Contrast = "dark"
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.contrast not in ("dark", "bright"):
            raise InputError(f"expected contrast 'dark' or 'bright', got {self.contrast!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape zyx in voxels."""
        return self.volume.shape

    @property
    def voxel_size(self) -> float:
        """Edge of a voxel in Å."""
        return self.volume.voxel_size

    @property
    def sign(self) -> float:
        """The factor that makes dense matter bright: -1 for dark contrast, else 1."""
        return -1.0 if self.contrast == "dark" else 1.0


def tomograms_of(particles: Particles, tomograms: Sequence[Tomogram]) -> dict[str, Tomogram]:
    """The tomograms that particles name, by name, in their order.

    Parameters
    ----------
    particles
        At least one, with positions that are numbers.
    tomograms
        Those that the particles name, and perhaps others.

    Raises
    ------
    InputError
        When there are no particles, or a position is no number.
    UnknownNameError
        When a tomogram is missing.
    """
    if not len(particles):
        raise InputError("expected particles, got an empty table; pick with a lower threshold")
    if not np.isfinite(particles.position).all():
        row = int(np.flatnonzero(~np.isfinite(particles.position).all(axis=1))[0])
        raise InputError(f"expected finite positions in Å, got {particles.position[row].tolist()} in row {row + 1}")
    known = {tomogram.name: tomogram for tomogram in tomograms}
    names = list(dict.fromkeys(map(str, particles.tomogram)))
    for name in names:
        if name not in known:
            raise UnknownNameError("tomogram", name, known)
    return {name: known[name] for name in names}
