"""Filaments: worm-like chains, the helical lattices of actin and microtubules, and the density of their subunits."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from tomotif.core import InputError
from tomotif.ops.bead import Vector, ball_profile, blur_deviation
from tomotif.ops.density import ELECTRON_VOLUME
from tomotif.ops.fourier import Shape
from tomotif.ops.membrane import turn_to

ACTIN_KDA = 42.0
"""Mass of an actin subunit."""

ACTIN_PERSISTENCE = 1e5
"""Persistence length of actin in Å: 9 µm (Isambert et al. 1995 J Biol Chem 270:11437), 18 µm when stabilised."""

TUBULIN_KDA = 55.0
"""Mass of a tubulin monomer."""

MICROTUBULE_PERSISTENCE = 1e7
"""Persistence length of microtubules in Å, of the order of millimetres (Gittes et al. 1993 J Cell Biol 120:923)."""

_DALTON_VOLUME = 1.21
_BATCH_VALUES = 4_000_000
_TABLE = 4096


class FilamentPath(NamedTuple):
    """A filament's axis.

    Parameters
    ----------
    positions
        zyx in Å, shape (n, 3).
    frames
        n rotations that take the z axis (1, 0, 0) to the filament's direction, without twist from one to the next.
    """

    positions: NDArray[np.float64]
    frames: Rotation


def worm_like_path(
    start: Vector,
    direction: Vector,
    *,
    length: float,
    persistence_length: float,
    rng: np.random.Generator,
    step: float = 50.0,
) -> FilamentPath:
    """A thermally bent filament (Kratky & Porod 1949 Rec Trav Chim 68:1106).

    Directions a length L apart along the chain have the mean cosine exp(−L / persistence length). Each step bends about
    an axis across the chain and so carries the frame along without twisting it (parallel transport).

    Parameters
    ----------
    start
        First point zyx in Å.
    direction
        Direction zyx there, of any length; the spin about it is random.
    length
        Along the filament, in Å.
    persistence_length
        Å.
    rng
        Draws the bends and the spin.
    step
        Distance of the points in Å, well below the persistence length; the last step ends at the length.
    """
    if not (length > 0 and 0 < step <= persistence_length / 5):
        raise InputError(
            "expected a length above 0 Å and steps of at most a fifth of the persistence length, "
            f"got {length}, {step} and {persistence_length}"
        )
    steps = math.ceil(length / step - 1e-9)
    bends = np.zeros((steps, 3))
    bends[:, 1:] = rng.standard_normal((steps, 2)) * math.sqrt(length / steps / persistence_length)
    first = turn_to([direction], [1, 0, 0], rng).as_matrix()[0]
    frames = np.array(list(accumulate(Rotation.from_rotvec(bends).as_matrix(), np.matmul, initial=first)))
    along = frames[:, :, 0]
    middles = (along[:-1] + along[1:]) / 2 * (length / steps)
    positions = np.asarray(start, dtype=np.float64) + np.concatenate([np.zeros((1, 3)), np.cumsum(middles, axis=0)])
    return FilamentPath(positions, Rotation.from_matrix(frames))


def actin(path: FilamentPath) -> NDArray[np.float64]:
    """Centres of the subunits of an actin filament, zyx in Å, shape (m, 3), from one end to the other.

    Each rises by 27.5 Å and turns by −166.6°: a left-handed helix, in which every second subunit belongs to one of two
    right-handed strands that cross every 36 nm (Holmes et al. 1990 Nature 347:44; Oda et al. 2009 Nature 457:441). The
    subunits' centres of mass lie about 16 Å off the axis.

    Parameters
    ----------
    path
        The filament's axis.

    Examples
    --------
    >>> axis = FilamentPath(np.array([[0.0, 0, 0], [275.0, 0, 0]]), Rotation.identity(2))
    >>> actin(axis)[:2].round(1).tolist()
    [[0.0, 0.0, 16.0], [27.5, -3.7, -15.6]]
    """
    rises = np.arange(0, _length(path) + 1e-6, 27.5)
    return _around(path, rises, np.radians(-166.6) * np.arange(len(rises)), 16.0)


def microtubule(path: FilamentPath) -> NDArray[np.float64]:
    """Centres of the tubulin monomers of a microtubule, zyx in Å, shape (m, 3), one protofilament after the other.

    13 straight protofilaments; monomers follow each other by 41 Å and lie 112 Å off the axis. Around the tube they rise
    by three monomers a turn: the left-handed three-start helix of the B lattice (Amos & Klug 1974 J Cell Sci 14:523;
    Mandelkow et al. 1986 J Cell Biol 102:1067). α and β tubulin are the same here, and so there is no seam.

    Parameters
    ----------
    path
        The filament's axis.
    """
    number = np.arange(13)
    columns = [np.arange(first, _length(path) + 1e-6, 41.0) for first in 3 * 41.0 / 13 * number % 41.0]
    turns = np.repeat(-2 * math.pi / 13 * number, [len(column) for column in columns])
    return _around(path, np.concatenate(columns), turns, 112.0)


def _arc(path: FilamentPath) -> NDArray[np.float64]:
    """Length along the path from its start to each of its points."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path.positions, axis=0), axis=1))])


def _length(path: FilamentPath) -> float:
    return float(_arc(path)[-1])


def _around(
    path: FilamentPath, rises: NDArray[np.float64], turns: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Places at a distance from the axis; positive turns (radians) are right-handed about the filament's direction."""
    arc = _arc(path)
    axis = np.stack([np.interp(rises, arc, c) for c in path.positions.T], axis=1)
    across = radius * np.stack([np.zeros(len(turns)), np.sin(turns), np.cos(turns)], axis=1)
    return axis + Slerp(arc, path.frames)(np.minimum(rises, arc[-1])).apply(across)


def subunit_density(
    positions: NDArray[np.floating],
    shape: Shape,
    *,
    voxel_size: float,
    mass_kda: float,
    resolution: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Density of globular proteins, each a solid ball of protein at this resolution.

    A ball holds 536 electrons/kDa in 1.21 Å³/Da.

    Parameters
    ----------
    positions
        Centres zyx in Å from the volume's corner, shape (n, 3); of those near the border only what falls inside counts.
    shape
        Shape zyx of the volume.
    voxel_size
        Edge of a voxel in Å.
    mass_kda
        Mass of each.
    resolution
        Å, as in :func:`~tomotif.ops.density.structure_density`.

    Returns
    -------
    voxels : NDArray[int64], shape (m,)
        Flat indices of the voxels that they reach, ascending.
    density : NDArray[float32], shape (m,)
        Electrons/Å³ there.
    """
    radius = (3 * mass_kda * 1e3 * _DALTON_VOLUME / (4 * math.pi)) ** (1 / 3)
    reach = (radius + 3 * blur_deviation(resolution)) / voxel_size
    # a table over squared distance, because erf and exp of every voxel would take most of the time
    middles = np.sqrt((np.arange(_TABLE) + 0.5) / _TABLE) * reach * voxel_size
    table = (ball_profile(middles, radius, resolution) / ELECTRON_VOLUME).astype(np.float32)
    batch = max(1, int(_BATCH_VALUES / (2 * reach + 3) ** 3))
    where = positions / voxel_size
    parts = [_balls(where[i : i + batch], reach, table, shape) for i in range(0, max(len(where), 1), batch)]
    voxels, place = np.unique(np.concatenate([p[0] for p in parts]), return_inverse=True)
    values = np.bincount(place, np.concatenate([p[1] for p in parts]), minlength=len(voxels))
    return voxels, values.astype(np.float32)


def _balls(
    where: NDArray[np.floating], reach: float, table: NDArray[np.float32], shape: Shape
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat indices of the voxels within ``reach`` of places, all in voxels, and what the table has for the distance."""
    offsets = np.arange(-math.ceil(reach + 0.5), math.ceil(reach + 0.5) + 1)
    at = np.rint(where).astype(np.int64)[:, :, None] + offsets
    squares = np.square(at - where[:, :, None]).astype(np.float32)
    squares[(at < 0) | (at >= np.array(shape)[:, None])] = np.inf
    z, y, x = np.moveaxis(squares, 1, 0)
    squared = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    near = squared < reach**2 * (1 - 1e-6)
    z, y, x = np.moveaxis(at, 1, 0)
    flat = ((z[:, :, None] * shape[1] + y[:, None, :]) * shape[2])[:, :, :, None] + x[:, None, None, :]
    return flat[near], table[(squared[near] * (len(table) / reach**2)).astype(np.int64)]


def render_subunits(
    density: NDArray[np.float32],
    positions: NDArray[np.floating],
    *,
    voxel_size: float,
    mass_kda: float,
    resolution: float,
) -> NDArray[np.int64]:
    """Add globular proteins to a volume, in place.

    Parameters
    ----------
    density
        Volume zyx, in electrons/Å³.
    positions, voxel_size, mass_kda, resolution
        As in :func:`subunit_density`.

    Returns
    -------
    NDArray[int64]
        Flat indices of the voxels where they alone exceed half the density of protein: their mask.

    Examples
    --------
    >>> volume = np.zeros((16, 16, 16), np.float32)
    >>> mask = render_subunits(volume, np.array([[75.0, 75, 75]]), voxel_size=10.0, mass_kda=42.0, resolution=25.0)
    >>> round(float(volume.sum()) * 10.0**3 / (536 * 42), 3), len(mask)
    (1.0, 32)
    """
    nz, ny, nx = density.shape
    voxels, values = subunit_density(
        positions, (nz, ny, nx), voxel_size=voxel_size, mass_kda=mass_kda, resolution=resolution
    )
    density.flat[voxels] += values
    return voxels[values > 0.5 / ELECTRON_VOLUME]
