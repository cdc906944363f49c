"""The section of embedded patterns: painted over slices of their tomograms, and which of them neighbour which."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from tomotif.core import InputError, Particles, Tomogram
from tomotif.io.mrc import open_labels
from tomotif.io.star import read_tomograms
from tomotif.report.blocks import Section, counted
from tomotif.report.figures import INK, drawn, quiet_axes
from tomotif.report.palette import COLOURS, Palette, Style
from tomotif.report.parts import TOMOGRAMS_SHOWN
from tomotif.report.patterns import Pattern, hidden, known_patterns, member_of, pattern_styles
from tomotif.report.runs import TOMOGRAMS, Run, mapping, wrote_simulation
from tomotif.report.slices import (
    Area,
    Legend,
    SliceView,
    binning,
    display_facts,
    draw_slice,
    of_tomograms,
    slab_of,
    slice_positions,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS, INTERACTIONS = "labels.mrc", "interactions.csv"
SLICES = 4
SURE = 0.05  # false discovery rate up to which a pair counts
ROWS, CROSSED = 60, 24  # pairs listed beside the sure ones, and patterns in the figure, at most
SHUN, AS_CHANCE, SEEK, DOT = COLOURS[6], "#EDF0EE", COLOURS[5], "#17211F"
PAINTED = (
    "Each picture is put back where its members lie, in their poses. Coloured is what the middle plane of the slice "
    "cuts; where patterns overlap the denser one shows."
)


# ---- painted over slices --------------------------------------------------------------------------------------------


def outline(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines halfway between the pixels inside and outside of a mask, each of shape (k, 2) as x, y in pixels.

    >>> [line] = outline(np.pad(np.ones((1, 1), bool), 1))
    >>> sorted(line[:-1].tolist())
    [[0.5, 1.0], [1.0, 0.5], [1.0, 1.5], [1.5, 1.0]]
    """
    from contourpy import LineType, contour_generator  # what matplotlib draws contours with

    lines = contour_generator(z=mask.astype(np.float64), line_type=LineType.Separate).lines(0.5)
    return [without_straight(np.asarray(line)) for line in lines]


def without_straight(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """A line without the points that it goes straight through."""
    step = np.diff(line, axis=0)
    turns = np.any(step[1:] != step[:-1], axis=1)
    return line[np.concatenate([[True], turns, [True]])]


def areas_at(plane: NDArray[np.integer], factor: int, styles: Palette, quiet: frozenset[str]) -> list[Area]:
    """What the patterns cover of a plane of labels.

    Parameters
    ----------
    plane
        Number of the pattern at each voxel, 0 for none, shape (ny, nx).
    factor
        Voxels a pixel of the picture; every factor-th label is looked at.
    styles
        Styles of the patterns by their number as text.
    quiet
        Those that are hidden at first.

    Returns
    -------
    list of Area
        One a pattern, in units of voxels from the corner of voxel 0.
    """
    height, width = (n // factor for n in plane.shape)
    seen = np.asarray(plane[factor // 2 :: factor, factor // 2 :: factor], np.int64)[:height, :width]
    areas = []
    for number, window in enumerate(find_objects(seen), 1):
        if window is None:
            continue
        corner = np.array([window[1].start, window[0].start])
        lines = outline(np.pad(seen[window] == number, 1))
        path = "".join(path_of((line - 0.5 + corner) * factor) for line in lines)  # 1 for the margin, half a pixel back
        style = styles[str(number)]
        key = f"k{style.index}" + (" quiet" if str(number) in quiet else "")
        areas.append(Area(path, style.colour, style.dash, key, style.label))
    return areas


def path_of(line: NDArray[np.float64]) -> str:
    """A closed line as data of an SVG path.

    >>> path_of(np.array([[0, 0.5], [10, 0], [0, 0.5]]))
    'M0 0.5 10 0Z'
    """
    return "M" + " ".join(f"{round(x, 1):g} {round(y, 1):g}" for x, y in line[:-1]) + "Z"


def painted_view(
    path: Path, tomogram: Tomogram, particles: Particles, styles: Palette, quiet: frozenset[str]
) -> SliceView:
    """Slices of a tomogram with the patterns painted over them; only these slices are read.

    Parameters
    ----------
    path
        Labels of the tomogram's shape.
    tomogram
        Memory-mapped.
    particles
        Those of this tomogram.
    styles, quiet
        As of :func:`areas_at`.

    Raises
    ------
    InputError
        When the labels are missing, damaged or of another shape.
    """
    labels = open_labels(path)
    if labels.data.shape != tomogram.shape:
        raise InputError(
            f"expected labels of the shape {tomogram.shape} of {tomogram.name} in {path}, got {labels.data.shape}"
        )
    number = member_of(particles).astype(str).astype(object)
    loud = particles.position[~np.isin(number.astype(str), list(quiet)), 0]
    factor, slices = binning(tomogram), []
    for z in slice_positions(loud if len(loud) else particles.position[:, 0], tomogram.volume.extent[0], SLICES):
        slab = slab_of(tomogram, z)
        plane = labels.data[(slab.start + slab.stop) // 2]
        slices.append(draw_slice(tomogram, z, [], areas_at(plane, factor, styles, quiet)))
    counts = {name: int((number == name).sum()) for name in styles.styles}
    return SliceView(
        tomogram=tomogram.name,
        slices=slices,
        legend=[Legend(styles[name], count, name in quiet) for name, count in counts.items() if count and name != "0"],
        scale=None,
        facts=display_facts(tomogram),
        simulated=wrote_simulation(tomogram.path),
    )


def shown_tomograms(run: Run) -> list[tuple[Tomogram, NDArray[np.intp]]]:
    """Tomograms of a run and the rows of their particles, those with the most first.

    Raises
    ------
    InputError
        When the run names no tomograms, or they or the particles cannot be read.
    """
    if not (run / TOMOGRAMS).is_file():
        raise InputError(f"no {TOMOGRAMS} in {run.name}: slices are not shown")
    return of_tomograms(read_tomograms(run / TOMOGRAMS, check=False), run.particles)


def add_painted(section: Section, styles: Palette, quiet: frozenset[str]) -> None:
    """A view for each of the tomograms with the most members."""
    shown = section.attempt(shown_tomograms, section.run) or []
    for tomogram, rows in shown[:TOMOGRAMS_SHOWN]:
        members, path = section.run.particles.take(rows), section.run / tomogram.name / LABELS
        view = section.attempt(painted_view, path, tomogram, members, styles, quiet)
        section.add("view", "Patterns in the tomogram", view, PAINTED)
    if len(shown) > TOMOGRAMS_SHOWN:
        section.notes.append(f"{len(shown)} tomograms hold members; the {TOMOGRAMS_SHOWN} with the most are shown.")


# ---- who neighbours whom --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """One row of ``interactions.csv``: members of ``pattern`` that have one of ``neighbour`` within ``contact`` Å.

    ``in_contact`` and ``null_in_contact`` are shares of the ``count`` members, found and by chance.
    """

    pattern: int
    neighbour: int
    count: int
    contact: float
    in_contact: float
    null_in_contact: float
    enrichment: float
    p_value: float
    q_value: float

    @property
    def sure(self) -> bool:
        """Whether it counts at the usual false discovery rate."""
        return self.q_value <= SURE


@dataclass(frozen=True)
class PairRow:
    """A pair as the page lists it."""

    pattern: Style
    neighbour: Style
    sure: bool
    cells: list[str]


@dataclass(frozen=True)
class PairTable:
    """Pairs as the page lists them."""

    columns: list[str]
    rows: list[PairRow]


def read_pairs(run: Run) -> list[Pair]:
    """The pairs of a run, the surest first.

    Raises
    ------
    InputError
        When their file is missing or damaged.
    """
    path = run / INTERACTIONS
    if not path.is_file():
        raise InputError(f"no {INTERACTIONS} in {run.name}: which patterns neighbour which is not shown")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        pairs = [pair_of(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"expected the columns of interactions in {path}, got something else ({error})") from error
    return sorted(pairs, key=lambda pair: (pair.q_value, pair.p_value, -pair.enrichment))


def pair_of(row: dict[str, str]) -> Pair:
    """One row of the file."""
    return Pair(
        pattern=int(row["pattern"]),
        neighbour=int(row["neighbour"]),
        count=int(row["count"]),
        contact=float(row["contact"]),
        in_contact=float(row["in_contact"]),
        null_in_contact=float(row["null_in_contact"]),
        enrichment=float(row["enrichment"]),
        p_value=float(row["p_value"]),
        q_value=float(row["q_value"]),
    )


def pair_table(pairs: Sequence[Pair], styles: Palette) -> PairTable:
    """The sure pairs and some more, with their numbers as texts."""
    listed = [pair for i, pair in enumerate(pairs) if pair.sure or i < ROWS]
    columns = ["members", "in contact", "expected", "enrichment", "p", "q"]
    return PairTable(
        columns, [PairRow(styles[str(p.pattern)], styles[str(p.neighbour)], p.sure, cells(p)) for p in listed]
    )


def cells(pair: Pair) -> list[str]:
    """Numbers of a pair as texts.

    >>> cells(Pair(1, 2, 80, 250.0, 0.625, 0.2, 3.06, 0.001, 0.004))
    ['80', '50', '16.0', '× 3.06', '0.001', '0.004']
    """
    found, chance = pair.in_contact * pair.count, pair.null_in_contact * pair.count
    p, q = (f"{value:.2g}" for value in (pair.p_value, pair.q_value))
    return [f"{pair.count:,}", f"{found:,.0f}", f"{chance:,.1f}", f"× {pair.enrichment:.2f}", p, q]


def crossed(pairs: Sequence[Pair]) -> list[int]:
    """Patterns of the figure by number: all of them, or those of the surest pairs where they are many."""
    order = dict.fromkeys(number for pair in pairs for number in (pair.pattern, pair.neighbour))
    return sorted(list(order)[:CROSSED])


def enrichment_figure(pairs: Sequence[Pair], styles: Palette, name: str) -> str:
    """Heat map of log₂ enrichment, a row a pattern, a column a neighbour; as SVG."""
    from matplotlib.colors import LinearSegmentedColormap

    shown = crossed(pairs)
    place = {number: i for i, number in enumerate(shown)}
    inside = [pair for pair in pairs if pair.pattern in place and pair.neighbour in place]
    effect = np.full((len(shown), len(shown)), np.nan)
    for pair in inside:
        effect[place[pair.pattern], place[pair.neighbour]] = np.log2(max(pair.enrichment, 1e-3))
    limit = min(float(np.nanmax(np.abs(effect), initial=1.0)), 3.0)
    colours = LinearSegmentedColormap.from_list("effect", [SHUN, AS_CHANCE, SEEK])

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        mesh = axes.pcolormesh(effect, cmap=colours, vmin=-limit, vmax=limit, edgecolor=INK, linewidth=0.3)
        sure = [pair for pair in inside if pair.sure]
        across, down = (
            [place[number] + 0.5 for number in numbers]
            for numbers in ([pair.neighbour for pair in sure], [pair.pattern for pair in sure])
        )
        axes.scatter(across, down, s=14, color=DOT, linewidth=0)
        quiet_axes(axes, "number of the neighbour", "")
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        middle = np.arange(len(shown)) + 0.5
        axes.set_xticks(middle, [str(number) for number in shown])
        axes.set_yticks(middle, [styles[str(number)].label for number in shown], parse_math=False)
        axes.invert_yaxis()
        bar = figure.colorbar(mesh, ax=axes, extend="both", aspect=2 * max(len(shown), 4), pad=0.02)
        bar.set_label("log₂ enrichment", color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, length=0)

    return drawn(draw, name=name, size=(8.4, 1.0 + 0.27 * max(len(shown), 4)))


def add_pairs(section: Section, pairs: Sequence[Pair], styles: Palette) -> None:
    """The figure and the table of the pairs."""
    within = f"{pairs[0].contact / 10:g} nm"
    shown, all_of = len(crossed(pairs)), len({pair.pattern for pair in pairs} | {pair.neighbour for pair in pairs})
    some = f" Shown are {shown} of {all_of} patterns, those of the surest pairs." if shown < all_of else ""
    blank = " Empty: no tomogram holds both." if len(pairs) < all_of**2 else ""
    section.add(
        "charts",
        "Interactions: which patterns seek or shun each other",
        [enrichment_figure(pairs, styles, f"enrichment of neighbouring patterns, {section.run.name}")],
        f"Row: a pattern. Column: its neighbour. Orange: more members of the row have that neighbour within {within} "
        "than random placement brings (1 is twice as many); blue: fewer. A dot marks a false discovery rate q ≤ "
        f"{SURE:g}.{blank}{some}",
    )
    table = pair_table(pairs, styles)
    left = len(pairs) - len(table.rows)
    more = f" {left:,} more pairs are in {INTERACTIONS}." if left else ""
    section.add(
        "pairs_table",
        "Interactions: pairs of patterns",
        table,
        f"In contact: members of the first pattern with one of the second within {within}. Expected: the same where "
        "members are placed at random among the other particles. p: how often chance is as far off, to either side. "
        f"Sorted by q, the false discovery rate; pairs with q ≤ {SURE:g} are marked. Small effects may come from the "
        f"shape of the cell alone.{more}",
    )


def stale(run: Run, patterns: Sequence[Pattern]) -> list[str]:
    """That a run went by other groups or names than those decided now; empty when it did not."""
    used = mapping(run.settings.get("patterns"))
    now = {str(one.number): [one.group, one.name] for one in patterns if one.group}
    told = f"{run.name} was made before groups or names changed: run tomotif mine again."
    return [told] if used and now and used != now else []


# ---- one function a command -----------------------------------------------------------------------------------------


def embed_section(section: Section, classes: Palette, brief: bool) -> None:
    """Patterns painted over slices, and which of them neighbour which."""
    section.title = "Patterns in their place"
    patterns = known_patterns(section)
    if not patterns:
        return
    section.notes += stale(section.run, patterns)
    styles = pattern_styles(patterns, classes)
    section.lead = "The patterns, put back into their tomograms, and which of them lie beside which."
    add_painted(section, styles, hidden(patterns))
    pairs = section.attempt(read_pairs, section.run)
    if pairs is None:
        return
    if pairs:
        add_pairs(section, pairs, styles)
    describe(section, pairs, styles)


def describe(section: Section, pairs: Sequence[Pair], styles: Palette) -> None:
    """Say which patterns neighbour each other more, and which less, than chance has it."""
    sure = [pair for pair in pairs if pair.sure]
    seeking, shunning = ([pair for pair in sure if (pair.enrichment > 1) == more] for more in (True, False))
    beside, apart = (len({frozenset((pair.pattern, pair.neighbour)) for pair in some}) for some in (seeking, shunning))
    section.tiles.append(("Pairs side by side", f"{beside:,}"))
    if not sure:
        section.finding = (
            f"No pair of patterns is found side by side more or less often than chance has it (q ≤ {SURE:g})."
        )
        return
    count = counted(beside, "pair of patterns lies", "pairs of patterns lie")
    section.finding = f"{count} side by side more often than chance has it (q ≤ {SURE:g})"
    others = [pair for pair in seeking if pair.pattern != pair.neighbour]
    if others:
        best = others[0]
        first, second = styles[str(best.pattern)].label, styles[str(best.neighbour)].label
        section.finding += f", most surely {first} at {second} (× {best.enrichment:.2g})"
    section.finding += f"; {counted(apart, 'pair does', 'pairs do')} so less often." if apart else "."
