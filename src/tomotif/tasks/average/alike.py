"""Patterns that show one structure: the map of each explains the boxes of the other as well as their own map does.

Features put one structure into several patterns where something beside it differs: a neighbour, a membrane, how strong
its contrast is. A map of every pattern that is grown without a reference brings its boxes into one frame, in which all
that averages out; then two patterns are one where the boxes of either lose hardly any likelihood under the other's map.
No box is compared with a map that it is part of. Classes that compete for boxes by likelihood: Scheres et al. 2009,
Structure 17:1563; alignment and classification of subtomograms in turn: Bartesaghi et al. 2008, J Struct Biol 162:436.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from tomotif.core import Progress, Subtomograms
from tomotif.ops.align import Band, Reference
from tomotif.ops.clustering import by_size
from tomotif.ops.expectation import FourierBlend, expect
from tomotif.ops.fit import mirrored
from tomotif.ops.orientations import uniform_rotations
from tomotif.ops.rotation_invariant import shell_power
from tomotif.tasks.average.group import Group, all_coefficients, shift_grid, tensor
from tomotif.tasks.average.pictures import PictureSettings, grown_from
from tomotif.tasks.average.starts import FOLDS, Start, centred, expect_parts, others

LEAST = 24
"""Members of a pattern from which its map is good enough to decide."""
_TESTED = 32
"""Boxes of a pattern that are compared with other maps."""
_SURE = 1.645
"""Standard errors above a mean that it exceeds with a chance of 5 %."""
_NEAREST = 3
"""Patterns with the likest maps that a pattern is compared with."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What a pattern shows.

    Attributes
    ----------
    data
        Coefficients of some of its boxes, by the part of the pattern that they are in.
    without
        Map of all boxes that its map was grown from but those of each part.
    likelihood
        Log-likelihood ratio of each box under the map without it, against no map.
    """

    data: list[Tensor]
    without: list[NDArray[np.float32]]
    likelihood: NDArray[np.float64]


def join_alike(
    subtomograms: Subtomograms,
    labels: Int[np.ndarray, " n"],
    settings: PictureSettings,
    work: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Int[np.ndarray, " n"]:
    """Join patterns that show one structure.

    Parameters
    ----------
    subtomograms
        n boxes.
    labels
        Index of the pattern of each, from 0.
    settings
        How maps are grown, and how much likelihood two patterns of one structure may lose under each other's map.
    work
        Folder for what a killed run continues from.
    seed
        Decides starts.
    progress
        Called with (patterns done, patterns).

    Returns
    -------
    Index of the pattern of each box, the largest first.
    """
    sizes = np.bincount(labels)
    patterns = np.flatnonzero(sizes >= LEAST)
    total = len(patterns)
    whole = Group.of(subtomograms, np.arange(len(labels)), settings.search())
    band = whole.band(whole.highest_start)
    shown, maps = [], []
    for done, pattern in enumerate(patterns):
        rows, start = grown_from(subtomograms, np.flatnonzero(labels == pattern), settings, work, seed=seed)
        shown.append(shown_by(whole, band, rows, start, np.random.default_rng((seed, 1))))
        maps.append(start.volume)
        if progress is not None:
            progress(done + 1, total)
    joined = np.eye(len(sizes), dtype=bool)
    for one, other in likest(np.stack(maps)) if total > 1 else ():
        pairs = (shown[one], shown[other]), (shown[other], shown[one])
        joined[patterns[one], patterns[other]] = all(
            largest_loss(whole, band, *pair) < settings.largest_loss for pair in pairs
        )
    _, component = sparse.csgraph.connected_components(joined, directed=False)
    return by_size(component.astype(np.int64)[labels])


def shown_by(whole: Group, band: Band, rows: NDArray[np.int64], start: Start, rng: np.random.Generator) -> Shown:
    """One more turn of the growth, for the maps without each part."""
    turn = tensor(uniform_rotations(2304).as_matrix(), whole.device)
    shifts = tensor(shift_grid(whole.settings), whole.device)
    data = all_coefficients(whole, rows, band)
    parts = np.array_split(rng.permutation(len(rows)), FOLDS)
    blends, _ = expect_parts(whole, [data[part] for part in parts], [[start.volume]] * FOLDS, band, turn, shifts)
    without = [others(blends, part)[0] for part in range(FOLDS)]
    some = [data[part[: _TESTED // FOLDS]] for part in parts]
    return Shown(some, without, likelihood(whole, band, some, without))


def likest(maps: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs of maps, each with those whose rotation-invariant power is most like its own."""
    power = shell_power(maps)
    power /= np.linalg.norm(power, axis=1, keepdims=True)
    alike = power @ power.T
    np.fill_diagonal(alike, -np.inf)
    order = np.argsort(-alike, axis=1)[:, : min(_NEAREST, len(maps) - 1)]
    return sorted({(min(i, int(j)), max(i, int(j))) for i, row in enumerate(order) for j in row})


def likelihood(whole: Group, band: Band, data: list[Tensor], maps: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Log-likelihood ratio of boxes under a map against no map, each part under a map of its own."""
    turn = tensor(uniform_rotations(1152).as_matrix(), whole.device)
    shifts = tensor(shift_grid(whole.settings), whole.device)
    found = []
    for boxes, volume in zip(data, maps, strict=True):
        reference = Reference.of(centred(volume), device=whole.device)
        nothing = [FourierBlend.zero(whole.size, whole.device)]
        found.append(expect(boxes, [reference], band, turn, shifts, nothing).likelihood)
    return torch.cat(found).double().cpu().numpy()


def largest_loss(whole: Group, band: Band, own: Shown, other: Shown) -> float:
    """Largest share of their log-likelihood ratio that boxes may lose when another pattern's map explains them.

    The upper end of what is likely, so that boxes that say little do not make patterns one. The map may be the mirror
    image, and is brought to the strength of their own. 1 where the boxes show no structure.
    """
    if own.likelihood.mean() <= 0:
        return 1.0
    as_strong = [
        volume * np.float32(mine.std() / volume.std()) for volume, mine in zip(other.without, own.without, strict=True)
    ]
    hands = (as_strong, [mirrored(volume) for volume in as_strong])
    lost = min((own.likelihood - likelihood(whole, band, own.data, maps) for maps in hands), key=np.mean)
    return float((lost.mean() + _SURE * lost.std() / np.sqrt(len(lost))) / own.likelihood.mean())
