"""Pose normalisation: every particle centred and turned by the moments of what is in its box.

Flow: ``Particles`` + ``Tomogram``s → boxes → normal poses (``ops.moments``) → boxes cut anew, turned, so that no corner
is empty → bright, z-scored, float16 → a stack that is given, and the ``Particles`` with their new positions and
orientations (Zeng et al. 2018, J Struct Biol 202:150).

The boxes of such a stack are in the reference frame: they are already turned, and each has its missing wedge elsewhere.
Whatever turns boxes by their orientation (averaging) wants those that ``extract`` cuts at the same particles. Not here:
resampling to another voxel size, files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial.transform import Rotation

from tomotif.core import RESIDUALS, InputError, Particles, Progress, Settings, Tomogram, tomograms_of
from tomotif.core.geometry import centre_index
from tomotif.io.stack import write_rows
from tomotif.ops.crop import cut_boxes, standardise, to_half
from tomotif.ops.moments import normal_poses
from tomotif.ops.rotate import sample_rotated

_WORKERS = 2
_BATCH = 16
"""Boxes at a time; a window that holds a turned box of 32³ takes a megabyte."""
_SAME = 1e-3
"""Voxel sizes that differ by less than this fraction are one."""


class NormaliseSettings(Settings):
    """How particles are brought to their normal pose."""

    box_px: int = Field(default=32, ge=8, le=128)
    """Edge of a box in voxels."""
    smoothing: float = Field(default=20.0, ge=0)
    """Standard deviation in Å of the Gaussian that takes the noise down before the object is outlined."""
    radius: float = Field(default=120.0, gt=0)
    """What lies farther than this from the middle, in Å, is not of the object; the default is the radius of the blobs
    that the published picking (70 Å · √3) answers to best. A larger one lets neighbours in."""
    rounds: int = Field(default=2, ge=1, le=10)
    """How often the pose is measured, each time in a box about the centre of mass that was found last."""
    max_padded_fraction: float = Field(default=0.25, ge=0, lt=1)
    """A particle is left out when more than this fraction of its turned box lies outside the tomogram."""


def place_normalised(
    particles: Particles,
    tomograms: Sequence[Tomogram],
    settings: NormaliseSettings,
    *,
    progress: Progress | None = None,
) -> Particles:
    """Normal poses of particles, of those whose turned boxes can be cut: what :func:`normalise` will write.

    Parameters
    ----------
    particles
        Where to look for objects; orientations are not used.
    tomograms
        Those that the particles name, and perhaps others, all of one voxel size.
    settings
        Box, smoothing, rounds.
    progress
        Called with (boxes measured, boxes in all); every round measures all.

    Returns
    -------
    Particles
        The rows that stay. Position: the object's centre of mass; orientation: from the normal pose to the tomogram.
        Columns: ``extent_1``, ``extent_2``, ``extent_3`` (root second moments in Å, falling), ``object_volume`` (Å³),
        ``moved`` (Å from the old position to the new one) and ``padded_fraction``.

    Raises
    ------
    InputError
        When a tomogram is missing or holds NaN or infinity, the box is larger than a tomogram, voxel sizes differ, a
        position is no number, or no turned box lies sufficiently inside.
    """
    used = _checked_tomograms(particles, tomograms, settings)
    position = particles.position.copy()
    quaternion, extent = np.zeros((len(particles), 4)), np.zeros((len(particles), 3))
    volume, done = np.zeros(len(particles)), 0

    def measure(job: tuple[Tomogram, NDArray[np.int64]]) -> int:
        tomogram, rows = job
        voxel = tomogram.voxel_size
        centre = np.rint(position[rows] / voxel).astype(np.int64)
        boxes = cut_boxes(tomogram.volume.data, centre - centre_index(settings.box_px), settings.box_px)
        _check_finite(tomogram, centre, boxes)
        boxes *= np.float32(tomogram.sign)
        found = normal_poses(boxes, smoothing_px=settings.smoothing / voxel, radius_px=settings.radius / voxel)
        position[rows] = np.where(found.voxels[:, None], (centre + found.shift_px) * voxel, position[rows])
        quaternion[rows], extent[rows] = found.rotation.as_quat(), found.extent_px * voxel
        volume[rows] = found.voxels * voxel**3
        return len(rows)

    with ThreadPoolExecutor(_WORKERS) as threads:
        for _ in range(settings.rounds):
            for count in threads.map(measure, list(_jobs(particles.tomogram, position, used, settings))):
                done += count
                if progress is not None:
                    progress(done, settings.rounds * len(particles))
    moved = np.linalg.norm(position - particles.position, axis=1)
    extents = {f"extent_{i + 1}": extent[:, i] for i in range(3)}
    posed = replace(particles, position=position, orientation=Rotation.from_quat(quaternion))
    inside = _inside_fractions(posed, used, settings.box_px)
    kept = inside >= 1 - settings.max_padded_fraction
    if not kept.any():
        raise InputError(
            f"all {len(particles)} particles lie outside the tomogram or so near its border that more than "
            f"{settings.max_padded_fraction:.0%} of the turned box would be padding; check the voxel size of the "
            "particle table, give a smaller --box-px, or raise --max-padded-fraction"
        )
    named = posed.with_columns(**extents, object_volume=volume, moved=moved, padded_fraction=1 - inside)
    return named.take(kept)


def normalise(
    placed: Particles,
    tomograms: Sequence[Tomogram],
    settings: NormaliseSettings,
    stack: NDArray[np.floating],
    *,
    progress: Progress | None = None,
) -> Particles:
    """Cut a turned box at every particle and write it, bright and z-scored, into a stack.

    Voxel u of a box, counted from its centre, is the density of the tomogram at position + R u, between the voxels by
    straight lines; R is the particle's orientation. So this turns by any poses, not only those from moments.

    Parameters
    ----------
    placed
        What :func:`place_normalised` gives.
    tomograms
        Those that the particles name.
    settings
        Box.
    stack
        Where to write, shape (n, D, D, D); may be memory-mapped.
    progress
        Called with (boxes done, boxes in all).

    Returns
    -------
    Particles
        One row a box, with ``mean`` and ``deviation`` of the bright densities that were taken off (deviation 0: a
        constant box, written as zeros), ``padded_fraction``, ``stack_index``, and ``residual_z``, ``residual_y``,
        ``residual_x``, which are 0: a box's centre is its particle's position.

    Raises
    ------
    InputError
        When a tomogram is missing or holds NaN or infinity, the box is larger than a tomogram, or voxel sizes differ.
    ValueError
        When the stack has not the shape of the boxes.
    """
    expected = (len(placed), *(settings.box_px,) * 3)
    if stack.shape != expected:
        raise ValueError(f"expected a stack of shape {expected} for these particles, got {stack.shape}")
    used = _checked_tomograms(placed, tomograms, settings)
    inside = _inside_fractions(placed, used, settings.box_px)
    mean, deviation, done = np.zeros(len(placed)), np.zeros(len(placed)), 0
    for tomogram, rows in _jobs(placed.tomogram, placed.position, used, settings):
        where = placed.position[rows] / tomogram.voxel_size
        boxes = turned_boxes(tomogram, where, placed.orientation[rows], settings.box_px)
        mean[rows], deviation[rows] = standardise(boxes, inside[rows], sign=tomogram.sign)
        write_rows(stack, rows, to_half(boxes))
        done += len(rows)
        if progress is not None:
            progress(done, len(placed))
    residual = dict.fromkeys(RESIDUALS, 0.0)
    return placed.with_columns(
        **residual, padded_fraction=1 - inside, mean=mean, deviation=deviation, stack_index=np.arange(len(placed))
    )


def turned_boxes(
    tomogram: Tomogram, centre: NDArray[np.float64], orientation: Rotation, box_px: int
) -> NDArray[np.float32]:
    """Boxes in the frame of their orientations, read through windows that hold their corners.

    Parameters
    ----------
    tomogram
        Where to read.
    centre
        Centres zyx in voxels, shape (n, 3).
    orientation
        n rotations from the boxes' frame to the tomogram.
    box_px
        Edge D of a box in voxels.

    Returns
    -------
    NDArray[float32], shape (n, D, D, D)
    """
    nearest = np.rint(centre).astype(np.int64)
    edge = window_size(box_px)
    windows = cut_boxes(tomogram.volume.data, nearest - centre_index(edge), edge)
    _check_finite(tomogram, nearest, windows)
    back = orientation.inv()
    shift = -back.apply(centre - nearest)  # what is left of the centre, in the box's frame
    return sample_rotated(torch.from_numpy(windows), back, shift, size=box_px).numpy()


def window_size(box_px: int) -> int:
    """Edge in voxels of the window that holds a box however it is turned, centred between the voxels.

    >>> window_size(32)
    61
    """
    corner = math.sqrt(3) * (centre_index(box_px) + 0.5)
    return 2 * (math.ceil(corner) + 1) + 1  # a voxel more, to interpolate


def turned_inside(
    centre: NDArray[np.float64], orientation: Rotation, box_px: int, shape: Sequence[int]
) -> NDArray[np.float64]:
    """Fraction of the samples of each turned box that lie in a volume.

    Parameters
    ----------
    centre
        Centres zyx in voxels of the volume, shape (n, 3).
    orientation
        n rotations from the boxes' frame to the volume.
    box_px
        Samples along an edge.
    shape
        Shape zyx of the volume, whose voxels reach half a voxel beyond their centres.

    Examples
    --------
    >>> turned_inside(np.array([[8.0, 8, 8], [0, 8, 8]]), Rotation.identity(2), 4, (16, 16, 16)).tolist()
    [1.0, 0.5]
    """
    last = np.asarray(shape) - 0.5
    reach = math.sqrt(3) * centre_index(box_px)
    near_border = np.any((centre < reach - 0.5) | (centre > last - reach), axis=1)
    axis = np.arange(box_px) - centre_index(box_px)
    offset = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.ones(len(centre))
    for row in np.flatnonzero(near_border):  # one by one: their samples together would fill the memory
        sample = orientation[row].apply(offset) + centre[row]
        inside[row] = np.all((sample >= -0.5) & (sample <= last), axis=1).mean()
    return inside


def _inside_fractions(particles: Particles, used: Mapping[str, Tomogram], box_px: int) -> NDArray[np.float64]:
    """:func:`turned_inside` of particles of several tomograms."""
    inside = np.zeros(len(particles))
    for name, tomogram in used.items():
        rows = np.flatnonzero(particles.tomogram == name)
        centre = particles.position[rows] / tomogram.voxel_size
        inside[rows] = turned_inside(centre, particles.orientation[rows], box_px, tomogram.shape)
    return inside


def _checked_tomograms(
    particles: Particles, tomograms: Sequence[Tomogram], settings: NormaliseSettings
) -> dict[str, Tomogram]:
    """The tomograms that the particles name, by name, checked to hold boxes of one voxel size."""
    used = tomograms_of(particles, tomograms)
    first = next(iter(used.values()))
    for tomogram in used.values():
        if abs(tomogram.voxel_size / first.voxel_size - 1) > _SAME:
            raise InputError(
                f"expected tomograms of one voxel size, got {first.voxel_size:g} Å ({first.name}) and "
                f"{tomogram.voxel_size:g} Å ({tomogram.name}); normalise them apart, or bin them to one"
            )
        if settings.box_px > min(tomogram.shape):
            shape = " × ".join(map(str, tomogram.shape))
            raise InputError(
                f"expected a box within the tomogram, got boxes of {settings.box_px} voxels and {tomogram.name} of "
                f"{shape} (zyx); give a smaller --box-px"
            )
    return used


def _check_finite(tomogram: Tomogram, centre: NDArray[np.int64], boxes: NDArray[np.float32]) -> None:
    bad = ~np.isfinite(boxes).all(axis=(1, 2, 3))
    if bad.any():
        raise InputError(
            f"expected finite values in {tomogram.name}, got NaN or infinity in the box around voxel "
            f"{tuple(centre[bad][0].tolist())} (zyx); mask or interpolate such voxels first"
        )


def _jobs(
    names: NDArray[np.object_],
    position: NDArray[np.float64],
    used: Mapping[str, Tomogram],
    settings: NormaliseSettings,
) -> Iterator[tuple[Tomogram, NDArray[np.int64]]]:
    """Batches of rows of one tomogram in the order of their places, so that its pages are read one after the other."""
    for name, tomogram in used.items():
        rows = np.flatnonzero(names == name)
        block = position[rows] // (settings.box_px * tomogram.voxel_size)
        order = rows[np.lexsort((position[rows, 2], block[:, 1], block[:, 0]))]
        for start in range(0, len(order), _BATCH):
            yield tomogram, order[start : start + _BATCH]
