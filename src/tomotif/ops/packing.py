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


class Room:
    """The free space of a volume, and random places in it.

    A place is uniform over all places where the mask fits, and none is given only when there is none. Placing one body
    after another is thus random sequential addition (Widom 1966, J. Chem. Phys. 44:3888) of masks as they are turned.
    Whoever turns a body anew when it does not fit favours the orientations that fit in a crowded volume.

    Order decides how much finds room: bodies with a large radius of gyration go first, hollow ones among them, which
    weigh little and yet leave room for nothing inside. Six complexes from 0.4 to 3 MDa, equally many and each tried in
    8 orientations, fill 0.32 of a volume so, and 0.29 in the order of their mass.

    Many places are proposed; where all of them fail, all places are looked at together. A place is one bit then, and
    the places where a voxel of the mask is free are the free voxels shifted by that voxel: 64 places an instruction.

    Parameters
    ----------
    free
        Where bodies may lie, zyx. It is copied.
    gap_px
        Voxels to leave free between bodies, counted along the axes (steps through faces). To what is not free at
        first, and to the volume's walls, no gap is left.

    Examples
    --------
    >>> room = Room(np.ones((4, 4, 4), dtype=bool))
    >>> cube = np.ones((4, 4, 4), dtype=bool)
    >>> room.find(cube, np.random.default_rng(0))
    (2, 2, 2)
    >>> room.take(cube, (2, 2, 2))
    >>> room.find(cube, np.random.default_rng(0)) is None
    True
    """

    def __init__(self, free: NDArray[np.bool_], *, gap_px: int = 0) -> None:
        self._gap = gap_px
        self._free = free.astype(bool)  # without gaps
        self._border = 0
        self._wide = np.zeros((0, 0, 0), dtype=bool)  # where the next body may lie, with a closed border
        self._bits: NDArray[np.uint8] | None = None  # the same as bits, made when first needed
        self._widen(_MARGIN, self._free)

    @property
    def free(self) -> NDArray[np.bool_]:
        """What is neither taken nor forbidden from the first, zyx; to look at, not to write to."""
        view = self._free.view()
        view.flags.writeable = False
        return view

    def find(self, mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int, int] | None:
        """A random place where every voxel of a mask is inside the volume, free, and off what is taken by the gap.

        Parameters
        ----------
        mask
            Shape of what is to be placed, in a cube centred at its voxel d // 2.
        rng
            Decides the place: the same state gives the same place.

        Returns
        -------
        tuple of int, or None
            Index zyx in the volume of the mask's centre; None where the mask fits nowhere or is empty.
        """
        points = _spread_points(mask)
        if len(points) == 0:
            return None
        anchor = points[0]  # a voxel of the mask, so that it never lies outside where the mask fits
        points = points - anchor
        low, high = -points.min(axis=0), np.array(self._free.shape) - 1 - points.max(axis=0)
        if np.any(low > high):
            return None
        self._widen(int(np.abs(points).max()), self._open)
        strides = np.array(self._wide.strides)
        first, last = (int(corner @ strides) + _MARGIN for corner in (low, high))
        steps = points @ strides
        at = self._proposed(first, last, steps, rng)
        if at is None:
            at = self._searched(first, last, steps, rng)
        if at is None:
            return None
        z, y, x = (int(i) for i in np.unravel_index(at, self._wide.shape) - anchor)
        return z, y, x - _MARGIN

    def take(self, mask: NDArray[np.bool_], place: tuple[int, int, int]) -> None:
        """Mark a mask (d, d, d), centred at a place, as taken; what sticks out of the volume is ignored."""
        inside, kept = overlap(self._free.shape, len(mask), place)
        self._free[inside] &= ~mask[kept]
        if self._gap:
            mask = binary_dilation(np.pad(mask, self._gap), iterations=self._gap)
            inside, kept = overlap(self._free.shape, len(mask), place)
        self._open[inside] &= ~mask[kept]
        if self._bits is not None:
            z, y, x = inside
            start, stop = (x.start + _MARGIN - 7) // 8, (x.stop + _MARGIN + 7) // 8
            for s in range(8):
                part = self._wide[z, y, 8 * start + s : 8 * stop + s]
                self._bits[s, z, y, start:stop] = np.packbits(part, axis=-1)

    @property
    def _open(self) -> NDArray[np.bool_]:
        """Where the next body may lie, without the border."""
        _, y, x = self._free.shape
        return self._wide[:, :y, _MARGIN : _MARGIN + x]

    def _widen(self, border: int, inner: NDArray[np.bool_]) -> None:
        """Let the border be this wide, so that what sticks out of the volume meets it on the flat array.

        One side is enough, since before a row's first voxel comes the end of the row before it; only ahead of all there
        must be as many voxels as a byte has bits.
        """
        if border > self._border:
            z, y, x = inner.shape
            wide = np.zeros((z, y + border, 8 * -(-(x + border + 2 * _MARGIN) // 8)), dtype=bool)
            wide[:, :y, _MARGIN : _MARGIN + x] = inner
            self._wide, self._border, self._bits = wide, border, None

    def _proposed(self, first: int, last: int, steps: NDArray[np.int64], rng: np.random.Generator) -> int | None:
        """The first that fits of many random places, as an index of the flat array."""
        left, count = self._wide.size // _PROPOSED, _FEWEST
        while left > 0:
            found = _fitting(self._wide.ravel(), rng.integers(first, last + 1, count), steps)
            if len(found):
                return int(found[0])
            left, count = left - count, min(2 * count, _MOST)
        return None

    def _searched(self, first: int, last: int, steps: NDArray[np.int64], rng: np.random.Generator) -> int | None:
        """One of all places where the mask fits, as an index of the flat array."""
        flat = self._wide.ravel()
        if self._bits is None:  # bit i of copy s is voxel i + s, so that any shift is a slice of whole bytes
            self._bits = np.stack([np.packbits(flat[s:]) for s in range(8)]).reshape(8, *self._wide.shape[:2], -1)
        bits = self._bits.reshape(8, -1)
        start = first // 8
        fits = np.full(8 * -(-(last // 8 + 1 - start) // 8), 255, dtype=np.uint8)  # whole words
        for step in steps[:_SHIFTED].tolist():
            shifted = bits[step % 8, start + step // 8 :][: len(fits)]
            fits[: len(shifted)] &= shifted
        words = np.flatnonzero(fits.view(np.uint64))
        word, bit = np.nonzero(np.unpackbits(fits.reshape(-1, 8)[words], axis=1))
        places = 8 * start + 64 * words[word] + bit
        places = rng.permutation(places[(places >= first) & (places <= last)])
        for part in range(0, len(places), _MOST):
            found = _fitting(flat, places[part : part + _MOST], steps[_SHIFTED:])
            if len(found):
                return int(found[0])
        return None


def _spread_points(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The voxels (n, 3) of a mask relative to voxel d // 2: the surface first, and of it any first few spread out."""
    at = np.flatnonzero(mask)
    wide = np.pad(mask, 1)
    flat, row, plane = wide.ravel(), wide.shape[2], wide.shape[1] * wide.shape[2]
    inner = np.logical_and.reduce([flat[np.flatnonzero(flat) + i] for i in (1, -1, row, -row, plane, -plane)])
    order = np.argsort(inner + np.modf(np.arange(len(at)) * _GOLDEN)[0])
    return np.stack(np.unravel_index(at[order], mask.shape), axis=1) - np.array(mask.shape) // 2


def _fitting(free: NDArray[np.bool_], places: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those places of a flat array where every step leads to a free voxel; few steps tell for most of them."""
    done = 0
    while done < len(steps) and len(places):
        count = max(1, _MOST // len(places))
        places = places[free[places[:, None] + steps[done : done + count]].all(axis=1)]
        done += count
    return places


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
