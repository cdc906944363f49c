"""Membranes: smooth surfaces as signed distances, the lipid bilayer across them, and places on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from scipy.special import erf

from tomotif.core import InputError, Structure
from tomotif.ops.bead import Vector, Window, blur_deviation, window_around
from tomotif.ops.filters import along_axes
from tomotif.ops.fourier import Shape

HEADS = 0.50
"""Density of lipid head groups in electrons/Å³, on the scale where protein has 0.44 and water counts as 0.

Not electrons but what electrons scatter from is seen: from the atoms' amplitudes for forward scattering (carbon 2.5,
hydrogen 0.5, oxygen 2.0 Å), a methylene group of 27 Å³ has 0.13, ice 0.095 and protein 0.17 in the same unit.
"""

TAILS = 0.20
"""Density of lipid tails on the same scale."""

_HEAD_WIDTH = 3.0
"""Standard deviation in Å of the head groups' places across the bilayer, and of the edges of the tails."""

_HEAD_TO_TAIL = 5.0
"""Å from the middle of the head groups to the edge of the tails."""

_WAVES = 12
_COARSEST_PX = 8

Points = NDArray[np.float64]
Implicit = Callable[[Points], tuple[NDArray[np.float64], Points]]
"""Values, and gradients, of a function that is 0 on a surface and negative inside; of points (n, 3)."""


class _Waves(NamedTuple):
    """A smooth random function: a sum of plane waves."""

    vectors: Points
    phases: NDArray[np.float64]
    heights: NDArray[np.float64]

    def __call__(self, where: Points) -> tuple[NDArray[np.float64], Points]:
        """Value and gradient at points (n, 3)."""
        phase = where @ self.vectors.T + self.phases
        return np.cos(phase) @ self.heights, -(np.sin(phase) * self.heights) @ self.vectors


def plane(
    shape: Shape,
    voxel_size: float,
    *,
    point: Vector,
    normal: Vector,
    amplitude: float,
    wavelength: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Signed distance from a nearly flat sheet that undulates.

    Parameters
    ----------
    shape
        Shape zyx of the volume.
    voxel_size
        Edge of a voxel in Å.
    point
        A point zyx in Å that the sheet undulates about.
    normal
        Its normal zyx, of any length; distances are positive on that side.
    amplitude
        Root-mean-square height of the undulations in Å; 0 for a flat sheet.
    wavelength
        Their typical wavelength in Å; those there are lie between ⅔ of it and twice it, and heights grow as its square,
        as those of thermal undulations (Helfrich 1978 Z Naturforsch 33a:305).
    rng
        Draws the undulations.

    Returns
    -------
    NDArray[float32], shape ``shape``
        Å, negative below.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> flat = plane((8, 8, 8), 10.0, point=(20, 0, 0), normal=(1, 0, 0), amplitude=0, wavelength=500, rng=rng)
    >>> (flat[:4, 0, 0].round(3) + 0.0).tolist()
    [-20.0, -10.0, 0.0, 10.0]
    """
    if not (wavelength > 0 and amplitude >= 0):
        raise InputError(
            f"expected a wavelength above and an amplitude of at least 0 Å, got {wavelength} and {amplitude}"
        )
    up = np.asarray(normal, dtype=np.float64) / np.linalg.norm(normal)
    along = rng.standard_normal((_WAVES, 3))
    along -= np.outer(along @ up, up)
    waves = _random_waves(along, (0.5, 1.5), rng)
    waves = waves._replace(vectors=waves.vectors * 2 * math.pi / wavelength)
    waves = waves._replace(heights=waves.heights * amplitude / math.sqrt(np.sum(waves.heights**2) / 2))

    def height(where: Points) -> tuple[NDArray[np.float64], Points]:
        from_sheet = where - np.asarray(point, dtype=np.float64)
        undulation, slope = waves(from_sheet)
        return from_sheet @ up - undulation, up - slope

    nz, ny, nx = shape
    return _sampled(height, (slice(0, nz), slice(0, ny), slice(0, nx)), voxel_size, wavelength / 10)


def vesicle(
    shape: Shape,
    voxel_size: float,
    *,
    centre: Vector,
    radii: Vector,
    rng: np.random.Generator,
    roughness: float = 0.05,
    rotation: Rotation | None = None,
    margin: float = 120.0,
) -> tuple[Window, NDArray[np.float32]]:
    """Signed distance from a closed surface, an ellipsoid with smooth bumps, in the part of a volume that it reaches.

    Parameters
    ----------
    shape
        Shape zyx of the volume.
    voxel_size
        Edge of a voxel in Å.
    centre
        zyx in Å from the volume's corner; may lie outside of the volume.
    radii
        Semi-axes zyx in Å; may exceed the volume.
    rng
        Draws the bumps.
    roughness
        Root-mean-square deviation from the ellipsoid, relative to the radius.
    rotation
        Turns the ellipsoid; acts on zyx vectors.
    margin
        Å around the surface that the window still holds.

    Returns
    -------
    window : tuple of slice
        Part of the volume; all the rest lies outside.
    distance : NDArray[float32], the window's shape
        Å, negative inside.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> window, distance = vesicle((64, 64, 64), 10.0, centre=(300, 300, 0), radii=(150, 200, 250), rng=rng)
    >>> window[2], bool(distance[:, :, 0].min() < -100)
    (slice(0, 41, None), True)
    """
    axes = np.asarray(radii, dtype=np.float64)
    if not (axes.min() > 0 and roughness >= 0):
        raise InputError(f"expected radii above and a roughness of at least 0, got {radii} Å and {roughness}")
    turn = np.eye(3) if rotation is None else rotation.as_matrix()
    waves = _random_waves(rng.standard_normal((_WAVES, 3)), (2.0, 5.0), rng)
    mean, deviation = _on_unit_sphere(waves)
    waves = waves._replace(heights=waves.heights * roughness / deviation)

    def implicit(where: Points) -> tuple[NDArray[np.float64], Points]:
        scaled = (
            where - np.asarray(centre, dtype=np.float64)
        ) @ turn / axes + 1e-6  # no direction leads out of the very centre
        length = np.linalg.norm(scaled, axis=1)
        bump, slope = waves(scaled)
        gradient = scaled / length[:, None] - slope
        return length - 1 - bump + mean * roughness / deviation, (gradient / axes) @ turn.T

    reach = np.sqrt(np.square(turn * axes).sum(axis=1)) * (1 + 3 * roughness) + margin
    window = window_around(shape, voxel_size, centre, reach)
    sharpest = axes.min() ** 2 / axes.max() / (1 + 10 * roughness)
    return window, _sampled(implicit, window, voxel_size, min(sharpest / 1.8, axes.min() / 5))


def _random_waves(directions: Points, band: tuple[float, float], rng: np.random.Generator) -> _Waves:
    """Waves along these directions whose numbers lie in a band and whose heights fall as the number's square."""
    numbers = rng.uniform(*band, len(directions))
    vectors = directions * (numbers / np.linalg.norm(directions, axis=1))[:, None]
    return _Waves(vectors, rng.uniform(0, 2 * math.pi, len(directions)), numbers**-2)


def _on_unit_sphere(waves: _Waves) -> tuple[float, float]:
    """Mean and standard deviation over the unit sphere, where exp(i k · u) has the mean sin |k| / |k|."""

    def mean_of(vectors: Points, phases: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.cos(phases) * np.sinc(np.linalg.norm(vectors, axis=-1) / math.pi)

    k, phase, height = waves
    mean = float(mean_of(k, phase) @ height)
    products = mean_of(k[:, None] + k, phase[:, None] + phase) + mean_of(k[:, None] - k, phase[:, None] - phase)
    return mean, math.sqrt(height @ products @ height / 2 - mean**2)


def _sampled(implicit: Implicit, window: Window, voxel_size: float, spacing: float) -> NDArray[np.float32]:
    """Signed distance at every voxel of a window, from a coarse grid by cubic splines: it is smooth near the surface.

    ``spacing`` in Å is what the coarse grid may have at most.
    """
    sizes = [s.stop - s.start for s in window]
    if 0 in sizes:
        return np.zeros(sizes, dtype=np.float32)
    step = int(np.clip(spacing / voxel_size, 1, _COARSEST_PX))
    nodes = [np.arange(0, max(n - 1, 1) + step, step) for n in sizes]
    z, y, x = ((s.start + at) * voxel_size for s, at in zip(window, nodes, strict=True))
    layer = np.stack(np.broadcast_arrays(0.0, y[:, None], x), axis=-1).reshape(-1, 3)
    coarse = np.stack([_distance(implicit, layer + np.array([height, 0, 0])) for height in z])
    splines = [CubicSpline(at, np.eye(len(at)))(np.arange(n)) for at, n in zip(nodes, sizes, strict=True)]
    return along_axes(
        coarse.reshape(len(z), len(y), len(x)).astype(np.float32), [s.astype(np.float32) for s in splines]
    )


def _distance(implicit: Implicit, where: Points) -> NDArray[np.float64]:
    """Value over the length of the gradient halfway to the surface, which is right to second order."""
    value, gradient = implicit(where)
    squared = np.square(gradient).sum(axis=1)
    _, halfway = implicit(where - (0.5 * value / squared)[:, None] * gradient)
    return value / np.linalg.norm(halfway, axis=1)


def bilayer(
    distance: NDArray[np.floating],
    *,
    resolution: float,
    thickness: float = 40.0,
    heads: float = HEADS,
    tails: float = TAILS,
) -> NDArray[np.float32]:
    """Density of a lipid bilayer: head groups on both sides of the tails, blurred to the resolution.

    Two Gaussians and a slab with soft edges, as in the models that are fitted to X-ray profiles. In fluid bilayers the
    head groups are 35 to 40 Å apart, their Gaussians have standard deviations of about 3 Å and the tails' slab is 10 Å
    thinner than the distance of the heads: 38.3 and 28.5 Å for DPPC (Nagle & Tristram-Nagle 2000 Biochim Biophys Acta
    1469:159). The blur neglects the curvature.

    Parameters
    ----------
    distance
        Signed distance from the middle in Å, any shape.
    resolution
        Å, as in :func:`~tomotif.ops.density.structure_density`.
    thickness
        Distance of the two layers of head groups in Å.
    heads, tails
        Their densities in electrons/Å³, before the blur.

    Returns
    -------
    NDArray[float32], the shape of ``distance``
        Electrons/Å³; 0 is water.

    Examples
    --------
    >>> [round(float(value), 2) for value in bilayer(np.array([0.0, 20.0, 80.0]), resolution=10.0)]
    [0.2, 0.42, 0.0]
    """
    if not thickness > 2 * _HEAD_TO_TAIL:
        raise InputError(f"expected a bilayer thicker than {2 * _HEAD_TO_TAIL:g} Å, got {thickness}")
    sigma = math.hypot(_HEAD_WIDTH, blur_deviation(resolution))
    near = np.abs(distance) < thickness / 2 + 4 * sigma
    d = np.abs(distance[near])
    half, edge, soft = thickness / 2, thickness / 2 - _HEAD_TO_TAIL, math.sqrt(2) * sigma
    peaks = np.exp(-(((d - half) / soft) ** 2)) + np.exp(-(((d + half) / soft) ** 2))
    slab = (erf((edge - d) / soft) + erf((edge + d) / soft)) / 2
    density = np.zeros(distance.shape, dtype=np.float32)
    density[near] = heads * _HEAD_WIDTH / sigma * peaks + tails * slab
    return density


def surface_sites(
    distance: NDArray[np.floating], voxel_size: float, rng: np.random.Generator, count: int
) -> tuple[Points, Points]:
    """Random places on a surface, uniform by area.

    Parameters
    ----------
    distance
        Signed distance in Å, zyx.
    voxel_size
        Edge of a voxel in Å.
    rng
        Draws the places.
    count
        How many.

    Returns
    -------
    positions : NDArray[float64], shape (n, 3)
        zyx in Å from the array's corner; n is below ``count`` only where (nearly) none of the surface is in the array.
    normals : NDArray[float64], shape (n, 3)
        Unit vectors zyx towards positive distances.
    """
    # the array's rim is left out, because gradients need neighbours; a voxel reaches 0.87 of its edge from its middle
    inner = distance[1:-1, 1:-1, 1:-1]
    near = np.argwhere(np.abs(inner) < 1.4 * voxel_size) + 1
    found: list[Points] = [np.zeros((0, 3))]
    for _ in range(50 if len(near) else 0):
        # uniform in a thin shell is uniform by area
        proposals = near[rng.integers(len(near), size=4 * count)] + rng.uniform(-0.5, 0.5, (4 * count, 3))
        found.append(proposals[np.abs(_at(distance, proposals)) < 0.5 * voxel_size])
        if sum(map(len, found)) >= count:
            break
    where = np.concatenate(found)[:count]
    gradient = np.stack([_at(distance, where + e) - _at(distance, where - e) for e in np.eye(3)], axis=1)
    slope = np.linalg.norm(gradient, axis=1, keepdims=True)
    normals = gradient / slope
    return where * voxel_size - (2 * voxel_size / slope) * _at(distance, where)[:, None] * normals, normals


def _at(volume: NDArray[np.floating], where: Points) -> NDArray[np.float64]:
    """Values at places zyx in voxels, by trilinear interpolation."""
    return map_coordinates(volume, where.T, order=1, mode="nearest", output=np.float64)


def turn_to(
    normals: Sequence[Vector] | NDArray[np.floating],
    axis: Vector,
    rng: np.random.Generator,
) -> Rotation:
    """Rotations that take an axis to given directions, with a uniformly random spin about them.

    Parameters
    ----------
    normals
        Directions zyx, shape (n, 3).
    axis
        Direction zyx in the reference frame, shape (3,).
    rng
        Draws the spins.

    Returns
    -------
    Rotation
        n of them, acting on zyx vectors.

    Examples
    --------
    >>> turns = turn_to([[0, 1, 0], [-1, 0, 0]], [1, 0, 0], np.random.default_rng(0))
    >>> (turns.apply([1, 0, 0]).round(6) + 0.0).tolist()
    [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]
    """
    to = _random_bases(np.reshape(np.asarray(normals, dtype=np.float64), (-1, 3)), rng)
    start = _random_bases(np.reshape(np.asarray(axis, dtype=np.float64), (1, 3)), rng)
    return Rotation.from_matrix(to @ start.transpose(0, 2, 1))


def _random_bases(first: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Right-handed orthonormal bases, as columns, with given first vectors and a random spin about them."""
    a = first / np.linalg.norm(first, axis=1, keepdims=True)
    b = np.cross(a, rng.standard_normal(a.shape))
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return np.stack([a, b, np.cross(a, b)], axis=2)


def long_axis(structure: Structure) -> NDArray[np.float64]:
    """Unit vector zyx of the principal axis about which a structure has the least inertia.

    Of the two directions it is the one whose largest component is positive.

    Parameters
    ----------
    structure
        Weighted points.
    """
    offset = structure.positions - structure.centre_of_mass
    axis = np.linalg.eigh((offset * structure.weights[:, None]).T @ offset)[1][:, -1]
    return axis * np.sign(axis[np.argmax(np.abs(axis))])
