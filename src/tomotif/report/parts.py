"""Parts that the sections of several commands share: slices of tomograms, boxes, galleries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tomotif.core import InputError, Particles
from tomotif.io.stack import STACK_NAME, open_stack
from tomotif.io.star import read_tomograms
from tomotif.report.blocks import Section, counted, numbers
from tomotif.report.gallery import LONG, Group, group_gallery
from tomotif.report.palette import BACKGROUND_NAMES, Palette
from tomotif.report.runs import TOMOGRAMS, Run, input_folder, wrote_simulation
from tomotif.report.slices import Colouring, SliceView, of_tomograms, slice_view, take_colouring

TOMOGRAMS_SHOWN, GROUPS_SHOWN = 2, 24
PICTURE = (
    "Each picture: central xy slice (above; x right, y down) and central xz slice (below; x right, z down); dense "
    "matter is bright. Members are three slices averaged and low-passed by one voxel; means are one slice."
)


def has_column(section: Section, particles: Particles, column: str) -> bool:
    """Whether a table has a column; its absence is noted."""
    if column not in particles:
        section.notes.append(f"the particle table of {section.run.name} has no column {column!r}")
    return column in particles


def slice_views(run: Run, colouring: Colouring, count: int) -> list[SliceView]:
    """Slices of the tomograms of a run that hold the most particles.

    Raises
    ------
    InputError
        When the run names no tomograms, or they cannot be read.
    """
    if not (run / TOMOGRAMS).is_file():
        raise InputError(f"no {TOMOGRAMS} in {run.name}: slices are not shown")
    shown = of_tomograms(read_tomograms(run / TOMOGRAMS, check=False), run.particles)[:TOMOGRAMS_SHOWN]
    return [
        slice_view(
            tomogram,
            run.particles.take(rows),
            take_colouring(colouring, rows),
            count=count,
            simulated=wrote_simulation(tomogram.path),
        )
        for tomogram, rows in shown
    ]


def add_slices(section: Section, colouring: Colouring, count: int, title: str, caption: str = "") -> str:
    """Slices of a run's tomograms as blocks; gives the words for where the particles lie."""
    views = section.attempt(slice_views, section.run, colouring, count) or []
    for view in views:
        section.add("view", title, view, caption)
    names = sorted(set(section.run.particles.tomogram))
    if len(names) > TOMOGRAMS_SHOWN:
        section.notes.append(
            f"{len(names)} tomograms hold particles; slices of the {TOMOGRAMS_SHOWN} with the most are shown."
        )
    kind = "simulated tomogram" if views and all(view.simulated for view in views) else "tomogram"
    names = names or [view.tomogram for view in views]
    return f"the {kind} {names[0]}" if len(names) == 1 else counted(len(names), kind)


def boxes_of(run: Run) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """The stack of the extraction that a run read, and which of its boxes each particle has.

    Returns
    -------
    stack
        Shape (m, D, D, D), memory-mapped.
    rows
        Shape (n,).

    Raises
    ------
    InputError
        When the stack cannot be found or read, or is another one.
    """
    place = input_folder(run, STACK_NAME)
    if place is None:
        raise InputError(
            f"the stack {STACK_NAME} that {run.name} read was not found; pictures of single particles are not shown"
        )
    stack, _ = open_stack(place / STACK_NAME)
    index = numbers(run.particles, "stack_index")
    rows = np.arange(len(run.particles)) if index is None else index.astype(np.int64)
    if len(rows) and rows.max() >= len(stack):
        raise InputError(
            f"{place / STACK_NAME} holds {len(stack)} boxes, but {run.name} names box {rows.max()}: it is another one"
        )
    return stack, rows


def galleries(
    run: Run,
    names: NDArray[np.object_],
    palette: Palette,
    order: str | None,
    shown: tuple[int, int] = LONG,
) -> list[Group]:
    """A gallery for each name of the palette, from the stack of the extraction that the run read.

    Raises
    ------
    InputError
        When the stack cannot be found or read, or is another one.
    """
    stack, rows = boxes_of(run)
    value = numbers(run.particles, order)
    members = {name: np.flatnonzero(names == name) for name in palette.styles}
    return [
        group_gallery(
            palette[name],
            stack,
            rows[mine],
            None if value is None else value[mine],
            order_label=order or "",
            shown=shown,
        )
        for name, mine in list(members.items())[:GROUPS_SHOWN]
        if len(mine)
    ]


def gallery_caption(order: str | None, shown: tuple[int, int] = LONG) -> str:
    """What a gallery's pictures are."""
    best, spread = shown
    first = f"{best} members with the highest {order}" if order else f"{best} first members"
    return f"Members and means are not aligned. The mean, {first}, then {spread} spread over the rest. {PICTURE}"


def by_size(names: NDArray[np.object_], palette: Palette) -> Palette:
    """The styles of the names that occur, the most frequent first, those that mean "nothing" last."""
    sizes = {name: int((names == name).sum()) for name in palette.styles}
    order = sorted(palette.styles, key=lambda name: (name.lower() in BACKGROUND_NAMES, -sizes[name]))
    return Palette({name: palette[name] for name in order if sizes[name]})
