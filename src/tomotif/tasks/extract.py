"""Extraction: a box around every particle.

Flow: ``Particles`` + ``Tomogram``s → boxes cut at the nearest voxel (or resampled) → bright, z-scored, float16 → a
stack that is given, and the ``Particles`` whose boxes lie in it. Together they are ``Subtomograms``.

Interpolation colours the noise, so a box is cut at the nearest voxel and what is left of the position is kept in the
columns ``residual_z``, ``residual_y`` and ``residual_x``; resampling is an option. Not here: files, and rotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import RESIDUALS, InputError, Particles, Progress, Settings, Tomogram, tomograms_of
from tomotif.core.geometry import centre_index
from tomotif.io.stack import write_rows
from tomotif.ops.crop import cut_boxes, inside_fraction, resample_boxes, source_size, standardise, to_half

_WORKERS = 2
_BATCH_BYTES = 2**21
"""A batch of boxes as float32, which fits into a processor's cache."""
_BATCHES = 64
"""Batches a worker takes at a time."""
_STRETCH_BYTES = 2**30
"""Length of the stretches of the stack that are written one after the other."""
_SAME = 1e-3
"""Voxel sizes that differ by less than this fraction are one."""


class ExtractSettings(Settings):
    """How boxes are cut."""

    box_px: int = Field(default=32, ge=4, le=512)
    """Edge of a box in voxels (of the output)."""
    sub_voxel: bool = False
    """Whether to interpolate so that the box's centre is the particle's position itself, not the nearest voxel."""
    output_voxel_size: float | None = Field(default=None, gt=0)
    """Edge of a voxel of the boxes in Å, to resample to; none: that of the tomograms."""
    max_padded_fraction: float = Field(default=0.5, ge=0, lt=1)
    """A particle is left out when more than this fraction of its box lies outside the tomogram."""


def box_voxel_size(tomograms: Sequence[Tomogram], settings: ExtractSettings) -> float:
    """Edge of a voxel of the boxes in Å.

    Raises
    ------
    InputError
        When the tomograms differ in voxel size and no ``output_voxel_size`` settles it.
    """
    if settings.output_voxel_size is not None:
        return settings.output_voxel_size
    first = tomograms[0]
    for other in tomograms[1:]:
        if abs(other.voxel_size / first.voxel_size - 1) > _SAME:
            raise InputError(
                f"expected tomograms of one voxel size, got {first.voxel_size:g} Å ({first.name}) and "
                f"{other.voxel_size:g} Å ({other.name}); extract them apart or give --output-voxel-size"
            )
    return first.voxel_size


def place_boxes(particles: Particles, tomograms: Sequence[Tomogram], settings: ExtractSettings) -> Particles:
    """The particles whose boxes can be cut, and where exactly: what :func:`extract` will write.

    Parameters
    ----------
    particles
        Where to cut.
    tomograms
        Those that the particles name, and perhaps others.
    settings
        Box and voxel size.

    Returns
    -------
    Particles
        The rows that stay, with the columns ``residual_z``, ``residual_y``, ``residual_x`` (Å from the box's centre
        to the particle's position) and ``padded_fraction``.

    Raises
    ------
    InputError
        When a tomogram is missing, the box is larger than a tomogram, voxel sizes differ, a position is no number, or
        no box lies sufficiently inside.
    """
    used = tomograms_of(particles, tomograms)
    box_voxel_size(list(used.values()), settings)  # refuses tomograms that differ
    residual, inside = np.zeros((len(particles), 3)), np.zeros(len(particles))
    for name, tomogram in used.items():
        rows = np.flatnonzero(particles.tomogram == name)
        centre, step = _centres(particles.position[rows], tomogram, settings), _step(tomogram, settings)
        _check_box(tomogram, settings, step)
        first = centre - centre_index(settings.box_px) * step
        residual[rows] = particles.position[rows] - centre * tomogram.voxel_size
        inside[rows] = inside_fraction(first, step, settings.box_px, tomogram.shape)
    kept = inside >= 1 - settings.max_padded_fraction
    if not kept.any():
        raise InputError(
            f"all {len(particles)} picks lie outside the tomogram or so near its border that more than "
            f"{settings.max_padded_fraction:.0%} of the box would be padding; check the voxel size of the particle "
            "table, or raise --max-padded-fraction"
        )
    columns = {name: residual[kept, i] for i, name in enumerate(RESIDUALS)}
    return particles.take(kept).with_columns(**columns, padded_fraction=1 - inside[kept])


def extract(
    particles: Particles,
    tomograms: Sequence[Tomogram],
    settings: ExtractSettings,
    stack: NDArray[np.floating],
    *,
    progress: Progress | None = None,
) -> Particles:
    """Cut a box at every particle and write it, bright and z-scored, into a stack.

    Boxes are cut in the order of their places, so that a memory-mapped tomogram is read page after page, and written
    in the order of the particles.

    Parameters
    ----------
    particles
        Where to cut; those too near the border are left out.
    tomograms
        Those that the particles name.
    settings
        Box and voxel size.
    stack
        Where to write, shape (n, D, D, D), with n the length of what :func:`place_boxes` gives; may be memory-mapped.
    progress
        Called with (boxes done, boxes in all).

    Returns
    -------
    Particles
        One row a box, with the columns of :func:`place_boxes` and ``mean`` and ``deviation`` of the bright densities
        that were taken off (deviation 0: a constant box, written as zeros), and ``stack_index``.

    Raises
    ------
    InputError
        As :func:`place_boxes`, and when a box holds NaN or infinity.
    ValueError
        When the stack has not the shape of the boxes.
    """
    placed = place_boxes(particles, tomograms, settings)
    expected = (len(placed), *(settings.box_px,) * 3)
    if stack.shape != expected:
        raise ValueError(f"expected a stack of shape {expected} for these particles, got {stack.shape}")
    mean, deviation = np.zeros(len(placed)), np.zeros(len(placed))
    used = tomograms_of(placed, tomograms)

    def cut(job: tuple[Tomogram, NDArray[np.int64]]) -> int:
        tomogram, rows = job
        for part, boxes in _boxes(placed, rows, tomogram, settings):
            inside = 1 - placed["padded_fraction"].to_numpy(dtype=np.float64)[part]
            mean[part], deviation[part] = standardise(boxes, inside, sign=tomogram.sign)
            _check_finite(tomogram, placed.position[part], deviation[part])
            write_rows(stack, part, to_half(boxes))
        return len(rows)

    done = 0
    with ThreadPoolExecutor(_WORKERS) as threads:
        for count in threads.map(cut, _jobs(placed, used, settings)):
            done += count
            if progress is not None:
                progress(done, len(placed))
    return placed.with_columns(mean=mean, deviation=deviation, stack_index=np.arange(len(placed)))


def _check_box(tomogram: Tomogram, settings: ExtractSettings, step: float) -> None:
    edge = settings.box_px * step
    if edge > min(tomogram.shape) + 1e-6:
        shape = " × ".join(map(str, tomogram.shape))
        raise InputError(
            f"expected a box within the tomogram, but {settings.box_px} voxels of {step * tomogram.voxel_size:g} Å are "
            f"{edge:g} voxels of {tomogram.name}, which has {shape} (zyx); give a smaller --box-px"
        )


def _centres(position: NDArray[np.float64], tomogram: Tomogram, settings: ExtractSettings) -> NDArray[np.float64]:
    """Centres of the boxes zyx in voxels of the tomogram: whole numbers unless a sub-voxel centre is asked for."""
    exact = position / tomogram.voxel_size
    return exact if settings.sub_voxel else np.rint(exact)


def _step(tomogram: Tomogram, settings: ExtractSettings) -> float:
    """Voxels of the tomogram to a voxel of the box; 1 exactly when nothing is to be resampled."""
    step = (settings.output_voxel_size or tomogram.voxel_size) / tomogram.voxel_size
    return 1.0 if abs(step - 1) <= _SAME else step


def _boxes(
    placed: Particles, rows: NDArray[np.int64], tomogram: Tomogram, settings: ExtractSettings
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Boxes of some particles of one tomogram, batch by batch in one memory, with the rows they belong to."""
    size, data = settings.box_px, tomogram.volume.data
    step = _step(tomogram, settings)
    interpolate = settings.sub_voxel or step != 1
    edge = source_size(size, step) if interpolate else size
    batch = _batch(edge)
    memory = np.empty((min(batch, len(rows)), edge, edge, edge), dtype=np.float32)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        first = _centres(placed.position[part], tomogram, settings) - centre_index(size) * step
        corner = np.rint(first + ((size - 1) * step - (edge - 1)) / 2).astype(np.int64)
        boxes = cut_boxes(data, corner, edge, out=memory)
        if interpolate:
            boxes = resample_boxes(boxes, first - corner, step, size)
        yield part, boxes


def _batch(edge: int) -> int:
    return max(1, _BATCH_BYTES // (4 * edge**3))


def _check_finite(tomogram: Tomogram, position: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
    bad = ~np.isfinite(deviation)
    if bad.any():
        voxel = tuple(np.rint(position[bad][0] / tomogram.voxel_size).astype(int).tolist())
        raise InputError(
            f"expected finite values in {tomogram.name}, got NaN or infinity in the box around voxel {voxel} (zyx); "
            "mask or interpolate such voxels first"
        )


def _jobs(
    placed: Particles, used: Mapping[str, Tomogram], settings: ExtractSettings
) -> Iterator[tuple[Tomogram, NDArray[np.int64]]]:
    """Rows of one tomogram that lie near one another: slabs along z, in them bands along y, in those along x.

    They are sorted within stretches of the stack, since a disk takes what is written near by faster than what is
    scattered over many gigabytes.
    """
    stretch = max(1, _STRETCH_BYTES // (2 * settings.box_px**3))
    size = _BATCHES * _batch(settings.box_px)
    for begin in range(0, len(placed), stretch):
        names = placed.tomogram[begin : begin + stretch]
        for name in dict.fromkeys(names):
            rows = begin + np.flatnonzero(names == name)
            position = placed.position[rows]
            block = position // (settings.box_px * used[name].voxel_size)
            order = rows[np.lexsort((position[:, 2], block[:, 1], block[:, 0]))]
            for start in range(0, len(order), size):
                yield used[name], order[start : start + size]
