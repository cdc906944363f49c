"""Subtomograms on disk: one MRC volume stack of float16 boxes, memory-mapped, beside the star file of its particles."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tomotif.core import InputError, MissingWedge, Particles, Subtomograms, Tomogram
from tomotif.io.files import allocate, existing_file, replacing
from tomotif.io.mrc import HEADER_BYTES, VOLUME_STACK, map_data, new_header, read_header
from tomotif.io.star import read_particles, tilt_ranges, write_particles

STACK_NAME = "subtomograms.mrcs"
TABLE_NAME = "particles.star"
DENSITY_NAME = "density.mrcs"
"""Of simulated boxes: the particle in the middle of each alone."""


class StackRows:
    """Some boxes of a stack, in any order, read from disk when asked for: what a star file's rows point to.

    Parameters
    ----------
    stack
        All boxes, shape (m, D, D, D), memory-mapped.
    rows
        Which box each particle has, shape (n,).
    """

    def __init__(self, stack: NDArray[np.floating], rows: NDArray[np.integer]) -> None:
        self._stack, self._rows = stack, rows
        self.dtype = stack.dtype
        self.shape = (len(rows), *stack.shape[1:])
        self.ndim = stack.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> NDArray[np.floating]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        return self._stack[(self._rows[first], *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.floating]:
        return np.asarray(self._stack[self._rows], dtype=dtype)


@contextmanager
def create_stack(path: Path, count: int, box_px: int, voxel_size: float) -> Iterator[NDArray[np.float16]]:
    """Make a stack of boxes to fill in; the file appears whole when the block ends well.

    Parameters
    ----------
    path
        File to write, usually ``subtomograms.mrcs``.
    count
        Number of boxes.
    box_px
        Edge of a box in voxels.
    voxel_size
        Edge of a voxel in Å.

    Yields
    ------
    NDArray[float16], shape (count, box_px, box_px, box_px)
        Writable memory map of a file whose blocks are reserved.

    Raises
    ------
    OutputError
        When the place cannot be written or has no room; before anything is filled in.
    """
    shape = (count, box_px, box_px, box_px)
    header = new_header((count * box_px, box_px, box_px), np.float16, voxel_size, depth=box_px)
    with replacing(path) as temporary:
        allocate(temporary, HEADER_BYTES + 2 * count * box_px**3)
        with temporary.open("r+b") as file:
            file.write(header.tobytes())
        stack = np.memmap(temporary, dtype="<f2", mode="r+", offset=HEADER_BYTES, shape=shape)
        yield stack
        stack.flush()


def write_rows(stack: NDArray[np.floating], rows: NDArray[np.integer], boxes: NDArray[np.float16]) -> None:
    """Write boxes into rows of a stack that :func:`create_stack` made, or of an array in memory.

    Into a file they go by plain writes, which show in the memory map at once: touching mapped pages one by one takes
    three times as long.

    Parameters
    ----------
    stack
        Shape (n, D, D, D).
    rows
        Where each box goes, shape (k,).
    boxes
        Shape (k, D, D, D).
    """
    if not (isinstance(stack, np.memmap) and isinstance(stack.base, mmap.mmap) and stack.dtype == boxes.dtype):
        stack[rows] = boxes
        return
    size = boxes[0].nbytes
    with Path(str(stack.filename)).open("r+b", buffering=0) as file:
        for row, box in zip(rows.tolist(), np.ascontiguousarray(boxes), strict=True):
            os.pwrite(file.fileno(), box.data, stack.offset + row * size)


def open_stack(path: Path) -> tuple[NDArray[np.floating], float]:
    """Open a stack of boxes memory-mapped.

    Returns
    -------
    NDArray, shape (n, D, D, D)
        The boxes: float16 as tomotif writes them, or float32.
    float
        Edge of a voxel in Å.

    Raises
    ------
    InputError
        When it is no MRC volume stack of cubic boxes, or damaged, or its voxel size is unknown.
    """
    header = read_header(path)
    if header.space_group < VOLUME_STACK or header.mode not in (2, 12):
        raise InputError(
            f"expected an MRC volume stack (space group 401, mode 12 or 2), but {path} has space group "
            f"{header.space_group} and mode {header.mode}; make one with 'tomotif extract'"
        )
    depth, edge = header.depth, header.shape[2]
    if header.shape[1:] != (depth, depth) or header.shape[0] % depth:
        raise InputError(f"expected cubic boxes in {path}, got boxes of {depth} × {header.shape[1]} × {edge} voxels")
    if header.voxel_size is None:
        raise InputError(f"expected a voxel size in the header of {path}, got {header.spacing[2]:g} Å; set it there")
    return map_data(path, header).reshape(-1, depth, depth, depth), header.voxel_size


def read_subtomograms(
    path: Path, *, stack: Path | None = None, missing_wedge: MissingWedge | None = None
) -> Subtomograms:
    """Open extracted subtomograms: the table is read, the boxes stay on disk.

    Parameters
    ----------
    path
        Run folder of an extraction, or its ``particles.star``.
    stack
        The stack, ``subtomograms.mrcs`` beside the star by default. The table may name only some of its boxes, by
        its column ``stack_index`` (0-based); without this column row i is box i.
    missing_wedge
        Measured tilt range, for tables that do not say.

    Raises
    ------
    InputError
        When the table or the stack is missing or damaged, they do not fit, or the tilt range is not known.
    """
    table = Path(path) / TABLE_NAME if Path(path).is_dir() else Path(path)
    particles = read_particles(existing_file(table, "the star file of an extraction"))
    boxes_path = existing_file(stack or table.with_name(STACK_NAME), "the stack of subtomograms")
    boxes, voxel_size = open_stack(boxes_path)
    rows = _stack_rows(particles, boxes_path, len(boxes))
    wedge = _stored_wedge(particles) or missing_wedge or _wedge_of_tomograms(table, particles)
    in_order = len(rows) == len(boxes) and bool(np.all(rows == np.arange(len(rows))))
    # StackRows answers shape, len() and indexing like an array, but does not load the boxes as indexing one would
    view = boxes if in_order else cast(NDArray[np.floating], StackRows(boxes, rows))
    return Subtomograms(particles, view, voxel_size, wedge)


def write_subtomogram_table(
    path: Path,
    particles: Particles,
    *,
    missing_wedge: MissingWedge,
    voxel_size: float,
    tomograms: Sequence[Tomogram],
    style: Literal["relion5", "relion3.1"] = "relion5",
) -> None:
    """Write the star file of a stack that is already there.

    Parameters
    ----------
    path
        Star file, usually ``particles.star`` beside ``subtomograms.mrcs``.
    particles
        One row a box; the column ``stack_index`` says which box, row i is box i without it.
    missing_wedge
        Measured tilt range that the boxes share.
    voxel_size
        Edge of a voxel of the boxes in Å.
    tomograms
        Those that the particles lie in.
    style
        How positions are written, see :func:`tomotif.io.star.write_particles`.
    """
    extra: dict[str, Any] = {
        "general.tomotifTiltMin": missing_wedge.tilt_min,
        "general.tomotifTiltMax": missing_wedge.tilt_max,
        "general.tomotifTiltAxis": missing_wedge.tilt_axis,
        "optics.rlnImagePixelSize": voxel_size,
        "optics.rlnImageDimensionality": 3,
    }
    if "stack_index" not in particles:
        extra["stack_index"] = np.arange(len(particles))
    write_particles(path, particles.with_columns(**extra), tomograms=tomograms, style=style)


def _stack_rows(particles: Particles, path: Path, count: int) -> NDArray[np.int64]:
    """Which box each particle has, checked against the number of boxes."""
    if "stack_index" not in particles:
        if len(particles) != count:
            raise InputError(
                f"expected a particle for each of the {count} boxes of {path}, got {len(particles)} rows without a "
                "column tomotifStackIndex; the star file and the stack are not of one extraction"
            )
        return np.arange(count)
    rows = particles["stack_index"].to_numpy(dtype=np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise InputError(
            f"expected box numbers from 0 to {count - 1} for {path}, got {rows.min()} to {rows.max()} in "
            "tomotifStackIndex; the star file and the stack are not of one extraction"
        )
    return rows


def _stored_wedge(particles: Particles) -> MissingWedge | None:
    """The tilt range an extraction wrote down, if it did."""
    columns = [f"general.tomotifTilt{key}" for key in ("Min", "Max", "Axis")]
    if not len(particles) or not all(column in particles for column in columns):
        return None
    low, high, axis = (particles[column].iloc[0] for column in columns)
    return MissingWedge(float(low), float(high), axis)


def _wedge_of_tomograms(table: Path, particles: Particles) -> MissingWedge:
    """The one tilt range of the tomograms in ``tomograms.star`` beside the table."""
    beside = table.with_name("tomograms.star")
    ranges = tilt_ranges(beside) if beside.exists() else {}
    wedges = {ranges[name] for name in set(particles.tomogram) if name in ranges}
    if len(wedges) != 1:
        raise InputError(f"expected one tilt range for the subtomograms of {table}, got {len(wedges)}; give it")
    return wedges.pop()
