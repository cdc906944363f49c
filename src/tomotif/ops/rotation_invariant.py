"""Rotation-invariant features: the power of the spherical harmonics of a box on shells about its middle.

A rotation mixes the harmonics of one degree on one shell among themselves and leaves their power as it is (Kazhdan,
Funkhouser, Rusinkiewicz 2003, Symposium on Geometry Processing, 156). The features of subtomograms before deep learning
(Xu, Zhang, Alber 2009, ICBME). The missing wedge does not turn with the particle, so they are not wholly invariant.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import sph_harm_y

DEGREES = 12
"""Number of degrees, from 0."""


def shell_power(boxes: Float[np.ndarray, "n d d d"], *, degrees: int = DEGREES) -> Float[np.ndarray, "n f"]:
    """Root of the power of each degree on each shell, a voxel apart, from radius 1 to d // 2 - 1.

    Parameters
    ----------
    boxes
        Zyx, the middle at voxel d // 2.
    degrees
        Number of degrees of the spherical harmonics, from 0.

    Returns
    -------
    float32 array, shape (n, (d // 2 - 1) * degrees)
        Shell by shell, in each degree by degree.

    Examples
    --------
    >>> box = np.zeros((1, 16, 16, 16)); box[0, 8, 8, 11] = 1.0  # on one side
    >>> turned = np.rot90(box, axes=(2, 3))[:, :, np.r_[-1:15]]  # keeps the middle at voxel 8
    >>> bool(np.allclose(shell_power(box), shell_power(turned), atol=1e-6))
    True
    """
    size = boxes.shape[1]
    shells = size // 2 - 1
    coefficients = (harmonics(size, degrees) @ boxes.reshape(len(boxes), -1).T.astype(np.float32)).T
    squared = coefficients.reshape(len(boxes), shells, degrees**2) ** 2
    power = np.add.reduceat(squared, [degree**2 for degree in range(degrees)], axis=2)
    return np.sqrt(power).reshape(len(boxes), -1)


@lru_cache(maxsize=4)
def harmonics(size: int, degrees: int) -> sparse.csr_array:
    """What takes a flat box to its coefficients: rows are shells × real harmonics, columns are voxels.

    A shell is sampled by linear interpolation at the nodes of a quadrature that is exact up to twice the degree: Gauss
    and Legendre's along the axis, even steps around it.
    """
    cosine, weight = np.polynomial.legendre.leggauss(2 * degrees)
    around = np.arange(4 * degrees) * 2 * np.pi / (4 * degrees)
    theta, phi = (grid.ravel() for grid in np.meshgrid(np.arccos(cosine), around, indexing="ij"))
    weights = np.repeat(weight, len(around)) * 2 * np.pi / len(around)
    projection = sparse.csr_array((real_harmonics(theta, phi, degrees) * weights).astype(np.float32))
    direction = np.stack([np.cos(theta), np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi)], axis=1)  # zyx
    rows = [projection @ interpolation(radius * direction, size) for radius in range(1, size // 2)]
    return sparse.vstack(rows, format="csr")


def real_harmonics(theta: NDArray[np.float64], phi: NDArray[np.float64], degrees: int) -> NDArray[np.float64]:
    """Orthonormal real spherical harmonics (degrees², points), degree by degree."""
    rows = []
    for degree in range(degrees):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), theta, phi)
            rows.append(value.real if order == 0 else np.sqrt(2) * (value.imag if order < 0 else value.real))
    return np.array(rows)


def interpolation(points: NDArray[np.float64], size: int) -> sparse.csr_array:
    """Linear interpolation of a flat box at points zyx about its middle, in voxels: (points, size³)."""
    lower = np.floor(points).astype(np.int64)
    part = points - lower
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        voxel = lower + size // 2 + np.array(corner)
        inside = (weight > 0) & np.all(voxel < size, axis=1)
        rows.append(np.flatnonzero(inside))
        columns.append(np.ravel_multi_index(tuple(voxel[inside].T), (size,) * 3))
        values.append(weight[inside])
    entries = np.concatenate(values).astype(np.float32)
    return sparse.csr_array((entries, (np.concatenate(rows), np.concatenate(columns))), shape=(len(points), size**3))
