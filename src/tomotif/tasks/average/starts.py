"""A first map from nothing but the boxes: expectation maximisation from random orientations, at low frequency.

Every map is compared only with boxes that are no part of it (each quarter against the other three), so that the
likelihood of a start tells how much of a structure it is: among several starts the likeliest is the best. It climbs
slowly, with rests, so iterations go on until it has stopped.

Two mistakes are looked for. At low resolution a map and its mirror image are nearly as likely, and a start that took
the wrong hand stays there: its mirror image is grown too. And boxes of two kinds give one map that is neither: two maps
are grown side by side (:func:`grow` with ``classes=2``), which come out alike where there is only one structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from tomotif.core import MissingWedge
from tomotif.core.geometry import random_rotations
from tomotif.io.environment import cpu_count
from tomotif.ops.align import Band, Reference, Search, SearchPlan, noise_power
from tomotif.ops.expectation import Expected, FourierBlend, expect, random_blend
from tomotif.ops.orientations import uniform_rotations
from tomotif.ops.threads import side_by_side
from tomotif.tasks.average.group import LOWEST, Group, all_coefficients, shift_grid, tensor

FOLDS = 4
"""Parts of the boxes, each compared with the map of the others."""
EARLY = 6.0
"""Frequency in cycles a box up to which starts are grown before one of them is chosen."""
_STOPPED, _STILL = 0.004, 0.02
"""Rise of the likelihood an iteration, relative and in itself, below which a map has stopped to grow."""


@dataclass(frozen=True)
class Step:
    """Iterations in one band.

    Attributes
    ----------
    highest
        Highest frequency in cycles a box.
    rotations
        Orientations of the grid, turned at random in every iteration.
    least, most
        Iterations; between them until the likelihood rises no more from one half of ``least`` to the next.
    """

    highest: float
    rotations: int
    least: int
    most: int


@dataclass(frozen=True, eq=False)
class Start:
    """Maps grown from random orientations.

    Attributes
    ----------
    volumes
        One or several, zyx, bright, in the boxes' units.
    likelihood
        Log of the likelihood ratio of the maps against no map, of every box, measured against maps of others.
    share
        Probability that a box shows each of c maps, shape (n, c).
    highest
        Highest frequency in it, in cycles a box.
    """

    volumes: tuple[NDArray[np.float32], ...]
    likelihood: NDArray[np.float64]
    share: NDArray[np.float64]
    highest: float

    @property
    def volume(self) -> NDArray[np.float32]:
        """The only map, or the first."""
        return self.volumes[0]

    @property
    def mean(self) -> float:
        """Mean likelihood."""
        return float(self.likelihood.mean())


def first_steps(highest: float, rotations: int = 1152) -> list[Step]:
    """From random orientations to a map that can be told from those of other starts."""
    return [Step(LOWEST, 576, 2, 2), Step(min(EARLY, highest), rotations, 8, 40)]


def further_steps(highest: float) -> list[Step]:
    """On from there, a cycle at a time."""
    bands = [*np.arange(EARLY + 1, highest - 0.5), highest] if highest > EARLY else []
    return [Step(float(k), 2304 if k <= 8 else 4608, *((2, 2) if k < highest else (4, 16))) for k in bands]


def grow(
    group: Group,
    index: NDArray[np.int64],
    rng: np.random.Generator,
    steps: list[Step],
    start: Start | None = None,
    *,
    classes: int = 1,
) -> Start:
    """Expectation maximisation from random orientations, or on from a start.

    Parameters
    ----------
    group
        Boxes.
    index
        Which of them, by their place in the group.
    rng
        Decides the orientations, the parts and how the grids are turned.
    steps
        Bands and iterations.
    start
        Where to go on; None to begin.
    classes
        Number of maps that compete for the boxes.
    """
    shifts = tensor(shift_grid(group.settings), group.device)
    parts = np.array_split(rng.permutation(len(index)), FOLDS)
    full = group.band(max(step.highest for step in steps))
    data = all_coefficients(group, index, full)
    maps = random_maps(data, full, parts, rng, classes) if start is None else [list(start.volumes)] * FOLDS
    blends: list[list[FourierBlend]] = []
    found: list[Expected] = []
    for step in steps:
        rise: list[float] = []
        while len(rise) < step.least or (len(rise) < step.most and rising(rise, step.least // 2)):
            band, kept = full.within(step.highest), within(full, step.highest)
            grid = uniform_rotations(step.rotations) * random_rotations(1, rng)[0]
            turn = tensor(grid.as_matrix(), group.device)
            blends, found = expect_parts(group, [data[part][:, kept] for part in parts], maps, band, turn, shifts)
            maps = [others(blends, part) for part in range(FOLDS)]
            full = with_residual_noise(full, band, found)
            if not all(np.ptp(volume) > 0 for kept in maps for volume in kept):  # one class has no box left
                return start_of(parts, blends, found, step.highest)
            rise.append(float(torch.cat([one.likelihood for one in found]).mean()))
    return start_of(parts, blends, found, steps[-1].highest)


def start_of(
    parts: list[NDArray[np.int64]], blends: list[list[FourierBlend]], found: list[Expected], highest: float
) -> Start:
    """What the last iteration left, the boxes in their order."""
    order = np.argsort(np.concatenate(parts))
    likelihood = torch.cat([one.likelihood for one in found]).cpu().double().numpy()[order]
    share = torch.cat([one.share for one in found]).cpu().double().numpy()[order]
    return Start(tuple(map(centred, others(blends, None))), likelihood, share, highest)


def rising(history: list[float], window: int) -> bool:
    """Whether the last few iterations rose above as many before them.

    >>> rising([1.0, 2.0, 3.0, 4.0], 2), rising([1.0, 4.0, 4.0, 4.0, 4.0], 2)
    (True, False)
    """
    now = float(np.mean(history[-window:]))
    before = float(np.mean(history[-2 * window : -window]))
    return now - before > window * max(_STOPPED * abs(now), _STILL)


def random_maps(
    data: Tensor, full: Band, parts: list[NDArray[np.int64]], rng: np.random.Generator, classes: int
) -> list[list[NDArray[np.float32]]]:
    """The first maps of every part: boxes in random orientations, dealt out to the classes."""
    band, some = full.within(LOWEST), data[:, within(full, LOWEST)]
    turns = random_rotations(len(data), rng)
    dealt = [[part[number::classes] for number in range(classes)] for part in parts]
    blends = [[random_blend(some[mine], band, turns[mine]) for mine in hands] for hands in dealt]
    return [others(blends, part) for part in range(FOLDS)]


def expect_parts(
    group: Group,
    data: list[Tensor],
    maps: list[list[NDArray[np.float32]]],
    band: Band,
    turn: Tensor,
    shifts: Tensor,
) -> tuple[list[list[FourierBlend]], list[Expected]]:
    """What each part of the boxes says about its own maps: sums for the next maps, and the boxes' likelihoods."""
    blends = [[FourierBlend.zero(group.size, group.device) for _ in maps[0]] for _ in data]

    def one(part: int) -> Expected:
        references = [Reference.of(centred(volume), device=group.device) for volume in maps[part]]
        return expect(data[part], references, band, turn, shifts, blends[part])

    return blends, list(side_by_side(one, range(len(data)), cpu_count()))


def with_residual_noise(full: Band, band: Band, found: list[Expected]) -> Band:
    """The band with the noise that the last maps left in the boxes, shell by shell, in place of what was thought.

    At first all that is in the boxes counts as noise, the structure too; with every better map the noise is less.
    """
    residual = torch.stack([one.residual for one in found]).mean(0)
    shell = band.wave.norm(dim=1).round().long()
    mean = torch.bincount(shell, residual) / torch.bincount(shell).clamp(min=1)
    gain = mean[full.wave.norm(dim=1).round().long().clamp(max=len(mean) - 1)]
    return replace(full, weight=full.weight / gain.clamp(min=0.01))


def others(blends: list[list[FourierBlend]], part: int | None) -> list[NDArray[np.float32]]:
    """The maps of all parts but one, each class by itself."""
    kept = [mine for number, mine in enumerate(blends) if number != part]
    return [sum(same[1:], same[0]).volume() for same in zip(*kept, strict=True)]


def within(band: Band, highest: float) -> Tensor:
    """Which of a band's coefficients ``band.within(highest)`` keeps."""
    return band.wave.norm(dim=1) <= highest


def centred(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map moved by whole voxels so that the mass of its bright part lies in the middle."""
    bright = np.maximum(volume - 0.2 * volume.max(), 0)
    if not bright.any():
        return volume
    off = np.round(ndimage.center_of_mass(bright)).astype(int) - len(volume) // 2
    return np.roll(volume, tuple(-off), (0, 1, 2))


def map_agreement(first: NDArray[np.float32], second: NDArray[np.float32], highest: float) -> float:
    """Correlation of two maps of unknown orientation to each other, at their best fit, below a frequency.

    All frequencies count alike, or the envelope that all globules share would decide.
    """
    band = Band.measured(len(first), None, highest, noise_power(first[None], MissingWedge(-90, 90)))
    plan = SearchPlan(coarse=highest, fine=highest, rotations=2304)
    return float(Search.prepare(Reference.of(first), band, plan)(second[None]).score[0])


def standard_errors(difference: float, deviation: float, count: int) -> float:
    """A difference of means over its standard error.

    >>> standard_errors(1.0, 2.0, 16)
    2.0
    """
    return float(difference / max(deviation / np.sqrt(count), 1e-9))
