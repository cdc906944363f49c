"""What is in a volume: complexes placed without overlap, and the scenery they lie in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import InputError, Labels, Particles, Structure
from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.ops.density import envelope_volume
from tomotif.ops.packing import Room, overlap
from tomotif.tasks.simulate.scenery import add_scenery
from tomotif.tasks.simulate.settings import TomogramSettings
from tomotif.tasks.simulate.templates import Template, check_names, chunks, templates

DISTRACTOR = "distractor"
"""The class of complexes that are there but are none of the structures asked for."""

_COLUMNS = ("class", "radius", "mass_kda", "structure", "gain")

_TURNS = 12
"""Orientations tried before a complex is said to find no room."""

_FEWEST_COPIES, _MOST_COPIES = 4, 64

_FEWEST_VOXELS = 4
"""A molecular envelope of fewer voxels than this is no shape any more."""


@dataclass(frozen=True, eq=False)
class Specimen:
    """What was in the microscope, before anything was imaged.

    Parameters
    ----------
    density
        Electrons/Å³, bright, shape zyx.
    particles
        Complexes: position of the centre of mass, orientation, and the columns ``class``, ``radius`` (see
        :func:`picking_radius`), ``mass_kda``, ``structure`` (its source), ``gain`` (its contrast against the others of
        its class) and ``visibility`` (its own share of the squared density in the smallest cube around it: 1 when it is
        alone).
    classes
        Class of every voxel inside an envelope, complexes and scenery, with the classes' names.
    instances
        Label i is row i - 1 of the particles.
    room
        Voxels that complexes could lie in.
    """

    density: NDArray[np.float32]
    particles: Particles
    classes: Labels
    instances: Labels
    room: int

    @property
    def occupancy(self) -> float:
        """Fraction of the room inside molecular envelopes."""
        return float(np.count_nonzero(self.instances.data) / self.room)


def picking_radius(structure: Structure) -> float:
    """Radius in Å of the solid ball with the structure's radius of gyration, √(5/3) Rg.

    Unlike the farthest atom's distance it does not grow with a loose tail, and unlike the radius of the ball of equal
    volume it grows for hollow and elongated complexes; so "within half a radius" means the same for all of them.
    """
    return math.sqrt(5 / 3) * structure.radius_of_gyration


def build_specimen(
    structures: Sequence[Structure], settings: TomogramSettings, rng: np.random.Generator, name: str = "simulated"
) -> Specimen:
    """Fill a volume with scenery, and then with complexes from the farthest-reaching to the smallest.

    Each complex goes to a random place where its molecular envelope lies in free specimen and touches nothing else
    (random sequential addition). The envelope is where the density exceeds the level that encloses the molecular
    volume.

    Parameters
    ----------
    structures
        One class each, named by the structure.
    settings
        Volume, crowding and scenery.
    rng
        Decides everything.
    name
        The tomogram's name.

    Raises
    ------
    InputError
        When two structures have one name, numbers do not fit the structures, voxels are too coarse for a structure, or
        so many do not find room; the message says what was reached.
    """
    check_names(structures)
    others = [load_structure(n) for n in settings.distractors]
    check_size([*structures, *others], settings)
    canvas = Canvas.empty(settings, [s.name for s in structures])
    add_scenery(canvas, rng)
    room = int(np.count_nonzero(canvas.free)) + int(np.count_nonzero(canvas.instances))
    if room == 0:
        raise InputError(f"expected room for complexes in {name}, the scenery leaves none; ask for less of it")
    wanted = [*numbers_of(structures, settings, room), *distractor_numbers(others, settings, room)]
    everything = [*structures, *others]
    labels = [s.name for s in structures] + [DISTRACTOR] * len(others)
    space = Room(canvas.free, gap_px=settings.gap_px)
    made = templates(everything, settings)
    # what reaches farthest first: hollow complexes fill little, but need much room
    for kind in np.argsort([-picking_radius(s) for s in everything], kind="stable"):
        _place(canvas, space, made[kind], labels[kind], int(wanted[kind]), rng, room)
    return canvas.finished(name, room)


@dataclass(eq=False)
class Canvas:
    """A specimen in the making."""

    settings: TomogramSettings
    density: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    ice: NDArray[np.bool_]
    free: NDArray[np.bool_]
    names: list[str]
    rows: list[dict[str, object]] = field(default_factory=list)
    places: list[NDArray[np.float64]] = field(default_factory=list)
    turns: list[NDArray[np.float64]] = field(default_factory=list)
    windows: list[tuple[tuple[slice, ...], float]] = field(default_factory=list)

    @classmethod
    def empty(cls, settings: TomogramSettings, names: Sequence[str]) -> Canvas:
        """A slab of ice, free within its thickness; the classes' labels are in alphabetical order."""
        shape = settings.shape
        ice = np.zeros(shape, dtype=bool)
        half = min(settings.thickness / settings.voxel_size, shape[0]) / 2
        ice[round(shape[0] / 2 - half) : round(shape[0] / 2 + half)] = True
        return cls(
            settings,
            np.zeros(shape, dtype=np.float32),
            np.zeros(shape, dtype=np.uint8),
            np.zeros(shape, dtype=np.uint16),
            ice,
            ice.copy(),
            sorted(names),
        )

    def label(self, name: str) -> int:
        """The label of a class, which gets one when it has none."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + 1

    def add(
        self,
        structure: Structure,
        named: str,
        stamp: NDArray[np.float32],
        mask: NDArray[np.bool_],
        place: tuple[int, int, int],
        pose: tuple[NDArray[np.float64], NDArray[np.float64]],
        gain: float,
    ) -> None:
        """Put one complex in; ``pose`` is its quaternion, and the fraction of a voxel that its position is off."""
        inside, kept = overlap(self.settings.shape, len(stamp), place)
        self.density[inside] += np.float32(gain) * stamp[kept]
        self.instances[inside][mask[kept]] = len(self.rows) + 1
        self.classes[inside][mask[kept]] = self.label(named)
        self.windows.append((inside, float(np.square(stamp[kept]).sum()) * gain**2))
        self.places.append((np.array(place) + pose[1]) * self.settings.voxel_size)
        self.turns.append(pose[0])
        self.rows.append(
            {
                "class": named,
                "radius": picking_radius(structure),
                "mass_kda": structure.mass_kda,
                "structure": structure.source,
                "gain": gain,
            }
        )

    def finished(self, name: str, room: int) -> Specimen:
        """The specimen as a noun."""
        columns: dict[str, list[object]] = {key: [row[key] for row in self.rows] for key in _COLUMNS}
        columns["visibility"] = [
            min(1.0, own / max(float(np.square(self.density[inside]).sum()), 1e-30)) for inside, own in self.windows
        ]
        particles = Particles.create(
            name,
            np.reshape(self.places, (-1, 3)),
            Rotation.from_quat(np.reshape(self.turns, (-1, 4))),
            columns,
        )
        voxel = self.settings.voxel_size
        names = dict(enumerate(self.names, start=1))
        return Specimen(
            self.density, particles, Labels(self.classes, voxel, names), Labels(self.instances, voxel), room
        )


def _place(
    canvas: Canvas,
    space: Room,
    template: Template,
    named: str,
    count: int,
    rng: np.random.Generator,
    room: int,
) -> None:
    """Put ``count`` copies of a structure into the free space."""
    gains = draw_gains(count, canvas.settings.contrast_spread, rng)
    copies = turned_copies(template, rng, count)
    for number in range(count):
        for _ in range(_TURNS):
            stamp, mask, quaternion, fraction = next(copies)
            place = space.find(mask, rng)
            if place is not None:
                break
        else:
            reached = np.count_nonzero(canvas.instances) / room
            raise InputError(
                f"expected room for {count} of {template.structure.name}, found it for {number}, with an occupancy of "
                f"{reached:.3f} reached; ask for fewer or for a larger volume"
            )
        space.take(mask, place)
        canvas.add(template.structure, named, stamp, mask, place, (quaternion, fraction), float(gains[number]))


def turned_copies(
    template: Template, rng: np.random.Generator, expected: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]]:
    """Density, envelope, orientation and fraction of a voxel of randomly turned copies, without end.

    About as many as are ``expected`` are made at once, but no more than fit the processor's cache.
    """
    most = len(chunks(_MOST_COPIES, template.size)[0])
    while True:
        batch = int(np.clip(expected, _FEWEST_COPIES, most))
        expected -= batch
        rotations, fractions = random_rotations(batch, rng), rng.uniform(-0.5, 0.5, (batch, 3))
        stamps = template.stamps(rotations, fractions)
        for stamp, quaternion, fraction in zip(stamps, rotations.as_quat(), fractions, strict=True):
            yield stamp, template.envelope(stamp), quaternion, fraction


def draw_gains(count: int, spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Contrast of each particle: log-normal about a mean of 1 with a relative standard deviation."""
    sigma = math.sqrt(math.log1p(spread**2))
    return np.exp(sigma * rng.standard_normal(count) - sigma**2 / 2) if spread else np.ones(count)


def check_size(structures: Sequence[Structure], settings: TomogramSettings) -> None:
    """Refuse voxels that are too coarse for a structure."""
    for structure in structures:
        volume = envelope_volume(structure)
        if volume < _FEWEST_VOXELS * settings.voxel_size**3:
            raise InputError(
                f"expected voxels fine enough for {structure.name}, whose envelope of {volume / 1000:.0f} nm³ should "
                f"fill {_FEWEST_VOXELS} voxels, got voxels of {settings.voxel_size:g} Å; ask for at most "
                f"{(volume / _FEWEST_VOXELS) ** (1 / 3):.1f} Å, or leave it out"
            )


def numbers_of(structures: Sequence[Structure], settings: TomogramSettings, room: int) -> NDArray[np.int64]:
    """How many of each structure lie in so many voxels of room."""
    given = settings.counts if settings.counts is not None else settings.abundances
    if given is not None and len(given) not in (1, len(structures)):
        raise InputError(f"expected one number for each of {len(structures)} structures, or one for all, got {given}")
    if given is not None and (min(given) < 0 or sum(given) <= 0):
        raise InputError(f"expected numbers of structures of at least 0, and some above, got {given}")
    share = np.ones(len(structures)) if given is None else np.broadcast_to(given, len(structures)).astype(float)
    if settings.counts is not None:
        return share.astype(np.int64)
    return numbers_for(structures, share, settings.occupancy * room * settings.voxel_size**3)


def distractor_numbers(others: Sequence[Structure], settings: TomogramSettings, room: int) -> NDArray[np.int64]:
    """How many of each distractor lie in so many voxels of room."""
    volume = settings.distractor_occupancy * room * settings.voxel_size**3
    return numbers_for(others, np.ones(len(others)), volume)


def numbers_for(structures: Sequence[Structure], share: NDArray[np.float64], volume: float) -> NDArray[np.int64]:
    """How many of each structure fill a volume in Å³ in these shares; at least one of each that has a share."""
    if volume == 0 or len(structures) == 0:
        return np.zeros(len(structures), dtype=np.int64)
    each = np.array([envelope_volume(s) for s in structures])
    return np.maximum(np.round(share * volume / np.sum(share * each)), share > 0).astype(np.int64)
