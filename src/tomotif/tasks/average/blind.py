"""Blind averaging: the boxes of one class → orientations, shifts and half-sets, with no reference but the boxes.

1. Several starts from random orientations (:mod:`tomotif.tasks.average.starts`); the likeliest goes on, in the hand
   that is likelier.
2. Its map, low-passed, is searched in every box: the common start of both halves.
3. The halves are refined apart (:mod:`tomotif.tasks.average.halves`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomotif.core import Subtomograms
from tomotif.io.files import replacing
from tomotif.ops.align import Reference
from tomotif.ops.expectation import FourierBlend, expect
from tomotif.ops.fit import mirrored
from tomotif.ops.orientations import uniform_rotations
from tomotif.ops.symmetry import best_symmetry, find_axes, symmetrise
from tomotif.tasks.average.group import Group, all_coefficients, shift_grid, tensor
from tomotif.tasks.average.halves import Aligned, Report, refine_halves, search_all
from tomotif.tasks.average.settings import AlignSettings
from tomotif.tasks.average.starts import (
    Start,
    Step,
    first_steps,
    further_steps,
    grow,
    map_agreement,
    standard_errors,
)

STARTING = "starting from random orientations"
SURE_HAND = 3.0
"""Standard errors by which one hand must be likelier than the other."""


def align(
    subtomograms: Subtomograms,
    rows: NDArray[np.int64],
    settings: AlignSettings,
    rng: np.random.Generator,
    *,
    symmetry: str = "C1",
    state: Path | None = None,
    report: Report | None = None,
) -> Aligned:
    """Find the poses of particles of one kind from the particles alone.

    Parameters
    ----------
    subtomograms
        Bright boxes.
    rows
        Those of one class, at least 8.
    settings
        How to align.
    rng
        Decides the starts and the half-sets.
    symmetry
        Point group of the structure, or "auto" for the one that independent halves bear out.
    state
        File that keeps what is done after each round, with others beside it for the starts; a killed run continues.
    report
        Progress.

    Raises
    ------
    InputError
        When there are fewer than 8 particles, or a GPU is asked for and there is none.
    """
    tell = report or (lambda what, done, total: None)
    group = Group.of(subtomograms, rows, settings)
    if state is not None and state.exists():
        aligned = Aligned.load(state)
    else:
        aligned = common_start(group, rng, symmetry, tell, state)
        if state is not None:
            aligned.save(state)
    while aligned.round < settings.rounds:
        aligned = refine_halves(group, aligned, np.random.default_rng((aligned.round, len(rows))), tell)
        if state is not None:
            aligned.save(state)
    return aligned


def common_start(
    group: Group, rng: np.random.Generator, symmetry: str, report: Report, state: Path | None = None
) -> Aligned:
    """Several starts at low resolution, the likeliest grown on, and its map searched in every box."""
    settings, n = group.settings, len(group.rows)
    index = np.sort(rng.permutation(n)[: settings.start_particles])
    total = settings.starts + 2
    starts = []
    for number, child in enumerate(rng.spawn(settings.starts)):
        path = state and state.with_name(f"{state.stem}_start{number}.npz")
        starts.append(kept(path, partial(grow, group, index, child, first_steps(group.highest_start))))
        report(STARTING, number + 1, total)
    chosen = int(np.argmax([start.mean for start in starts]))
    best, margin = likelier_hand(group, index, rng, starts[chosen])
    report(STARTING, total - 1, total)
    agreement = [map_agreement(best.volume, s.volume, best.highest) for i, s in enumerate(starts) if i != chosen]
    if steps := further_steps(group.highest_start):
        best = grow(group, index, rng, steps, best)
    report(STARTING, total, total)
    name, volume = symmetry, best.volume
    if name == "auto":
        name = best_symmetry(*split_maps(group, best, rng), highest=group.highest_start).name
    if name != "C1":
        volume = symmetrise(volume, find_axes(volume, name, highest=best.highest).operations)
    poses = search_all(group, volume, best.highest, lambda d, t: report("searching every box", d, t))
    half = np.ones(n, dtype=np.int64)
    half[rng.permutation(n)[n // 2 :]] = 2
    return Aligned(
        rows=group.rows,
        poses=poses,
        half=half,
        round=0,
        symmetry=name,
        start_resolution=group.length / best.highest,
        start=best.volume,
        likelihoods=tuple(start.mean for start in starts),
        agreement=float(np.mean(agreement)) if agreement else float("nan"),
        hand_margin=margin,
        hands_alike=map_agreement(best.volume, mirrored(best.volume), best.highest),
    )


def kept(path: Path | None, make: Callable[[], Start]) -> Start:
    """A start that a killed run finished, or a new one, which is kept."""
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as found:
            return Start(tuple(found["volumes"]), found["likelihood"], found["share"], float(found["highest"]))
    start = make()
    if path is not None:
        with replacing(path) as part, part.open("wb") as file:
            np.savez(
                file,
                volumes=np.stack(start.volumes),
                likelihood=start.likelihood,
                share=start.share,
                highest=start.highest,
            )
    return start


def likelier_hand(
    group: Group, index: NDArray[np.int64], rng: np.random.Generator, start: Start
) -> tuple[Start, float]:
    """A start or its mirror image, both grown on in the same way; and how sure that is, in standard errors.

    A start of the wrong hand is a map that boxes fit nearly as well, and seldom finds its way to the right one at the
    frequency of the starts. One cycle a box further it does, so hands that are undecided are grown on there.
    """
    hands = [Start((v,), start.likelihood, start.share, start.highest) for v in (start.volume, mirrored(start.volume))]
    margin = 0.0
    for highest in dict.fromkeys((start.highest, min(start.highest + 1, group.highest_start))):
        hands = [grow(group, index, rng, [Step(highest, 1152, 8, 8)], hand) for hand in hands]
        difference = hands[0].likelihood - hands[1].likelihood
        margin = standard_errors(float(difference.mean()), float(difference.std()), len(difference))
        if abs(margin) >= SURE_HAND:
            break
    return hands[int(margin < 0)], abs(margin)


def split_maps(group: Group, start: Start, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two maps, each of half of the boxes in the poses of a start."""
    index = rng.permutation(len(group.rows))[: group.settings.start_particles]
    band, shifts = group.band(start.highest), tensor(shift_grid(group.settings), group.device)
    turn = tensor(uniform_rotations(group.settings.rotations).as_matrix(), group.device)
    reference, data = Reference.of(start.volume, device=group.device), all_coefficients(group, index, band)
    blends = [FourierBlend.zero(group.size, group.device) for _ in (0, 1)]
    for number, blend in enumerate(blends):
        expect(data[number::2], [reference], band, turn, shifts, [blend])
    return blends[0].volume(), blends[1].volume()
