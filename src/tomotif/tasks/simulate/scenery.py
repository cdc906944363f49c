"""What complexes lie among: membranes with their proteins, filaments and gold beads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import Structure
from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.ops.bead import GOLD, Window, ball
from tomotif.ops.filament import (
    ACTIN_KDA,
    ACTIN_PERSISTENCE,
    MICROTUBULE_PERSISTENCE,
    TUBULIN_KDA,
    FilamentPath,
    actin,
    microtubule,
    render_subunits,
    worm_like_path,
)
from tomotif.ops.membrane import bilayer, long_axis, plane, surface_sites, turn_to, vesicle
from tomotif.ops.packing import overlap, reach
from tomotif.tasks.simulate.settings import FilamentSettings, GoldSettings, MembraneSettings
from tomotif.tasks.simulate.templates import outermost_points_of, template

if TYPE_CHECKING:
    from tomotif.tasks.simulate.specimen import Canvas

_TRIES = 20
"""Places tried for a vesicle, filament or bead before it is left out."""

_SQUARE_UM = 1e8
"""Å² in a square µm."""

_WAVELENGTH = 1500.0
"""Å; typical of the undulations of a plane."""

_CLEARANCE = 10.0
"""Å that a bound complex keeps from the head groups."""

_Filament = tuple[Callable[[FilamentPath], NDArray[np.float64]], float, float]
_FILAMENTS: dict[str, _Filament] = {
    "actin": (actin, ACTIN_KDA, ACTIN_PERSISTENCE),
    "microtubule": (microtubule, TUBULIN_KDA, MICROTUBULE_PERSISTENCE),
}


def add_scenery(canvas: Canvas, rng: np.random.Generator) -> None:
    """Put membranes, their complexes, filaments and gold beads into the canvas, in this order.

    What does not fit is left out: scenery is not counted.
    """
    for membranes in canvas.settings.membranes:
        for _ in range(membranes.count):
            _add_membrane(canvas, membranes, rng)
    for filaments in canvas.settings.filaments:
        for _ in range(filaments.count):
            _add_filament(canvas, filaments, rng)
    for gold in canvas.settings.gold:
        for _ in range(gold.count):
            _add_bead(canvas, gold, rng)


def _add_membrane(canvas: Canvas, settings: MembraneSettings, rng: np.random.Generator) -> None:
    """A surface, the bilayer along it, and the complexes on it."""
    drawn = _SURFACES[settings.kind](canvas, settings, rng)
    if drawn is None:
        return
    window, distance = drawn
    ice = canvas.free[window].copy()
    density = bilayer(distance, resolution=canvas.settings.resolution, thickness=settings.thickness)
    body = (np.abs(distance) < settings.thickness / 2 + 5) & canvas.ice[window]
    if settings.kind == "cell":
        outside = np.ones(canvas.settings.shape, dtype=bool)
        outside[window] = distance > 0
        canvas.free &= ~outside
    canvas.density[window] += density * canvas.ice[window]
    canvas.classes[window][body] = canvas.label("membrane")
    canvas.free[window] &= ~body
    _add_membrane_complexes(canvas, settings, window, distance, ice, rng)


def _add_membrane_complexes(
    canvas: Canvas,
    settings: MembraneSettings,
    window: Window,
    distance: NDArray[np.float32],
    ice: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Complexes that sit on a membrane or cross it, at random places where they overlap nothing but the membrane."""
    kinds = [(name, False) for name in settings.bound] + [(name, True) for name in settings.crossing]
    voxel = canvas.settings.voxel_size
    area = np.count_nonzero(ice & (np.abs(distance) < voxel / 2)) * voxel**2
    count = rng.poisson(settings.per_um2 * area / _SQUARE_UM) if kinds else 0
    places, normals = surface_sites(distance, voxel, rng, count)
    corner = np.array([s.start for s in window]) * voxel
    room = np.zeros(canvas.settings.shape, dtype=bool)
    room[window] = ice
    for place, normal in zip(places + corner, normals, strict=True):
        name, crosses = kinds[rng.integers(len(kinds))]
        structure = load_structure(name)
        turn, offset = _pose_at(structure, normal, crosses, settings.thickness, rng)
        _put(canvas, room, structure, turn, place + offset * normal, settings)


def _pose_at(
    structure: Structure, normal: NDArray[np.float64], crosses: bool, thickness: float, rng: np.random.Generator
) -> tuple[Rotation, float]:
    """Orientation of a complex at a membrane, and how far along the normal its centre lies in Å."""
    if crosses:
        return turn_to(normal[None], long_axis(structure) * rng.choice([-1, 1]), rng), 0.0
    turn = random_rotations(1, rng)
    inwards = reach([outermost_points_of(structure)], np.zeros(1, dtype=np.int64), turn, -normal[None])
    return turn, float(inwards[0]) + thickness / 2 + _CLEARANCE


def _put(
    canvas: Canvas,
    room: NDArray[np.bool_],
    structure: Structure,
    turn: Rotation,
    position: NDArray[np.float64],
    settings: MembraneSettings,
) -> None:
    """Put a complex at a position where only the membrane may be, unless it does not fit; it displaces lipid."""
    voxel, shape = canvas.settings.voxel_size, canvas.settings.shape
    place = np.round(position / voxel).astype(int)
    ready = template(structure, voxel, canvas.settings.resolution)
    half = ready.size // 2
    if np.any(place < half) or np.any(place + half >= shape):
        return
    stamp = ready.stamps(turn, (position / voxel - place)[None])[0]
    mask = ready.envelope(stamp)
    inside, _ = overlap(shape, len(stamp), place)
    if not np.all((room[inside] & (canvas.instances[inside] == 0))[mask]):
        return
    canvas.density[inside][mask] = 0
    canvas.free[inside][mask] = False
    canvas.add(
        structure,
        structure.name,
        stamp,
        mask,
        (int(place[0]), int(place[1]), int(place[2])),
        (turn.as_quat()[0], position / voxel - place),
        1.0,
    )


def _draw_plane(
    canvas: Canvas, settings: MembraneSettings, rng: np.random.Generator
) -> tuple[Window, NDArray[np.float32]] | None:
    """A sheet through the volume that stands on the ice more than it lies in it, as what is seen in tomograms does."""
    shape, voxel = canvas.settings.shape, canvas.settings.voxel_size
    normal = rng.standard_normal(3) * [0.3, 1, 1]
    distance = plane(
        shape,
        voxel,
        point=np.array(shape) * voxel * rng.uniform(0.2, 0.8, 3),
        normal=normal,
        amplitude=1000.0 * settings.roughness,
        wavelength=_WAVELENGTH,
        rng=rng,
    )
    return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])), distance


def _draw_vesicle(
    canvas: Canvas, settings: MembraneSettings, rng: np.random.Generator
) -> tuple[Window, NDArray[np.float32]] | None:
    """A closed membrane whose body lies in free specimen; None when no place was found."""
    shape, voxel = canvas.settings.shape, canvas.settings.voxel_size
    for _ in range(_TRIES):
        window, distance = vesicle(
            shape,
            voxel,
            centre=np.array(shape) * voxel * rng.uniform(0, 1, 3),
            radii=rng.uniform(*settings.radius, 3),
            rng=rng,
            roughness=settings.roughness,
            rotation=random_rotations(1, rng)[0],
            margin=settings.thickness + 4 * canvas.settings.resolution,
        )
        body = np.abs(distance) < settings.thickness / 2 + 5
        # what sticks out of the ice is cut off, what would run into other scenery is tried elsewhere
        if body.any() and np.all(canvas.free[window][body & canvas.ice[window]]):
            return window, distance
    return None


def _draw_cell(
    canvas: Canvas, settings: MembraneSettings, rng: np.random.Generator
) -> tuple[Window, NDArray[np.float32]] | None:
    """A cell's envelope, placed so that the middle of the volume is inside and its border passes through the volume."""
    shape, voxel = np.array(canvas.settings.shape), canvas.settings.voxel_size
    radii = rng.uniform(*settings.radius, 3)
    direction = rng.standard_normal(3) * [0.0, 1, 1]
    direction /= np.linalg.norm(direction)
    middle, extent = shape * voxel / 2, np.abs(direction) @ (shape * voxel) / 2
    distance_to_border = 1 / np.linalg.norm(direction / radii)
    centre = middle + direction * (extent * rng.uniform(0.3, 0.7) - distance_to_border)
    return vesicle(
        canvas.settings.shape, voxel, centre=centre, radii=radii, rng=rng, roughness=settings.roughness, margin=1e6
    )


_SURFACES = {"plane": _draw_plane, "vesicle": _draw_vesicle, "cell": _draw_cell}


def _add_filament(canvas: Canvas, settings: FilamentSettings, rng: np.random.Generator) -> None:
    """One filament, left out when no place was found where it meets nothing."""
    lattice, mass, usual = _FILAMENTS[settings.kind]
    voxel = canvas.settings.voxel_size
    for _ in range(_TRIES):
        start = rng.uniform(0, 1, 3) * canvas.settings.shape * voxel
        direction = rng.standard_normal(3) * [0.3, 1, 1]  # the ice is thin, so filaments lie in it
        path = worm_like_path(
            start,
            direction,
            length=float(rng.uniform(*settings.length)),
            persistence_length=settings.persistence_length or usual,
            rng=rng,
        )
        subunits = lattice(path)
        at = np.floor(subunits / voxel).astype(int)
        at = at[np.all((at >= 0) & (at < canvas.settings.shape), axis=1)]
        if len(at) == 0 or not canvas.free[tuple(at.T)].all():
            continue
        filled = render_subunits(
            canvas.density, subunits, voxel_size=voxel, mass_kda=mass, resolution=canvas.settings.resolution
        )
        canvas.classes.flat[filled] = canvas.label(settings.kind)
        canvas.free.flat[filled] = False
        return


def _add_bead(canvas: Canvas, settings: GoldSettings, rng: np.random.Generator) -> None:
    """One gold bead in free ice, left out when no place was found."""
    shape, voxel = canvas.settings.shape, canvas.settings.voxel_size
    for _ in range(_TRIES):
        window, bead = ball(
            shape,
            voxel,
            centre=rng.uniform(0, 1, 3) * shape * voxel,
            radius=float(rng.uniform(*settings.diameter)) / 2,
            resolution=canvas.settings.resolution,
        )
        body = bead > 0.5
        if body.any() and canvas.free[window][body].all():
            canvas.density[window] += GOLD * bead
            canvas.classes[window][body] = canvas.label("gold")
            canvas.free[window] &= ~body
            return
