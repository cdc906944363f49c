"""Shape of a pattern's picture: its level, the bodies in it, and what they look like however the picture is turned.

Everything is measured inside the sphere that the box holds, so that a turned picture gives the same numbers. A picture
is smoothed first; what lies above its level falls into bodies, and bodies that touch are taken apart by their
thickness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage

from tomotif.core.geometry import centre_index, radius_grid
from tomotif.ops.mask import otsu_threshold

SMOOTHING = 20.0
"""Standard deviation in Å of the Gaussian before anything is measured (at least a voxel): it leaves a ball of 40 Å
radius three quarters of its height, makes one sheet of the two leaflets of a membrane, and takes white noise down
to a seventh at one voxel."""

Kind = Literal["sheet", "filament", "globule"]

_TOP = 0.998
"""Quantile inside the sphere that is the density of the densest matter: 14 voxels in a box of 24."""
_LOW, _HIGH = 0.25, 0.4
"""Levels as shares of the densest matter above the background: a sheet shows from the low one on, even where something
four times as dense lies on it, all else from the high one on: what always surrounds a crowded particle is fainter."""
_SURE, _SURER = 4.0, 6.0
"""Both levels lie at least so many standard deviations of the noise above the background: Gaussian noise reaches four
in one voxel of 30,000. A body beside a denser one must reach six, because the noise of averages has heavier tails, and
…"""
_BESIDE = 0.5
"""… this share of the densest matter: the neighbours that poses by the longest axis line up have less."""
_SMALLEST = 25.0
"""Radius in Å of the smallest body, and …"""
_FEWEST = 7
"""… its fewest voxels: a voxel and its six neighbours."""
_MINOR = 0.15
"""A body with a smaller share of the largest one's volume is a crumb of it."""
_CORE = 0.65
"""The core of a body is where its thickness is at least this share of the largest: two balls whose neck is thinner than
this come apart, and so does a ball from a sheet."""
_WHOLE = 0.4
"""A piece that runs out of the box with at least this planarity is one sheet, however uneven."""
_DIRECTED = 0.35
"""Planarity or elongation from which what runs out of the box is a sheet or a filament; half of a box that is cut by
its sphere has 0.43, a globule of 2 : 1 has 0.5, but ends inside."""
_RUNS_OUT = 0.005
"""Share of the rim that something covers which runs out of the box; a filament of 40 Å radius covers 0.02 of that of a
box of 24 voxels of 20 Å."""
_RIM = 0.85
"""The rim of the sphere begins at this share of its radius."""
_LAYER, _BESIDE_LAYER = 20.0, (55.0, 110.0)
"""Half the thickness in Å of a layer such as a membrane, and where beside it nothing should be."""
_OUTER = (0.5, 0.85)
"""Of a layer only the ring between these shares of the sphere's radius counts, which a globule in the middle spares."""
_NORMALS, _QUARTERS = 200, 4
_STEPS, _NEAR = 10, 1.5
"""Steps to the background, and how many standard deviations of the noise to both sides are looked at."""
_EMPTY = 1e-3
"""Least noise as a share of the densest matter, for pictures without any."""


@dataclass(frozen=True)
class Body:
    """One connected thing in a picture.

    Attributes
    ----------
    volume
        Å³ above half of its own density.
    axes
        Root second moments in Å along its principal axes, largest first, of what lies above the level.
    rim
        Share of the rim of the box's sphere that it covers: 0 for a thing that ends inside the box.
    """

    volume: float
    axes: tuple[float, float, float]
    rim: float

    @property
    def radius(self) -> float:
        """Radius in Å of the ball of its volume."""
        return float(np.cbrt(3 * self.volume / (4 * math.pi)))

    @property
    def elongation(self) -> float:
        """1 for a line, 0 for a disc or a ball; with planarity and sphericity it sums to 1.

        Of the root moments a ≥ b ≥ c they are (a − b) / a, (b − c) / a and c / a (Demantké et al. 2011, ISPRS Archives
        XXXVIII-5/W12:97).
        """
        return (self.axes[0] - self.axes[1]) / self.axes[0]

    @property
    def planarity(self) -> float:
        """1 for a thin disc, 0 for a line or a ball."""
        return (self.axes[1] - self.axes[2]) / self.axes[0]

    @property
    def sphericity(self) -> float:
        """1 for a ball, 0 for a line or a thin disc."""
        return self.axes[2] / self.axes[0]

    @property
    def kind(self) -> Kind:
        """What it is: only what runs out of the box can be a sheet or a filament."""
        if self.rim < _RUNS_OUT or max(self.planarity, self.elongation) < _DIRECTED:
            return "globule"
        return "sheet" if self.planarity >= self.elongation else "filament"


@dataclass(frozen=True)
class PatternShape:
    """What is measured of a picture.

    Attributes
    ----------
    contrast
        Density of the densest matter over the background, in the picture's unit.
    signal
        The same in standard deviations of the smoothed background, at most 1000.
    filling
        Share of the box's sphere above the low level.
    one_sidedness
        Density of one half of the sphere less that of the other, as a share of the contrast; 1 at a straight edge.
    layer
        How much denser the outer ring of the best layer through the middle is than what lies beside it, in the least
        dense of its quarters, as a share of the contrast; an average of membranes keeps it where outlines break up.
    bodies
        What there is, largest first.
    """

    contrast: float
    signal: float
    filling: float
    one_sidedness: float
    layer: float
    bodies: tuple[Body, ...]


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A smoothed picture with its level.

    Attributes
    ----------
    data
        Density zyx, smoothed.
    background, noise
        The most common density inside the sphere, and the standard deviation of the densities about it.
    top
        Density of the densest matter.
    inside
        The sphere that the box holds.
    """

    data: NDArray[np.float32]
    background: float
    noise: float
    top: float
    inside: NDArray[np.bool_]

    def above(self, share: float) -> NDArray[np.bool_]:
        """Where the density exceeds a share of the densest matter's, and the noise."""
        least = max(share * (self.top - self.background), _SURE * self.noise)
        return self.inside & (self.data > self.background + least)


def smoothed(picture: Float[np.ndarray, "d d d"], voxel_size: float, *, smoothing: float = SMOOTHING) -> Smoothed:
    """Smooth a picture and find its level.

    Parameters
    ----------
    picture
        Bright picture zyx, centre d // 2.
    voxel_size
        Edge of a voxel in Å.
    smoothing
        Standard deviation in Å, at least a voxel.
    """
    data = ndimage.gaussian_filter(np.asarray(picture, np.float32), max(1.0, smoothing / voxel_size), mode="nearest")
    inside = radius_grid(data.shape) <= sphere_radius(len(data))
    values = np.sort(data[inside])
    background, noise = background_level(values)
    top = max(float(np.quantile(values, _TOP)), background)
    return Smoothed(data, background, max(noise, _EMPTY * (top - background)), top, inside)


def sphere_radius(box_px: int) -> int:
    """Radius in voxels of the largest sphere about the centre n // 2 that is wholly in the box."""
    return (box_px - 1) // 2


def background_level(values: NDArray[np.floating]) -> tuple[float, float]:
    """The most common of the lower densities, and the standard deviation of the noise about it.

    What is dense does not move them, be it a speck or half of the box: the search begins at the mode of the darker of
    the two groups that Otsu's threshold makes and goes on to the mean of what lies evenly about it; the noise is the
    scatter below.

    Parameters
    ----------
    values
        Densities in ascending order, shape (n,).

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 1, 10_000)
    >>> background, deviation = background_level(np.sort(np.append(noise, np.full(5_000, 20.0))))
    >>> abs(background) < 0.1, round(deviation, 1)
    (True, 1.0)
    """
    background = half_sample_mode(values[values <= max(otsu_threshold(values), values[0])])
    deviation = scatter_below(values, background)
    for _ in range(_STEPS):
        near = values[np.abs(values - background) <= _NEAR * deviation]
        if not len(near):
            break
        background = float(near.mean(dtype=np.float64))
        deviation = scatter_below(values, background)
    return background, deviation


def scatter_below(values: NDArray[np.floating], level: float) -> float:
    """Standard deviation of normal noise whose lower half lies so far below a level."""
    below = values[values <= level]
    return 1.482602 * float(np.median(level - below)) if len(below) else 0.0


def half_sample_mode(values: NDArray[np.floating]) -> float:
    """The most common value: the shortest stretch that holds half of the values, and again half of those.

    Bickel & Frühwirth 2006, Comput Stat Data Anal 50:3500.

    Parameters
    ----------
    values
        In ascending order, shape (n,).

    Examples
    --------
    >>> half_sample_mode(np.array([0.0, 1.0, 1.1, 1.25, 5.0, 9.0]))
    1.05
    """
    while len(values) > 2:
        half = (len(values) + 1) // 2
        first = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[first : first + half]
    return round(float(values.mean(dtype=np.float64)), 12)


def describe_picture(
    picture: Float[np.ndarray, "d d d"], voxel_size: float, *, smoothing: float = SMOOTHING
) -> PatternShape:
    """Measure what is in a picture.

    Parameters
    ----------
    picture
        Bright picture zyx: a decoded cluster centre or an average, centre d // 2.
    voxel_size
        Edge of a voxel in Å.
    smoothing
        Standard deviation in Å of the Gaussian before, at least a voxel.

    Examples
    --------
    >>> ball = (radius_grid((24, 24, 24)) <= 5).astype(np.float32)
    >>> shape = describe_picture(ball, 20.0)
    >>> len(shape.bodies), round(shape.bodies[0].radius), shape.bodies[0].rim
    (1, 96, 0.0)
    """
    seen = smoothed(picture, voxel_size, smoothing=smoothing)
    contrast = seen.top - seen.background
    bodies = [measured(mask, seen, voxel_size) for mask in body_masks(seen, voxel_size)]
    return PatternShape(
        contrast=contrast,
        signal=contrast / seen.noise if seen.noise > 0 else 0.0,
        filling=float(seen.above(_LOW).sum() / seen.inside.sum()),
        one_sidedness=one_sidedness(seen),
        layer=layer(seen, voxel_size),
        bodies=tuple(sorted(bodies, key=lambda found: -found.volume)),
    )


def measured(mask: Bool[np.ndarray, "d d d"], seen: Smoothed, voxel_size: float) -> Body:
    """Measure one body."""
    dense = seen.data[mask] - seen.background >= 0.5 * height(mask, seen)
    radius = sphere_radius(len(mask))
    rim = seen.inside & (radius_grid(mask.shape) >= _RIM * radius)
    return Body(
        volume=float(dense.sum() * voxel_size**3),
        axes=principal_axes(mask, voxel_size),
        rim=float((mask & rim).sum() / rim.sum()),
    )


def principal_axes(mask: Bool[np.ndarray, "d d d"], voxel_size: float) -> tuple[float, float, float]:
    """Root second moments of a body along its principal axes, largest first, in Å."""
    spread = np.cov(np.argwhere(mask).T, bias=True) + np.eye(3) / 12  # a voxel has a size of its own
    short, middle, long = np.sqrt(np.linalg.eigvalsh(spread)) * voxel_size
    return float(long), float(middle), float(short)


def body_masks(seen: Smoothed, voxel_size: float) -> list[NDArray[np.bool_]]:
    """The bodies in a picture, crumbs left out.

    What hangs together above the low level is one body if it is a sheet that runs out of the box. All else is looked at
    above the high level, and bodies that touch are taken apart.

    Parameters
    ----------
    seen
        The smoothed picture.
    voxel_size
        Edge of a voxel in Å.
    """
    smallest = max(_FEWEST, 4 / 3 * math.pi * (_SMALLEST / voxel_size) ** 3)
    found = []
    for piece in connected(seen.above(_LOW), smallest):
        whole = measured(piece, seen, voxel_size)
        if whole.kind == "sheet" and whole.planarity >= _WHOLE:
            found.append(piece)
        else:
            dense = connected(piece & seen.above(_HIGH), smallest)
            found += [part for core in dense for part in taken_apart(core, seen.inside, smallest)]
    least = _MINOR * max((float(mask.sum()) for mask in found), default=0.0)
    heights = [height(mask, seen) for mask in found]
    enough = min(max(heights, default=0.0), max(_BESIDE * (seen.top - seen.background), _SURER * seen.noise))
    return [mask for mask, high in zip(found, heights, strict=True) if mask.sum() >= least and high >= enough]


def height(mask: Bool[np.ndarray, "d d d"], seen: Smoothed) -> float:
    """Density of the densest matter of one body over the background."""
    return float(np.quantile(seen.data[mask], 0.95)) - seen.background


def connected(mask: Bool[np.ndarray, "d d d"], smallest: float) -> list[NDArray[np.bool_]]:
    """The pieces that hang together through faces and have so many voxels at least, largest first."""
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())[1:]
    return [pieces == 1 + i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= smallest]


def taken_apart(
    piece: Bool[np.ndarray, "d d d"], inside: Bool[np.ndarray, "d d d"], smallest: float
) -> list[NDArray[np.bool_]]:
    """The bodies of one connected piece: around its thickest cores, and what sticks out of them.

    Thickness is the distance to the nearest empty voxel inside the sphere: what is cut off by the sphere is not thin
    there. An opening by a ball of a share of the largest thickness keeps a globule and removes the sheet that it lies
    at, or a smaller globule; two equal globules fall into two cores.
    """
    thickness = ndimage.distance_transform_edt(piece | ~inside) * piece
    reach = _CORE * float(thickness.max())
    least = max(smallest, _MINOR * float(piece.sum()))
    cores, count = ndimage.label(thickness >= reach, structure=np.ones((3, 3, 3)))
    distance, nearest = ndimage.distance_transform_edt(cores == 0, return_indices=True)
    opened = piece & (distance < reach)
    owner = np.where(opened, cores[tuple(nearest)], 0)
    thick = [owner == i for i in range(1, count + 1) if (owner == i).sum() >= least]
    # the first voxel beyond a core is its skin
    outside = connected(piece & (distance >= reach + 1), least)
    return [*thick, *outside] if len(thick) + len(outside) > 1 else [piece]


def one_sidedness(seen: Smoothed) -> float:
    """How much denser one half of the sphere is than the other, as a share of the contrast.

    The halves lie along the dipole of the density; the fifth of the radius between them on both sides does not count.
    """
    contrast = seen.top - seen.background
    if contrast <= 0:
        return 0.0
    radius = sphere_radius(len(seen.data))
    place = (np.argwhere(seen.inside) - centre_index(len(seen.data))) / radius
    height = np.clip((seen.data[seen.inside] - seen.background) / contrast, 0, 1)
    dipole = height @ place
    length = float(np.linalg.norm(dipole))
    if length < 1e-6 * len(place):
        return 0.0  # as dense on every side
    along = place @ (dipole / length)
    return float(height[along > 0.2].mean() - height[along < -0.2].mean())


def layer(seen: Smoothed, voxel_size: float) -> float:
    """How clearly a layer runs through the middle of the sphere to all sides, see :class:`PatternShape`."""
    contrast = seen.top - seen.background
    if contrast <= 0:
        return 0.0
    size = len(seen.data)
    place = (np.argwhere(seen.inside) - centre_index(size)) * voxel_size
    density, away = seen.data[seen.inside], np.linalg.norm(place, axis=1)
    inner, outer = (share * sphere_radius(size) * voxel_size for share in _OUTER)
    best = 0.0
    for normal in half_sphere(_NORMALS):
        height = place @ normal
        along = np.sqrt(np.maximum(away**2 - height**2, 0))
        ring = (along > inner) & (along < outer)
        _, one, two = np.linalg.svd(normal[None])[2]
        angle = np.arctan2(place @ two, place @ one)
        quarter = np.floor((angle + np.pi) / (2 * np.pi) * _QUARTERS).astype(np.int64) % _QUARTERS
        for middle in (-_LAYER, 0.0, _LAYER):
            off = np.abs(height - middle)
            dense, beside = ring & (off < _LAYER), ring & (off > _BESIDE_LAYER[0]) & (off < _BESIDE_LAYER[1])
            rise = [
                density[dense & (quarter == q)].mean() - density[beside & (quarter == q)].mean()
                if (dense & (quarter == q)).any() and (beside & (quarter == q)).any()
                else 0.0
                for q in range(_QUARTERS)
            ]
            best = max(best, float(min(rise)))
    return best / contrast


def half_sphere(count: int) -> NDArray[np.float64]:
    """Unit vectors spread evenly over half a sphere, shape (count, 3): a Fibonacci lattice.

    >>> float(np.abs(np.linalg.norm(half_sphere(50), axis=1) - 1).max()) < 1e-12
    True
    """
    steps = np.arange(count) + 0.5
    height, angle = 1 - steps / count, np.pi * (1 + math.sqrt(5)) * steps
    across = np.sqrt(1 - height**2)
    return np.stack([height, across * np.sin(angle), across * np.cos(angle)], axis=1)


def object_mask(
    picture: Float[np.ndarray, "d d d"], voxel_size: float, *, smoothing: float = SMOOTHING
) -> tuple[NDArray[np.bool_], float]:
    """Where a picture shows something, and its background: what is painted when it is put into a tomogram.

    Parameters
    ----------
    picture, voxel_size, smoothing
        As in :func:`describe_picture`.

    Returns
    -------
    mask : NDArray[bool], shape (d, d, d)
        The bodies; empty when nothing is above the level.
    background : float
        Density of what is empty.
    """
    seen = smoothed(picture, voxel_size, smoothing=smoothing)
    bodies = body_masks(seen, voxel_size)
    return np.logical_or.reduce([np.zeros(seen.inside.shape, dtype=bool), *bodies]), seen.background


def likeness(
    boxes: Float[np.ndarray, "n d d d"],
    picture: Float[np.ndarray, "d d d"],
    voxel_size: float,
    *,
    smoothing: float = SMOOTHING,
) -> Float[np.ndarray, " n"]:
    """Correlation of boxes with a picture inside the sphere that the box holds, both smoothed.

    Parameters
    ----------
    boxes
        Bright, in the picture's frame, shape (n, d, d, d).
    picture, voxel_size, smoothing
        As in :func:`describe_picture`.

    Returns
    -------
    NDArray[float64], shape (n,)
        From -1 to 1; 0 for a constant box.
    """
    sigma = max(1.0, smoothing / voxel_size)
    inside = radius_grid(picture.shape) <= sphere_radius(len(picture))
    both = np.concatenate([picture[None], boxes]).astype(np.float64)
    values = ndimage.gaussian_filter(both, sigma, axes=(1, 2, 3), mode="nearest")[:, inside]
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1)
    return values[1:] @ values[0] / np.maximum(length[1:] * length[0], 1e-12)
