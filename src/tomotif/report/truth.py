"""What is really there, for runs on simulated data: the true class of each of a run's particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomotif.core import BACKGROUND, Particles
from tomotif.io.star import read_particles, read_tomograms
from tomotif.ops.metrics import match
from tomotif.report.blocks import numbers, texts
from tomotif.report.runs import PARTICLES, TOMOGRAMS, Run, origins, wrote_simulation

NAMING = ("classify", "discover")  # commands that write their own answer over the class
FRACTION = 0.5  # of a true particle's radius within which a pick is that particle, as `tomotif score` has it
BY_ROW = "The truth is that of the simulation that made the boxes."
BY_PLACE = (
    f"The truth is that of the simulated tomogram: a pick within {FRACTION:g} × the radius of a true particle, one to "
    "one, is that particle, any other is background."
)


@dataclass(frozen=True, eq=False)
class Truth:
    """True class of each particle, "" where unknown, shape (n,), and the sentence that says how it is known."""

    names: NDArray[np.object_]
    how: str

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which particles have a true class, shape (n,)."""
        return np.asarray(self.names != "", dtype=bool)


def true_classes(run: Run) -> Truth | None:
    """True classes of the particles of a run; None where no truth is known of any.

    Boxes that were simulated, or cut at the true positions, know their class row by row. Picks in a simulated tomogram
    get the class of the true particle that they match one to one, "background" where they match none; picks in other
    tomograms get "".

    Parameters
    ----------
    run
        A run with particles.

    Raises
    ------
    InputError
        When a file that holds the truth is damaged.
    """
    chain = origins(run)
    simulated = chain[-1].command == "simulate"
    names = classes_by_row(chain) if simulated else classes_by_place(run)
    return None if names is None or not (names != "").any() else Truth(names, BY_ROW if simulated else BY_PLACE)


def classes_by_row(chain: list[Run]) -> NDArray[np.object_] | None:
    """The class column that came from the simulation: that of the table before the oldest run that named particles."""
    named = max((i for i, run in enumerate(chain) if run.command in NAMING), default=-1)
    found, source = chain[0].particles, chain[named + 1].particles
    if "class" not in source or len(source) != len(found):
        return None
    mine, theirs = numbers(found, "stack_index"), numbers(source, "stack_index")
    if mine is not None and theirs is not None and not np.array_equal(mine, theirs):
        return None
    return texts(source, "class")


def classes_by_place(run: Run) -> NDArray[np.object_] | None:
    """Classes of the true particles where a run's particles are, in those of its tomograms that were simulated."""
    if not (run / TOMOGRAMS).is_file():
        return None
    names = np.full(len(run.particles), "", dtype=object)
    known = False
    for tomogram in read_tomograms(run / TOMOGRAMS, check=False):
        rows = np.flatnonzero(run.particles.tomogram == tomogram.name)
        if tomogram.path is None or not len(rows) or not wrote_simulation(tomogram.path):
            continue
        truth = read_particles(tomogram.path.parent / PARTICLES)
        names[rows] = matched_classes(run.particles.take(rows), truth)
        known = True
    return names if known else None


def matched_classes(
    picks: Particles, truth: Particles, *, fraction: float = FRACTION, radius: float | None = None
) -> NDArray[np.object_]:
    """Class of the true particle that each pick matches one to one, "background" where it matches none.

    Parameters
    ----------
    picks
        n particles.
    truth
        True particles with ``class`` and ``radius`` (Å).
    fraction
        Largest distance of a match as a fraction of the true particle's radius.
    radius
        Radius of every true particle in Å, instead of the table's.

    Returns
    -------
    NDArray[object], shape (n,)
    """
    truth = truth.take((truth["class"] != BACKGROUND).to_numpy())
    reach = truth["radius"].to_numpy(np.float64) if radius is None else np.full(len(truth), radius)
    true, names = texts(truth, "class"), np.full(len(picks), BACKGROUND, dtype=object)
    for tomogram in sorted({*picks.tomogram} & {*truth.tomogram}):
        mine, theirs = (np.flatnonzero(table.tomogram == tomogram) for table in (picks, truth))
        pairs = match(picks.position[mine], truth.position[theirs], reach[theirs], fraction=fraction)
        names[mine[pairs[:, 0]]] = true[theirs[pairs[:, 1]]]
    return names
