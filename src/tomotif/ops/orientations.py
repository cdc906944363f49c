"""Sets of orientations: even grids over all rotations, fine grids around one, and point groups."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomotif.core import InputError

_PHI, _PSI = np.sqrt(2.0), 1.533751168755204288118041
"""The two constants of the super-Fibonacci spiral: its second solves psi⁴ = psi + 4."""


def uniform_rotations(count: int) -> Rotation:
    """Rotations spread evenly over SO(3): a super-Fibonacci spiral (Alexa 2022, CVPR, 8291).

    Parameters
    ----------
    count
        Number of rotations; a ball of ``(8 pi² / count) ** (1 / 3)`` rad, 15° for 4,608, is each one's share of
        the space.

    Examples
    --------
    >>> grid = uniform_rotations(4608)
    >>> nearest = np.degrees(2 * np.arccos(np.sort(np.abs(grid.as_quat() @ grid.as_quat().T))[:, -2]))
    >>> nearest.min().round(1), nearest.max().round(1)
    (np.float64(8.9), np.float64(13.8))
    """
    s = np.arange(count) + 0.5
    alpha, beta = 2 * np.pi * s / _PHI, 2 * np.pi * s / _PSI
    inner, outer = np.sqrt(s / count), np.sqrt(1 - s / count)
    quaternion = [inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)]
    return Rotation.from_quat(np.stack(quaternion, axis=1))


def nearest_rotations(rotations: Rotation, count: int) -> NDArray[np.int64]:
    """Which others of a set are nearest to each rotation, shape (n, min(count, n - 1)).

    >>> nearest_rotations(Rotation.from_rotvec([[0, 0, 0], [0, 0, 1], [0, 0, 1.5]]), 1).tolist()
    [[1], [2], [1]]
    """
    quaternions = rotations.as_quat()
    n = len(quaternions)
    count = min(count, n - 1)
    tree = cKDTree(np.concatenate([quaternions, -quaternions]))  # q and -q are one rotation
    found = tree.query(quaternions, k=count + 1)[1].reshape(n, -1) % n
    return found[:, 1:]


def rotations_around(radius: float, step: float) -> Rotation:
    """The identity and small rotations about it, on a body-centred grid of rotation vectors.

    Parameters
    ----------
    radius, step
        Largest angle and edge of the grid's cubes in degrees.
    """
    return Rotation.from_rotvec(body_centred_grid(radius, step, ball=True), degrees=True)


def body_centred_grid(reach: float, step: float, *, ball: bool = False) -> NDArray[np.float64]:
    """Points of a body-centred cubic grid about 0, the centre first, shape (n, 3).

    It covers space with a sixth fewer points than a simple cubic grid of the same gaps.

    Parameters
    ----------
    reach
        Largest coordinate; with ``ball`` the largest length.
    step
        Edge of the grid's cubes.
    ball
        Keep only points in the ball.

    Examples
    --------
    >>> len(body_centred_grid(4, 2))
    189
    """
    n = int(np.floor(reach / step + 1e-9))
    corner = np.arange(-n, n + 1) * float(step)
    middle = corner[:-1] + step / 2
    points = np.concatenate([_lattice(corner), _lattice(middle)])
    length = np.linalg.norm(points, axis=1)
    kept = points[np.argsort(length, kind="stable")]
    return kept[np.sort(length) <= reach + 1e-9] if ball else kept


def _lattice(axis: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float64)


def point_group(name: str) -> Rotation:
    """The rotations of a point group, its main axis along z and, for Dn, a two-fold axis along y.

    Parameters
    ----------
    name
        ``C1``, ``C2``, …, ``D2``, …, ``T``, ``O`` or ``I``.

    Raises
    ------
    InputError
        When there is no such group.

    Examples
    --------
    >>> len(point_group("C1")), len(point_group("D7")), len(point_group("O"))
    (1, 14, 24)
    """
    if not re.fullmatch(r"[CD][1-9]\d*|[TOI]", name):
        raise InputError(f"expected a point group such as C1, C4, D7, T, O or I, got {name!r}")
    create: Any = Rotation.create_group  # its stubs do not know names with a number
    # ours act on zyx vectors, so the first axis of scipy's is z
    return create(name, axis="X") if name[0] in "CD" else create(name)


def angle_modulo(first: Rotation, second: Rotation, symmetry: Rotation) -> Float[np.ndarray, " n"]:
    """Smallest angle between orientations, pair by pair, in degrees, when the reference has a symmetry.

    Parameters
    ----------
    first, second
        n orientations each.
    symmetry
        Rotations that map the reference onto itself, in its frame.
    """
    between = (first.inv() * second).as_quat()  # of the reference's frame
    overlap = np.abs(between @ symmetry.as_quat().T)
    return np.degrees(2 * np.arccos(np.clip(overlap.max(axis=1), 0.0, 1.0)))
