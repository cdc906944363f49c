"""Slices of a tomogram with its particles drawn as rings over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import Particles, Tomogram
from tomotif.report.figures import bin_by_mean, heat_colours, nice_length, png, smooth, stretch
from tomotif.report.palette import NEUTRAL, Palette, Style

LARGEST_PX = 640
SLAB = 60.0  # Å averaged along z
LOW_PASS = 24.0  # Å, standard deviation of the Gaussian
USUAL_RADIUS = 100.0  # Å, where a table gives none


@dataclass(frozen=True)
class Ring:
    """The section of a slice through a particle's sphere; lengths in voxels of the tomogram."""

    x: float
    y: float
    radius: float
    colour: str
    dash: str
    key: str
    title: str


@dataclass(frozen=True)
class Area:
    """What something covers of a slice: ``path`` is the data of an SVG path, closed, in voxels of the tomogram."""

    path: str
    colour: str
    dash: str
    key: str
    title: str


@dataclass(frozen=True)
class Slice:
    """One slice as the page shows it. The drawing's unit is the tomogram's voxel."""

    image: str
    alt: str
    width: float
    height: float
    rings: list[Ring]
    bar: float
    bar_label: str
    z_label: str
    areas: Sequence[Area] = ()


@dataclass(frozen=True)
class Legend:
    """One entry: a name with its colour and how many particles bear it; ``quiet`` ones are hidden at first."""

    style: Style
    count: int
    quiet: bool


@dataclass(frozen=True)
class SliceView:
    """Slices of one tomogram with a legend, or a colour scale: what it shows, its two ends and its CSS gradient."""

    tomogram: str
    slices: list[Slice]
    legend: list[Legend]
    scale: tuple[str, str, str, str] | None
    facts: str
    simulated: bool


@dataclass(frozen=True)
class Colouring:
    """How each particle is drawn.

    Parameters
    ----------
    names
        Name of each particle, for the legend; None when they are coloured by a number.
    palette
        Styles of the names.
    values
        The number they are coloured by when there are no names.
    label
        What the number is.
    quiet
        Names drawn thin, and hidden until somebody asks for them.
    """

    names: NDArray[np.object_] | None
    palette: Palette
    values: NDArray[np.floating] | None = None
    label: str = ""
    quiet: frozenset[str] = frozenset()


def slice_positions(depth: NDArray[np.floating], extent: float, count: int) -> list[float]:
    """Heights to cut at: the mid-quantiles of the particles' heights, or evenly spaced without particles.

    Parameters
    ----------
    depth
        z of the particles in Å.
    extent
        Height of the tomogram in Å.
    count
        Number of slices.

    Examples
    --------
    >>> slice_positions(np.array([]), 100.0, 2)
    [25.0, 75.0]
    """
    parts = (np.arange(count) + 0.5) / count
    heights = np.quantile(depth, parts) if len(depth) >= count else parts * extent
    return [float(np.clip(z, 0, extent)) for z in heights]


def radii(particles: Particles) -> NDArray[np.float64]:
    """Radius of each particle in Å, a usual one where the table gives none."""
    if "radius" not in particles:
        return np.full(len(particles), USUAL_RADIUS)
    given = np.asarray(particles["radius"], dtype=np.float64)
    return np.where(np.isfinite(given) & (given > 0), given, USUAL_RADIUS)


def slab_of(tomogram: Tomogram, z: float) -> slice:
    """Indices along z of the slices averaged at the height z (Å)."""
    thickness = max(1, round(SLAB / tomogram.voxel_size))
    first = int(np.clip(round(z / tomogram.voxel_size) - thickness // 2, 0, max(tomogram.shape[0] - thickness, 0)))
    return slice(first, min(first + thickness, tomogram.shape[0]))


def binning(tomogram: Tomogram) -> int:
    """Voxels of a tomogram per pixel of its displayed slices."""
    return -(-max(tomogram.shape[1:]) // LARGEST_PX)


def slab_image(tomogram: Tomogram, z: float) -> tuple[NDArray[np.float32], int]:
    """A displayed slice: dense matter bright, averaged along z and low-passed, binned to at most 640 pixels.

    Only the slices averaged are read from the file.

    Parameters
    ----------
    tomogram
        The tomogram.
    z
        Height of the slice in Å.

    Returns
    -------
    image
        Shape (ny // factor, nx // factor).
    factor
        Voxels of the tomogram per pixel.
    """
    slab = np.asarray(tomogram.volume.data[slab_of(tomogram, z)], dtype=np.float32).mean(axis=0)
    low_passed = smooth(tomogram.sign * slab, float(np.clip(LOW_PASS / tomogram.voxel_size, 0.7, 4)))
    factor = binning(tomogram)
    return np.asarray(bin_by_mean(low_passed, factor), dtype=np.float32), factor


def draw_slice(tomogram: Tomogram, z: float, rings: list[Ring], areas: Sequence[Area] = ()) -> Slice:
    """Cut one slice and give it a scale bar."""
    image, factor = slab_image(tomogram, z)
    height, width = (n * factor for n in image.shape)
    bar = nice_length(width * tomogram.voxel_size / 4)
    drawn = f"{len(areas)} patterns painted" if areas else f"{len(rings)} particles marked"
    return Slice(
        image=png(stretch(image)),
        alt=f"xy slice of {tomogram.name} at z = {z / 10:.0f} nm with {drawn}",
        width=width,
        height=height,
        rings=rings,
        bar=bar / tomogram.voxel_size,
        bar_label=f"{bar / 10:g} nm",
        z_label=f"z = {z / 10:.0f} nm",
        areas=areas,
    )


def rings_at(particles: Particles, colouring: Colouring, voxel_size: float, z: float) -> list[Ring]:
    """Rings of the particles whose sphere the height z (Å) cuts."""
    radius = radii(particles)
    off = np.abs(particles.position[:, 0] - z)
    cut = np.flatnonzero(off < radius)
    colours = [] if colouring.values is None else heat_colours(colouring.values)
    rings = []
    for i in cut:
        y, x = particles.position[i, 1:] / voxel_size + 0.5  # the drawing counts from the corner of voxel 0
        section = np.sqrt(radius[i] ** 2 - off[i] ** 2) / voxel_size
        if colouring.names is not None:
            style = colouring.palette[colouring.names[i]]
            look = (style.colour, style.dash, f"k{style.index}" + (" quiet" if style.name in colouring.quiet else ""))
            title = style.label
        else:
            assert colouring.values is not None
            look, title = (colours[i], "", "k0"), f"{colouring.label} {colouring.values[i]:.3g}"
        rings.append(Ring(float(x), float(y), max(float(section), 1.0), *look, title))
    return sorted(rings, key=lambda ring: "quiet" not in ring.key)


def slice_view(
    tomogram: Tomogram, particles: Particles, colouring: Colouring, *, count: int, simulated: bool = False
) -> SliceView:
    """Slices of a tomogram with its particles.

    Parameters
    ----------
    tomogram
        Memory-mapped; only the slices shown are read.
    particles
        Those of this tomogram.
    colouring
        Their names or numbers, in the order of the particles.
    count
        Number of slices.
    simulated
        Whether the tomogram is simulated, which the page says.
    """
    loud = np.ones(len(particles), bool)
    if colouring.names is not None and colouring.quiet:
        loud = ~np.isin(colouring.names.astype(str), list(colouring.quiet))
    shown = particles.position[loud if loud.sum() >= count else slice(None), 0]
    heights = slice_positions(shown, tomogram.volume.extent[0], count)
    legend = []
    if colouring.names is not None:
        counts = {name: int((colouring.names == name).sum()) for name in colouring.palette.styles}
        legend = [
            Legend(style, counts[name], name in colouring.quiet)
            for name, style in colouring.palette.styles.items()
            if counts[name]
        ]
    return SliceView(
        tomogram=tomogram.name,
        slices=[draw_slice(tomogram, z, rings_at(particles, colouring, tomogram.voxel_size, z)) for z in heights],
        legend=sorted(legend, key=lambda entry: (entry.style.colour == NEUTRAL, entry.style.index)),
        scale=None if colouring.values is None else colour_scale(colouring.values, colouring.label),
        facts=f"{display_facts(tomogram)} {ring_facts('radius' in particles)}",
        simulated=simulated,
    )


def colour_scale(values: NDArray[np.floating], label: str) -> tuple[str, str, str, str] | None:
    """What :func:`~tomotif.report.figures.heat_colours` colours by: label, lowest, highest, and the colours between."""
    if not len(values):
        return None
    low, high = np.nanpercentile(values, [5, 95])
    return label, f"{low:.3g}", f"{high:.3g}", ", ".join(heat_colours(np.linspace(0, 1, 21)))


def ring_facts(has_radius: bool) -> str:
    """What the rings are, in a sentence."""
    sphere = "particle's sphere" if has_radius else "particle's sphere of nominally 10 nm radius"
    return f"Rings are sections through each {sphere}."


def display_facts(tomogram: Tomogram) -> str:
    """What was done for display, in one line."""
    nz, ny, nx = tomogram.shape
    thickness = max(1, round(SLAB / tomogram.voxel_size))
    contrast = "contrast inverted for display, " if tomogram.sign < 0 else ""
    return (
        f"{nx} × {ny} × {nz} voxels (x, y, z) of {tomogram.voxel_size:g} Å. Each picture averages {thickness} "
        f"slice{'s' if thickness > 1 else ''} ({thickness * tomogram.voxel_size / 10:.3g} nm) and is low-passed with a "
        f"Gaussian; {contrast}dense matter is bright; x runs to the right, y down."
    )


def of_tomograms(tomograms: Sequence[Tomogram], particles: Particles) -> list[tuple[Tomogram, NDArray[np.intp]]]:
    """Tomograms and the rows of their particles, those with the most first; empty ones only when all are empty."""
    rows = [(tomogram, np.flatnonzero(particles.tomogram == tomogram.name)) for tomogram in tomograms]
    return sorted((pair for pair in rows if len(pair[1])), key=lambda pair: -len(pair[1])) or rows


def take_colouring(colouring: Colouring, rows: NDArray[Any]) -> Colouring:
    """The colouring of some of the particles."""
    return Colouring(
        None if colouring.names is None else colouring.names[rows],
        colouring.palette,
        None if colouring.values is None else colouring.values[rows],
        colouring.label,
        colouring.quiet,
    )
