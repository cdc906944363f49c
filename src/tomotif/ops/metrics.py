"""How good picks and classes are: one-to-one matching, precision, recall, F-beta, confusion, bootstrap. All fractions.

A confusion matrix of C classes has C + 1 rows and columns: the last column counts true particles that were *missed*,
the last row picks that are *false*. Every score here follows from it, and leading axes (tomograms, resamplings) stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from tomotif.core import InputError

ResampledUnit = Literal["tomogram", "particle"]
Numbers = NDArray[np.number] | np.number | float | int
EDGES_A_BLOCK = 1000
MIN_TOMOGRAMS = 3


def match(
    predicted: NDArray[np.number], true: NDArray[np.number], radius: Numbers, *, fraction: float = 0.5
) -> NDArray[np.int64]:
    """Pair picks with true particles one to one.

    A pick may be paired with a true particle whose centre is at most ``fraction`` of that particle's radius away. Of
    all one-to-one pairings those with the most pairs are taken, and of them the one with the least summed distance.

    Parameters
    ----------
    predicted
        Positions of the picks zyx in Å, shape (m, 3).
    true
        Positions of the true particles zyx in Å, shape (n, 3).
    radius
        Radius of the true particles in Å, shape (n,) or one number for all.
    fraction
        Allowed distance as a fraction of the radius.

    Returns
    -------
    NDArray[int64], shape (k, 2)
        Row of the pick and row of the true particle, in the order of the true particles.

    Raises
    ------
    InputError
        When a position or radius is not finite, or a radius is not positive.

    Examples
    --------
    Both picks are near the first particle only; the nearer one gets it.

    >>> match(np.array([[0, 0, 30], [0, 0, 10]]), np.array([[0, 0, 0], [0, 0, 500]]), 100.0).tolist()
    [[1, 0]]
    """
    picks = np.asarray(predicted, dtype=np.float64).reshape(-1, 3)
    truth = np.asarray(true, dtype=np.float64).reshape(-1, 3)
    reach = fraction * np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(truth),))
    if not (np.isfinite(picks).all() and np.isfinite(truth).all()):
        raise InputError("expected finite positions in Å, got NaN or infinity; correct the particle table")
    if len(truth) and not (np.isfinite(reach).all() and reach.min() > 0):
        raise InputError(
            f"expected finite radii of the true particles above 0 Å, got {reach.min() / fraction:g} among them"
        )
    if not len(picks) or not len(truth):
        return np.empty((0, 2), dtype=np.int64)
    near = cKDTree(picks).query_ball_point(truth, reach)
    counts = np.fromiter(map(len, near), dtype=np.int64, count=len(truth))
    rows = np.repeat(np.arange(len(truth)), counts)
    cols = np.fromiter(chain.from_iterable(near), dtype=np.int64, count=int(counts.sum()))
    distance = np.linalg.norm(picks[cols] - truth[rows], axis=1)
    chosen = best_assignment(rows, cols, distance)
    return np.stack([cols[chosen], rows[chosen]], axis=1)


def best_assignment(rows: NDArray[np.int64], cols: NDArray[np.int64], cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Edges of the largest one-to-one matching of a sparse bipartite graph, the cheapest of the largest.

    The graph is cut into blocks of whole connected components, each solved exactly (Jonker & Volgenant 1987 for
    sparse graphs): every row also gets an edge to a column of its own that costs more than any rearrangement saves.

    Parameters
    ----------
    rows, cols, cost
        The edges, shape (e,); costs are not negative.

    Returns
    -------
    NDArray[int64], shape (k,)
        Which edges were chosen, in the order of their rows.
    """
    if not len(rows):
        return np.empty(0, dtype=np.int64)
    scaled = 1.0 + cost / max(float(cost.max()), np.finfo(float).tiny)  # 1 to 2: sparse solvers take 0 for no edge
    chosen = np.concatenate(
        [edges[solve_block(rows[edges], cols[edges], scaled[edges])] for edges in blocks(rows, cols)]
    )
    return chosen[np.argsort(rows[chosen], kind="stable")]


def blocks(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Edges in blocks of whole connected components, about EDGES_A_BLOCK or one large component each."""
    n_rows, size = int(rows.max()) + 1, int(rows.max() + cols.max()) + 2
    graph = csr_array((np.ones(len(rows), dtype=np.int8), (rows, cols + n_rows)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    wanted = np.searchsorted(starts, np.arange(0, len(rows), EDGES_A_BLOCK)).clip(max=len(starts) - 1)
    yield from np.split(order, starts[np.unique(wanted)][1:])


def solve_block(rows: NDArray[np.int64], cols: NDArray[np.int64], cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Edges of the best matching of one block; costs lie in 1 to 2."""
    row_names, row = np.unique(rows, return_inverse=True)
    col_names, col = np.unique(cols, return_inverse=True)
    n, m = len(row_names), len(col_names)
    spare = np.arange(n)
    # an augmenting path swaps k edges for k + 1 and saves less than k + 2, so a spare column is the last resort
    weights = np.concatenate([cost, np.full(n, 2.0 * n + 2.0)])
    graph = csr_array((weights, (np.concatenate([row, spare]), np.concatenate([col, m + spare]))), shape=(n, m + n))
    partner = min_weight_full_bipartite_matching(graph)[1]
    return np.flatnonzero(partner[row] == col)


@dataclass(frozen=True)
class Rates:
    """Precision, recall, F1 and F-beta; fractions, all of one shape. What has no pick and no truth scores 0."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    f_beta: NDArray[np.float64]


def rates(hits: Numbers, false: Numbers, missed: Numbers, *, beta: float = 4.0) -> Rates:
    """Rates from counts of any one shape.

    F-beta is (1 + β²) hits / ((1 + β²) hits + β² missed + false) (van Rijsbergen 1979, Information Retrieval): recall
    weighs β times as much as precision. A score with denominator 0 is 0.

    >>> r = rates(8, 2, 8)
    >>> float(r.precision), float(r.recall), round(float(r.f1), 3), round(float(r.f_beta), 3)
    (0.8, 0.5, 0.615, 0.511)
    """
    tp, fp, fn = (np.asarray(x, dtype=np.float64) for x in (hits, false, missed))
    square = beta**2
    return Rates(
        precision=quotient(tp, tp + fp),
        recall=quotient(tp, tp + fn),
        f1=quotient(2 * tp, 2 * tp + fp + fn),
        f_beta=quotient((1 + square) * tp, (1 + square) * tp + square * fn + fp),
    )


def quotient(top: Numbers, bottom: Numbers) -> NDArray[np.float64]:
    """Top / bottom, 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)


def confusion_matrices(
    predicted_class: NDArray[np.integer],
    true_class: NDArray[np.integer],
    pairs: NDArray[np.integer],
    n_classes: int,
    *,
    predicted_group: NDArray[np.integer] | None = None,
    true_group: NDArray[np.integer] | None = None,
    n_groups: int = 1,
) -> NDArray[np.int64]:
    """Confusion matrices, one a group (a tomogram), with a last row *false* and a last column *missed*.

    Parameters
    ----------
    predicted_class
        Class index 0 to C - 1 of each pick, shape (m,).
    true_class
        Class index of each true particle, shape (n,).
    pairs
        Pick and true particle that belong together, shape (k, 2), from :func:`match`.
    n_classes
        C.
    predicted_group, true_group
        Group index of each pick and true particle; all 0 when not given.
    n_groups
        Number of groups G.

    Returns
    -------
    NDArray[int64], shape (G, C + 1, C + 1)
        Rows are true classes, columns predicted ones; [C, C] is 0.
    """
    m, n, none = len(predicted_class), len(true_class), n_classes
    pick_group = np.zeros(m, dtype=np.int64) if predicted_group is None else predicted_group
    truth_group = np.zeros(n, dtype=np.int64) if true_group is None else true_group
    false = np.setdiff1d(np.arange(m), pairs[:, 0])
    group = np.concatenate([truth_group, pick_group[false]])
    row = np.concatenate([true_class, np.full(len(false), none)])
    column = np.full(n, none)
    column[pairs[:, 1]] = predicted_class[pairs[:, 0]]
    column = np.concatenate([column, predicted_class[false]])
    shape = (n_groups, n_classes + 1, n_classes + 1)
    cell = np.ravel_multi_index((group, row, column), shape)
    return np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)


def detection_rates(confusion: NDArray[np.integer], *, beta: float = 4.0) -> Rates:
    """Rates of finding particles whatever they are called, shape (...) for matrices of shape (..., C + 1, C + 1)."""
    hits = confusion[..., :-1, :-1].sum(axis=(-2, -1))
    return rates(hits, confusion[..., -1, :-1].sum(axis=-1), confusion[..., :-1, -1].sum(axis=-1), beta=beta)


def class_rates(confusion: NDArray[np.integer], *, beta: float = 4.0) -> Rates:
    """Rates of each class, shape (..., C): a hit is a matched pick of the right class.

    A pick called c that matches nothing, or matches a particle of another class, is false for c; a particle of class
    c that is missed or called otherwise is missed for c.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)[..., :-1]
    predicted = confusion[..., :, :-1].sum(axis=-2)
    true = confusion[..., :-1, :].sum(axis=-1)
    return rates(hits, predicted - hits, true - hits, beta=beta)


def macro_mean(score: NDArray[np.float64], confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Unweighted mean of a score (..., C) over the classes that have true particles; 0 when none has."""
    present = confusion[..., :-1, :].sum(axis=-1) > 0
    return quotient(np.where(present, score, 0.0).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


def random_positions(extents: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """One position drawn uniformly from each volume.

    Parameters
    ----------
    extents
        Size zyx in Å of the volume each position lies in, shape (n, 3).
    rng
        The generator that decides them.

    Returns
    -------
    NDArray[float64], shape (n, 3)
        zyx in Å from the corner.
    """
    return rng.random(extents.shape) * extents


def resample(
    confusions: NDArray[np.integer], count: int, rng: np.random.Generator
) -> tuple[ResampledUnit, NDArray[np.int64]]:
    """Bootstrap resamplings of a confusion matrix (Efron & Tibshirani 1993).

    With three tomograms or more whole tomograms are drawn with replacement, because particles of one tomogram are not
    independent. With fewer, the single outcomes (a match, a miss, a false pick) are drawn, which leaves out the
    differences between tomograms: such intervals are too narrow for a statement about other tomograms.

    Parameters
    ----------
    confusions
        Confusion matrix of each tomogram, shape (T, C + 1, C + 1).
    count
        Number of resamplings B.
    rng
        The generator that decides them.

    Returns
    -------
    unit
        What was drawn: ``"tomogram"`` or ``"particle"``.
    resampled : NDArray[int64], shape (B, C + 1, C + 1)
        Confusion matrices of the resamplings.
    """
    tomograms, *shape = confusions.shape
    if tomograms >= MIN_TOMOGRAMS:
        draws = rng.multinomial(tomograms, np.full(tomograms, 1 / tomograms), size=count)
        return "tomogram", np.tensordot(draws, confusions, axes=1)
    cells = confusions.sum(axis=0).ravel()
    total = int(cells.sum())
    draws = rng.multinomial(total, cells / max(total, 1), size=count) if total else np.zeros((count, len(cells)), int)
    return "particle", draws.reshape(count, *shape)


def interval(samples: NDArray[np.floating], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap samples, shape (B,), that holds a share ``level`` of them.

    >>> interval(np.arange(101) / 100, 0.9)
    (0.05, 0.95)
    """
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return round(float(low), 12), round(float(high), 12)
