"""Averaging with the poses of the particle table, given or found.

There is no search for better ones here, so orientations that are unknown (identity) give a map of boxes as they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import BACKGROUND, RESIDUALS, InputError, Particles, Progress, Subtomograms
from tomotif.tasks.average.settings import AverageSettings

if TYPE_CHECKING:  # torch takes its time to import, and who only reads the settings should not wait for it
    from tomotif.ops.average import FourierSum

OFFSETS = (RESIDUALS, ("shift_z", "shift_y", "shift_x"))  # columns of an extraction, and of simulated boxes
NOT_AVERAGED = {BACKGROUND: "it is no structure", "cluster_-1": "it holds what belongs to no cluster"}
UNTURNED = "all are identity, so the boxes were averaged as they lie"
HALF_SET = "rlnRandomSubset"
"""Column that says which of the two half-sets, 1 or 2, a particle belongs to."""
MASK_SHARE = 0.4
MASK_EDGE_PX = 3.0


@dataclass(frozen=True, eq=False)
class ClassAverage:
    """The average of one class.

    Attributes
    ----------
    name
        Name of the class; clusters are called ``cluster_3``.
    particles
        Number of particles averaged.
    volume
        Average of all, bright, in the reference frame, zyx, shape (D, D, D).
    halves
        Averages of the two halves.
    voxel_size
        Edge of a voxel in Å.
    frequencies, curve
        Fourier shell correlation of the halves inside a soft sphere, corrected for that mask: 1/Å and -1 to 1.
    resolution
        Å at which the curve falls below the threshold.
    mask_radius
        Radius of the soft sphere in Å.
    poses
        Where the poses come from.
    symmetry
        Point group that all three maps were averaged over.
    """

    name: str
    particles: int
    volume: NDArray[np.float32]
    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    voxel_size: float
    frequencies: NDArray[np.float64]
    curve: NDArray[np.float64]
    resolution: float
    mask_radius: float
    poses: str
    symmetry: str = "C1"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values."""
        return {
            "class": self.name,
            "particles": self.particles,
            "resolution_A": round(self.resolution, 3),
            "fsc": {"frequency": self.frequencies.round(8).tolist(), "fsc": self.curve.round(6).tolist()},
            "mask_radius_A": round(self.mask_radius, 3),
            "poses": self.poses,
            "symmetry": self.symmetry,
        }


@dataclass(frozen=True)
class SkippedClass:
    """A class that was not averaged, and why."""

    name: str
    particles: int
    reason: str


@dataclass(frozen=True, eq=False)
class Averages:
    """What came of every class, in the order of their names."""

    averages: tuple[ClassAverage, ...]
    skipped: tuple[SkippedClass, ...]


def average(
    subtomograms: Subtomograms,
    settings: AverageSettings | None = None,
    *,
    by: str = "class",
    poses: str = "given",
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
) -> Averages:
    """Average each class with the orientations and residuals of the particle table.

    A coefficient of an average is the mean over the particles whose tilt range measured it. Resolution is that of two
    half-maps inside a soft sphere, with the correlation that the sphere makes taken off. Memory does not grow with
    the number of particles.

    Parameters
    ----------
    subtomograms
        Boxes and particles; ``residual_z``, ``residual_y`` and ``residual_x`` (Å; ``shift_z`` … in simulated boxes)
        say how far the particle's position lies from the box's centre (0 without them).
    settings
        How to average.
    by
        Column that says which particles belong together, such as ``"class"`` or ``"cluster"``.
    poses
        Where the poses come from, for the record.
    rng
        Decides random halves and the random phases of the mask correction; seed 0 when not given.
    progress
        Called with the number of boxes done and of all.

    Raises
    ------
    InputError
        When there is no such column, no class has enough particles, or the mask does not fit into the box.
    """
    settings = settings or AverageSettings()
    rng = rng or np.random.default_rng(0)
    radius = mask_radius(subtomograms, settings)
    kept, skipped = kept_groups(subtomograms.particles, by, settings)
    report = counted(progress, sum(map(len, kept.values())))
    averages = tuple(
        average_class(subtomograms, rows, settings, name=name, radius=radius, poses=poses, rng=rng, report=report)
        for name, rows in kept.items()
    )
    return Averages(averages, skipped)


def kept_groups(
    particles: Particles, by: str, settings: AverageSettings
) -> tuple[dict[str, NDArray[np.int64]], tuple[SkippedClass, ...]]:
    """Rows of each class that is averaged, and the classes that are not.

    Raises
    ------
    InputError
        When there is no such column, or no class has enough particles.
    """
    groups = group_rows(particles, by)
    skipped = tuple(
        SkippedClass(name, len(rows), reason)
        for name, rows in groups.items()
        if (reason := why_skipped(name, len(rows), settings))
    )
    kept = {name: rows for name, rows in groups.items() if name not in {s.name for s in skipped}}
    if not kept:
        found = ", ".join(f"{name} {len(rows)}" for name, rows in groups.items()) or "no particle with a name"
        raise InputError(
            f"expected a {by} with at least {settings.min_particles} particles to average, got {found}; "
            "extract more particles or lower min-particles"
        )
    return kept, skipped


def average_class(
    subtomograms: Subtomograms,
    rows: NDArray[np.int64],
    settings: AverageSettings,
    *,
    name: str,
    radius: float,
    poses: str,
    rng: np.random.Generator,
    report: Callable[[int], None],
) -> ClassAverage:
    """The average of these rows, its halves and their resolution."""
    from tomotif.ops.fsc import corrected_fsc, resolution_at, soft_sphere

    voxel_size, size = subtomograms.voxel_size, subtomograms.box_px
    split = split_halves(subtomograms.particles, rows, settings, rng)
    first, second = (sum_rows(subtomograms, half, report) for half in split)
    halves, volume, symmetry = symmetric_maps(first, second, settings.symmetry)
    mask = soft_sphere((size, size, size), radius / voxel_size, MASK_EDGE_PX)
    frequencies, curve = corrected_fsc(*halves, voxel_size, mask, rng)
    turned = subtomograms.particles.orientation[rows].magnitude().max() > 1e-6
    return ClassAverage(
        name=name,
        particles=len(rows),
        volume=volume,
        halves=halves,
        voxel_size=voxel_size,
        frequencies=frequencies,
        curve=curve,
        resolution=resolution_at(frequencies, curve, settings.threshold),
        mask_radius=radius,
        poses=poses if turned else f"{poses} ({UNTURNED})",
        symmetry=symmetry,
    )


def symmetric_maps(
    first: FourierSum, second: FourierSum, symmetry: str
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32], str]:
    """Both half-maps and the map of all, averaged over a point group whose axes are found in the map of all."""
    halves, volume = (first.volume(), second.volume()), (first + second).volume()
    if symmetry == "C1":
        return halves, volume, symmetry
    from tomotif.ops.symmetry import best_symmetry, find_axes, symmetrise

    found = best_symmetry(*halves) if symmetry == "auto" else find_axes(volume, symmetry)
    if found.name == "C1":
        return halves, volume, found.name
    one, two, both = (symmetrise(m, found.operations) for m in (*halves, volume))
    return (one, two), both, found.name


def sum_rows(subtomograms: Subtomograms, rows: NDArray[np.int64], report: Callable[[int], None]) -> FourierSum:
    """Sum of these boxes turned back, read and added in batches."""
    from tomotif.ops.average import FourierSum, batch_size, fourier_sum

    shifts_px = offsets(subtomograms.particles) / subtomograms.voxel_size
    total = FourierSum.zero(subtomograms.box_px)
    for batch in batches(rows, batch_size(subtomograms.box_px)):
        boxes, turn = subtomograms.boxes(batch), subtomograms.particles.orientation[batch]
        total += fourier_sum(boxes, turn, shifts_px[batch], subtomograms.missing_wedge)
        report(len(batch))
    return total


def batches(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The rows in portions of at most this size."""
    yield from (rows[i : i + size] for i in range(0, len(rows), size))


def split_halves(
    particles: Particles, rows: NDArray[np.int64], settings: AverageSettings, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of the rows, each in ascending order; where they are as large as can be, the first has one more."""
    if settings.halves == "table" and HALF_SET in particles:
        number = particles[HALF_SET].astype(float).to_numpy()[rows]
        first, second = rows[number == 1], rows[number == 2]
        if len(first) and len(second) and len(first) + len(second) == len(rows):
            return np.sort(first), np.sort(second)
    order = rng.permutation(rows) if settings.halves == "random" else rows
    return np.sort(order[0::2]), np.sort(order[1::2])


def group_rows(particles: Particles, by: str) -> dict[str, NDArray[np.int64]]:
    """Rows of each class in the order of the names; rows without a name belong to none."""
    if by not in particles:
        raise InputError(
            f"expected a {by} for every particle to average by, got a table without one; give the folder of a run of "
            "'tomotif classify' (--by class) or 'tomotif cluster' (--by cluster)"
        )
    values = particles[by]
    rows = np.flatnonzero(values.notna() & (values.astype(str) != ""))
    names = np.array([label(value, by) for value in values.to_numpy()[rows]], dtype=object)
    return {name: rows[names == name] for name in sorted(set(names))}


def label(value: Any, by: str) -> str:
    """Name of a class: its own, or the column and the number.

    >>> label("ribosome-like", "group"), label(3.0, "cluster")
    ('ribosome-like', 'cluster_3')
    """
    if isinstance(value, str) or by == "class":
        return str(value)
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return f"{by}_{int(value) if whole else value}"


def why_skipped(name: str, particles: int, settings: AverageSettings) -> str | None:
    """Why a class is not averaged, None when it is."""
    if name in NOT_AVERAGED:
        return NOT_AVERAGED[name]
    if particles < settings.min_particles:
        return f"it has {particles} particles, fewer than the {settings.min_particles} that an average needs"
    return None


def offsets(particles: Particles) -> NDArray[np.float64]:
    """Offset of each particle's position from its box's centre, zyx in Å, shape (n, 3); 0 where no column says it."""
    for columns in OFFSETS:
        if all(column in particles for column in columns):
            return particles.columns[list(columns)].to_numpy(dtype=np.float64)
    return np.zeros((len(particles), 3))


def mask_radius(subtomograms: Subtomograms, settings: AverageSettings) -> float:
    """Radius in Å of the sphere for comparing half-maps.

    Raises
    ------
    InputError
        When the asked sphere with its soft edge is larger than the box.
    """
    voxel_size, size = subtomograms.voxel_size, subtomograms.box_px
    largest = (size / 2 - MASK_EDGE_PX) * voxel_size
    if settings.mask_radius is None:
        return min(MASK_SHARE * size * voxel_size, largest)
    if settings.mask_radius > largest:
        raise InputError(
            f"expected a mask radius of at most {largest:g} Å in boxes of {size} voxels of {voxel_size:g} Å, got "
            f"{settings.mask_radius:g}; lower --mask-radius or extract larger boxes"
        )
    return settings.mask_radius


def counted(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A function that adds up what was done and tells it to ``progress``."""
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return report
