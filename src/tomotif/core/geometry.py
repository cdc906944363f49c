"""Centres, rotations and distances. Vectors are zyx in Å; a rotation acts on zyx vectors about the centre n // 2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


def centre_index(size: int) -> int:
    """Index of the centre of ``size`` voxels: size // 2, everywhere in tomotif.

    >>> centre_index(32), centre_index(33)
    (16, 16)
    """
    return size // 2


def random_rotations(count: int, rng: np.random.Generator) -> Rotation:
    """Haar-uniform rotations (uniform on SO(3), not uniform in Euler angles).

    Parameters
    ----------
    count
        Number of rotations.
    rng
        The generator that decides them.
    """
    return Rotation.random(count, rng)


def angle_between(first: Rotation, second: Rotation) -> NDArray[np.float64]:
    """Geodesic angle between rotations, pair by pair, in degrees, 0 to 180.

    >>> a = Rotation.from_rotvec([[0, 0, 0], [0, 0, 10]], degrees=True)
    >>> b = Rotation.from_rotvec([[0, 0, 30], [0, 0, 10]], degrees=True)
    >>> angle_between(a, b).round(6).tolist()
    [30.0, 0.0]
    """
    return np.degrees(np.atleast_1d((first.inv() * second).magnitude()))


def radius_grid(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Distance in voxels of every voxel from the centre n // 2 of a box of this shape.

    >>> float(radius_grid((4, 4, 4))[2, 2, 0])
    2.0
    """
    axes = [np.arange(n, dtype=np.float32) - centre_index(n) for n in shape]
    return np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
