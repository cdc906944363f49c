"""Which runs belong together: those that read one another's files or look at the same tomogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tomotif.core import TomotifError
from tomotif.report.blocks import counted, listed
from tomotif.report.runs import PARTICLES, TOMOGRAMS, Run

NAMED_TOMOGRAMS = 2


def chapters_of(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Runs in connected groups, with a heading each; groups and the runs in them keep the order given.

    Parameters
    ----------
    runs
        All runs.
    """
    names = [tomogram_names(run) for run in runs]
    group = list(range(len(runs)))
    for first, second in links(runs, names):
        old, new = group[second], group[first]
        group = [new if g == old else g for g in group]
    members = {key: [i for i, g in enumerate(group) if g == key] for key in dict.fromkeys(group)}
    return [
        (heading([runs[i] for i in rows], set().union(*(names[i] for i in rows))), [runs[i] for i in rows])
        for rows in members.values()
    ]


def links(runs: Sequence[Run], names: Sequence[set[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of runs that belong together."""
    for i, run in enumerate(runs):
        for j, other in enumerate(runs):
            if i != j and (names[i] & names[j] or any(lies_in(item.get("path"), other) for item in run.inputs)):
                yield i, j


def lies_in(path: object, run: Run) -> bool:
    """Whether a recorded input is a run's folder or a file in it; of a folder that was moved the name decides."""
    if not path:
        return False
    place, folder = Path(str(path)), run.folder.resolve()
    if place.exists():
        return place.resolve() == folder or folder in place.resolve().parents
    return folder.name in (place.name, place.parent.name)


def tomogram_names(run: Run) -> set[str]:
    """Names of the tomograms that a run's particles lie in; none for boxes that were simulated one by one."""
    if not ((run / TOMOGRAMS).is_file() and (run / PARTICLES).is_file()):
        return set()
    try:
        return {str(name) for name in run.particles.tomogram}
    except TomotifError:
        return set()


def heading(runs: Sequence[Run], names: set[str]) -> str:
    """What a group of runs is about: its tomograms, or its first run."""
    if not names:
        return "Training" if any(run.command == "train" for run in runs) else runs[0].name
    simulated = " (simulated)" if any(run.command == "simulate" for run in runs) else ""
    if len(names) > NAMED_TOMOGRAMS:
        return counted(len(names), "tomogram") + simulated
    return listed(sorted(names)) + simulated
