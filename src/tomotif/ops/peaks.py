"""Peaks of a response: local maxima, their place between the voxels, and which of them may stand side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree


def local_maxima(response: NDArray[np.float32], threshold: float = -np.inf) -> NDArray[np.int64]:
    """Voxels above a threshold that none of their 26 neighbours exceeds.

    The outermost voxels are left out, since they lack neighbours.

    Parameters
    ----------
    response
        Values zyx.
    threshold
        Lower bound of a maximum.

    Returns
    -------
    NDArray[int64], shape (n, 3)
        Indices zyx.

    Examples
    --------
    >>> volume = np.zeros((5, 5, 5), np.float32)
    >>> volume[2, 3, 1] = 1
    >>> local_maxima(volume, 0.5).tolist()
    [[2, 3, 1]]
    """
    inner = (slice(1, -1),) * 3
    high = response[inner] > threshold
    high &= maximum_filter(response, size=3)[inner] == response[inner]
    return np.argwhere(high) + 1


def parabolic_offset(response: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where the maximum lies between the voxels: top of the parabola through three voxels along each axis.

    Parameters
    ----------
    response
        Values zyx.
    index
        Local maxima zyx, not in the outermost voxels, shape (n, 3).

    Returns
    -------
    NDArray[float64], shape (n, 3)
        Offset from the index in voxels, at most half a voxel along each axis.

    Examples
    --------
    >>> volume = np.zeros((3, 3, 3), np.float32)
    >>> volume[1, 1] = 3, 4, 3.5
    >>> parabolic_offset(volume, np.array([[1, 1, 1]])).round(3).tolist()
    [[0.0, 0.0, 0.167]]
    """
    offset = np.zeros(index.shape)
    middle = response[tuple(index.T)].astype(np.float64)
    for axis in range(3):
        step = np.eye(3, dtype=np.int64)[axis]
        before, after = response[tuple((index - step).T)], response[tuple((index + step).T)]
        curvature = 2 * middle - before - after
        top = 0.5 * (after - before) / np.where(curvature > 0, curvature, np.inf)
        offset[:, axis] = np.clip(top, -0.5, 0.5)
    return offset


def keep_best(
    position: NDArray[np.floating],
    score: NDArray[np.floating],
    distance: NDArray[np.floating] | float,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: the best first, each removes the worse ones that are too close to it.

    Two peaks are too close when they are nearer than the larger of their two distances.

    Parameters
    ----------
    position
        Positions zyx, shape (n, 3).
    score
        The higher the better, shape (n,); of equal ones the first in order of position goes first.
    distance
        Distance that each keeps, in the unit of the positions, shape (n,) or one number for all.

    Returns
    -------
    NDArray[int64]
        Rows that stay, best first.

    Examples
    --------
    >>> keep_best(np.array([[0.0, 0, 0], [0, 0, 3], [0, 0, 9]]), np.array([1, 2, 0.5]), 4.0).tolist()
    [1, 2]
    """
    if not len(position):
        return np.empty(0, dtype=np.int64)
    own = np.broadcast_to(np.asarray(distance, dtype=np.float64), (len(position),))
    order = np.lexsort((*position.T[::-1], -score))
    where, own = position[order], own[order]
    near = _neighbours(where, float(own.max()))
    alive = np.ones(len(order), dtype=bool)
    for i in range(len(order)):
        if alive[i]:
            others = near(i)
            others = others[others > i]
            apart = np.linalg.norm(where[others] - where[i], axis=1)
            alive[others[apart < np.maximum(own[others], own[i])]] = False
    return order[alive]


def _neighbours(position: NDArray[np.floating], distance: float) -> Callable[[int], NDArray[np.int64]]:
    tree = cKDTree(position)
    return lambda i: np.asarray(tree.query_ball_point(position[i], distance), dtype=np.int64)
