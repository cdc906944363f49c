"""Structure: the scattering centres of a biological assembly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Structure:
    """A biological assembly as weighted points: atoms, or beads that stand for a few atoms each.

    Parameters
    ----------
    name
        Short name, such as ``"3j9i"``.
    positions
        Positions zyx in Å, shape (n, 3); the centre of mass is the origin after :meth:`centred`.
    weights
        Electrons of each point (hydrogens included), shape (n,).
    spreads
        Standard deviation in Å along one axis of each point's own density (thermal motion, or the size of a bead),
        shape (n,).
    mass_kda
        Mass in kDa.
    title
        What it is, in words.
    source
        Where it comes from, such as ``"PDB 3J9I"``.
    """

    name: str
    positions: NDArray[np.float32]
    weights: NDArray[np.float32]
    spreads: NDArray[np.float32]
    mass_kda: float
    title: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.positions)
        if n == 0 or self.positions.shape != (n, 3) or self.weights.shape != (n,) or self.spreads.shape != (n,):
            raise InputError(
                f"structure {self.name!r}: expected positions (n, 3), weights (n,) and spreads (n,) with n > 0, got "
                f"{self.positions.shape}, {self.weights.shape} and {self.spreads.shape}"
            )

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def centre_of_mass(self) -> NDArray[np.float64]:
        """Weighted mean position zyx in Å."""
        return np.average(self.positions.astype(np.float64), axis=0, weights=self.weights)

    @cached_property
    def radius(self) -> float:
        """Distance in Å from the centre of mass to the farthest point."""
        return float(np.linalg.norm(self.positions - self.centre_of_mass, axis=1).max())

    @cached_property
    def radius_of_gyration(self) -> float:
        """Weighted root-mean-square distance in Å from the centre of mass."""
        squares = np.sum((self.positions - self.centre_of_mass) ** 2, axis=1)
        return float(np.sqrt(np.average(squares, weights=self.weights)))

    def centred(self) -> Structure:
        """The same structure with its centre of mass at the origin."""
        moved = (self.positions - self.centre_of_mass).astype(np.float32)
        return Structure(
            self.name, moved, self.weights, self.spreads, self.mass_kda, title=self.title, source=self.source
        )
