"""Solid balls with the soft edge of the resolution: gold beads, and what else is about as round."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from tomotif.core import InputError
from tomotif.ops.fourier import Shape

GOLD = 18.0
"""Density of gold in electrons/Å³, on the scale where protein has 0.44 and only the contrast against water counts."""

Window = tuple[slice, slice, slice]
"""Part of a volume, zyx."""

Vector = Sequence[float] | NDArray[np.floating] | NDArray[np.integer]
"""zyx."""


def blur_deviation(resolution: float) -> float:
    """Standard deviation in Å of the Gaussian exp(−(k · resolution)²) in real space.

    >>> round(blur_deviation(25.0), 2)
    5.63
    """
    if not resolution > 0:
        raise InputError(f"expected a resolution above 0 Å, got {resolution}")
    return resolution / (math.pi * math.sqrt(2))


def window_around(shape: Shape, voxel_size: float, centre: Vector, reach: NDArray[np.floating] | float) -> Window:
    """The part of a volume within ``reach`` of a place along each axis; an empty one when that lies outside.

    Parameters
    ----------
    shape
        Shape zyx of the volume.
    voxel_size
        Edge of a voxel in Å.
    centre
        Place zyx in Å from the volume's corner, inside of the volume or not.
    reach
        Å, for all axes or for each.

    Examples
    --------
    >>> window_around((8, 8, 8), 10.0, (30.0, 0.0, 200.0), 20.0)
    (slice(1, 6, None), slice(0, 3, None), slice(8, 8, None))
    """
    low = np.ceil((np.asarray(centre) - reach) / voxel_size)
    high = np.floor((np.asarray(centre) + reach) / voxel_size) + 1
    z, y, x = (slice(int(np.clip(a, 0, n)), int(np.clip(b, 0, n))) for a, b, n in zip(low, high, shape, strict=True))
    return z, y, x


def ball_profile(distance: NDArray[np.floating], radius: float, resolution: float) -> NDArray[np.float64]:
    """A ball of density 1 convolved with the resolution's Gaussian, at distances from its centre.

    Parameters
    ----------
    distance
        Å, any shape.
    radius
        Of the ball, in Å.
    resolution
        Å, as in :func:`~tomotif.ops.density.structure_density`.

    Examples
    --------
    >>> ball_profile(np.array([0.0, 40.0, 50.0, 60.0]), 50.0, 10.0).round(2).tolist()
    [1.0, 1.0, 0.48, 0.0]
    """
    width = math.sqrt(2) * blur_deviation(resolution)
    r = np.maximum(distance / width, 1e-4)  # at 0 the second term is a limit
    edge = radius / width
    solid = (erf(edge + r) + erf(edge - r)) / 2
    return solid - (np.exp(-((edge - r) ** 2)) - np.exp(-((edge + r) ** 2))) / (2 * math.sqrt(math.pi) * r)


def ball(
    shape: Shape,
    voxel_size: float,
    *,
    centre: Vector,
    radius: float,
    resolution: float,
) -> tuple[Window, NDArray[np.float32]]:
    """A solid ball in a volume.

    Parameters
    ----------
    shape
        Shape zyx of the volume.
    voxel_size
        Edge of a voxel in Å.
    centre
        Place zyx in Å from the volume's corner; what lies outside of the volume is left out.
    radius
        Å.
    resolution
        Å, as in :func:`~tomotif.ops.density.structure_density`.

    Returns
    -------
    window : tuple of slice
        The part of the volume that the ball reaches.
    ball : NDArray[float32], the window's shape
        0 outside to 1 inside.

    Examples
    --------
    >>> density = np.zeros((20, 20, 20), np.float32)
    >>> window, bead = ball(density.shape, 10.0, centre=(100.0, 100.0, 100.0), radius=50.0, resolution=25.0)
    >>> density[window] += GOLD * bead
    >>> mask = bead > 0.5
    """
    window = window_around(shape, voxel_size, centre, radius + 4 * blur_deviation(resolution))
    axes = [np.arange(s.start, s.stop) * voxel_size - c for s, c in zip(window, centre, strict=True)]
    squared = sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True))
    return window, ball_profile(np.sqrt(squared), radius, resolution).astype(np.float32)
