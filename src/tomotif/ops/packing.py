"""Random placement without overlap: masks in a volume, and complexes around one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from tomotif.core.geometry import random_rotations


_FEWEST, _MOST = 64, 1 << 12
"""Places proposed together: more and more as they fail, but no more than the cache holds."""

_PROPOSED = 128
"""One place is proposed for so many voxels before all are looked at, which takes about as long."""

_SHIFTED = 64
"""Voxels of a mask that all places are tested with; thereafter so few are left that each is tested alone."""

_MARGIN = 8
_GOLDEN = (np.sqrt(5) - 1) / 2


def overlap(
    shape: Sequence[int], size: int, centre: Sequence[int] | NDArray[np.integer]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a cube of this size, centred at a voxel, lies in the volume, and which part of the cube that is.

    Examples
    --------
    >>> overlap((8, 8, 8), 4, (4, 4, 1))[1][2]  # its first voxel sticks out at x = -1
    slice(1, 4, None)
    """
    first = [int(c) - size // 2 for c in centre]
    inside = tuple(slice(max(f, 0), min(f + size, n)) for f, n in zip(first, shape, strict=True))
    return inside, tuple(slice(s.start - f, max(s.stop - f, 0)) for s, f in zip(inside, first, strict=True))


class Neighbours(NamedTuple):
    """Complexes around others: m rows."""

    owner: NDArray[np.int64]
    which: NDArray[np.int64]
    rotations: Rotation
    offsets: NDArray[np.float64]


def outermost_points(positions: NDArray[np.floating], count: int = 128) -> NDArray[np.float64]:
    """The points farthest out along evenly spread directions: enough to know how far a body reaches any way."""
    i = np.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, np.pi * (1 + np.sqrt(5)) * i
    directions = np.stack([z, np.sqrt(1 - z**2) * np.sin(turn), np.sqrt(1 - z**2) * np.cos(turn)])
    return positions[np.unique(np.argmax(positions @ directions, axis=0))].astype(np.float64)


def reach(
    points: Sequence[NDArray[np.float64]],
    which: NDArray[np.int64],
    rotations: Rotation,
    directions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How far each turned body reaches along a direction from its centre; -1 stands for a body of no size.

    Parameters
    ----------
    points
        Outermost points of every kind of body, in Å.
    which, rotations
        Kind and rotation of n bodies.
    directions
        Unit vectors zyx, shape (n, 3).
    """
    local = rotations.inv().apply(directions)
    result = np.zeros(len(which))
    for kind in np.unique(which[which >= 0]):
        rows = which == kind
        result[rows] = (local[rows] @ points[kind].T).max(axis=1)
    return result


def surround(
    points: Sequence[NDArray[np.float64]],
    which: NDArray[np.int64],
    rotations: Rotation,
    offsets: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    count: int,
    gap: tuple[float, float],
    attempts: int = 8,
) -> Neighbours:
    """Place other bodies around each of n bodies, so that a plane separates any two of them.

    Parameters
    ----------
    points
        Outermost points of every kind of body, in Å.
    which, rotations, offsets
        Kind (-1: an empty place), rotation and position in Å of the bodies in the middle.
    rng
        Draws kinds uniformly, orientations Haar-uniformly and directions uniformly on the sphere.
    count
        Bodies to place around each.
    gap
        Range of the distance between the planes that touch a body and the one in the middle, in Å.
    attempts
        Proposals before a body is left out.
    """
    n = len(which)
    kinds = np.full((n, count), -1)
    turns = np.tile([0.0, 0.0, 0.0, 1.0], (n, count, 1))
    places = np.zeros((n, count, 3))
    for slot in range(count):
        for _ in range(attempts):
            rows = np.flatnonzero(kinds[:, slot] < 0)
            if len(rows) == 0:
                break
            kind = rng.integers(len(points), size=len(rows))
            turn = random_rotations(len(rows), rng)
            direction = rng.standard_normal((len(rows), 3))
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            distance = (
                reach(points, which[rows], rotations[rows], direction)
                + reach(points, kind, turn, -direction)
                + rng.uniform(*gap, len(rows))
            )
            place = offsets[rows] + distance[:, None] * direction
            clear = np.ones(len(rows), dtype=bool)
            for other in range(slot):
                apart = place - places[rows, other]
                length = np.maximum(np.linalg.norm(apart, axis=1), 1e-9)
                needed = reach(
                    points, kinds[rows, other], Rotation.from_quat(turns[rows, other]), apart / length[:, None]
                ) + reach(points, kind, turn, -apart / length[:, None])
                clear &= (kinds[rows, other] < 0) | (length >= needed + gap[0])
            kept = rows[clear]
            kinds[kept, slot], turns[kept, slot], places[kept, slot] = kind[clear], turn.as_quat()[clear], place[clear]
    owner, slot_of = np.nonzero(kinds >= 0)
    return Neighbours(owner, kinds[owner, slot_of], Rotation.from_quat(turns[owner, slot_of]), places[owner, slot_of])
