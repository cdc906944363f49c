"""Kinds among particles when nobody says how many: dense regions of feature space, taken apart where they are two.

Particles of one kind that are seen from all sides lie along a bent sheet, not in a ball, so they are first found as
what hangs together densely (HDBSCAN). Kinds that touch come out as one; in the few directions along which the particles
of a region differ most they are two Gaussians with a valley between them, and the Bayesian criterion prefers two.
Where features are so blurred that nearly everything hangs together, density says nothing, and the region is a mixture
of as many Gaussians as the criterion wants.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from tomotif.ops.clustering import by_size

if TYPE_CHECKING:  # scikit-learn is imported by who uses it
    from sklearn.mixture import GaussianMixture

_NEIGHBOURS = 3
"""Of HDBSCAN: how many lie within the core distance of a particle."""
_LOCAL = 4
"""Directions in which a region is looked at …"""
_EACH = 6
"""… with at least so many particles for each of them."""
_PARTS = (2, 3)
"""Parts that a region is taken apart into, and these again."""
_LEAST_VARIANCE = 0.05
"""Added to the variances of Gaussians: features have a spread of about 1 inside a kind."""
_DOMINANT = 0.6
"""A region with a larger share of all particles is taken for such a mixture."""
_MIXED, _MOST_MIXED, _EACH_MIXED = 10, 24, 20
"""Principal components of its particles, largest number of Gaussians, and fewest particles for each on average."""
_AT_EDGE = 5
_GRID = 60
"""Points between two medians where the density is looked at, but not so many at either end."""
_WARD = 4_000
"""Particles at most whose Ward's clusters a mixture of Gaussians starts from: that tree takes memory by the square."""
_MOST = 20_000
"""Particles that are looked at together; the others go to the kind of their nearest neighbour among these."""


def kinds_of(
    features: Float[np.ndarray, "n f"], *, components: int = 14, least: int = 10, valley: float = 0.25, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Find kinds, and how many there are.

    Parameters
    ----------
    features
        One row a particle; the spread inside a kind is about 1 in every direction.
    components
        Principal components that are looked at.
    least
        Fewest particles of a kind.
    valley
        Largest density between two kinds, relative to the sparser one's peak.
    seed
        Decides which particles are looked at when there are many.

    Returns
    -------
    Indices from 0, larger kinds first.

    References
    ----------
    Campello et al. 2013, PAKDD (HDBSCAN); Schwarz 1978, Ann Stat 6:461 (BIC); Hennig 2010, Adv Data Anal Classif 4:3
    (valleys between Gaussians).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0, 3, 60)
    >>> bent = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> kinds = kinds_of(np.concatenate([bent, rng.normal(size=(40, 2))]))
    >>> np.bincount(kinds).tolist()
    [60, 40]
    """
    rows = some_of(len(features), seed)
    placed = np.asarray(features[rows], np.float64)
    found = np.empty(len(rows), dtype=np.int64)
    dense = dense_regions(principal(placed, components), least)
    parts = []
    for one in range(dense.max() + 1):
        dominant = np.mean(dense == one) > _DOMINANT
        parts += mixed(placed, dense == one) if dominant else taken_apart(placed, dense == one, least, valley)
    for number, part in enumerate(parts):
        found[part] = number
    if len(rows) < len(features):
        found = nearest(placed, found, features)
    return by_size(found)


def some_of(count: int, seed: int) -> Int[np.ndarray, " m"]:
    """Rows that are looked at together: all, or as many as can be, drawn at random."""
    rows = np.arange(count)
    return rows if count <= _MOST else np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST])


def dense_regions(features: Float[np.ndarray, "n f"], least: int) -> Int[np.ndarray, " n"]:
    """Region of every particle; those that HDBSCAN leaves out go with their nearest neighbour, all are one if none."""
    from sklearn.cluster import HDBSCAN

    labels = HDBSCAN(min_cluster_size=least, min_samples=_NEIGHBOURS, copy=True).fit_predict(features)
    inside = labels >= 0
    if not inside.any():
        return np.zeros(len(features), dtype=np.int64)
    return nearest(features[inside], labels[inside], features)


def nearest(
    known: Float[np.ndarray, "m f"], labels: Int[np.ndarray, " m"], features: Float[np.ndarray, "n f"]
) -> Int[np.ndarray, " n"]:
    """Label of the nearest known particle."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(features, return_distance=False)[:, 0]
    return np.asarray(labels[found], dtype=np.int64)


def mixed(features: Float[np.ndarray, "n f"], inside: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Rows of a region, in as many parts as the Bayesian criterion says."""
    rows = np.flatnonzero(inside)
    seen = principal(features[rows], _MIXED)
    counts = range(1, max(1, min(_MOST_MIXED, len(rows) // _EACH_MIXED)) + 1)
    best = min((gaussians(seen, count) for count in counts), key=lambda found: found.bic(seen))
    labels = best.predict(seen)
    return [rows[labels == label] for label in np.unique(labels)]


def taken_apart(
    features: Float[np.ndarray, "n f"], inside: NDArray[np.bool_], least: int, valley: float
) -> list[NDArray[np.int64]]:
    """Rows of a region, in as many parts as there are."""
    rows = np.flatnonzero(inside)
    if len(rows) < 2 * least:
        return [rows]
    seen = principal(features[rows], min(_LOCAL, len(rows) // _EACH))
    whole = gaussians(seen, 1).bic(seen)
    best: tuple[float, NDArray[np.int64]] | None = None
    for count in _PARTS:
        found = gaussians(seen, count)
        labels, criterion = found.predict(seen), found.bic(seen)
        enough = np.bincount(labels, minlength=count).min() >= least
        if enough and criterion < min(whole, best[0] if best else whole) and shallowest(seen, labels) < valley:
            best = criterion, labels
    if best is None:
        return [rows]
    parts = []
    for label in np.unique(best[1]):
        mine = np.zeros(len(features), dtype=bool)
        mine[rows[best[1] == label]] = True
        parts += taken_apart(features, mine, least, valley)
    return parts


def shallowest(features: Float[np.ndarray, "n f"], labels: Int[np.ndarray, " n"]) -> float:
    """Largest of the densities in the valleys between all pairs of parts."""
    parts = [features[labels == one] for one in np.unique(labels)]
    return max(density_between(first, second) for first, second in itertools.combinations(parts, 2))


def density_between(first: Float[np.ndarray, "m f"], second: Float[np.ndarray, "n f"]) -> float:
    """Lowest density between two parts over the lower of their peaks, along the direction that tells them apart best.

    >>> rng = np.random.default_rng(0)
    >>> one = rng.normal(size=(100, 2))
    >>> density_between(one, one + 8) < 0.05, density_between(one[one[:, 0] < 0], one[one[:, 0] >= 0]) > 0.7
    (True, True)
    """
    from scipy.stats import gaussian_kde

    count, width = len(first) + len(second), first.shape[1]
    inner = sum((len(part) * np.cov(part.T).reshape(width, width) for part in (first, second)), np.zeros((width,) * 2))
    axis = np.linalg.solve(inner / count + _LEAST_VARIANCE * np.eye(width), second.mean(axis=0) - first.mean(axis=0))
    one, two = first @ axis, second @ axis
    together = np.concatenate([one, two])
    spread = np.sqrt((len(one) * one.var() + len(two) * two.var()) / count)
    density = gaussian_kde(together, count**-0.2 * float(spread / together.std()))
    seen = density(np.linspace(np.median(one), np.median(two), _GRID))
    lowest = _AT_EDGE + int(seen[_AT_EDGE:-_AT_EDGE].argmin())
    return float(seen[lowest] / min(seen[:lowest].max(), seen[lowest:].max()))


def gaussians(features: Float[np.ndarray, "n f"], count: int) -> GaussianMixture:
    """A mixture of Gaussians that starts from Ward's clusters, and so is the same every time."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.mixture import GaussianMixture

    width = features.shape[1]
    some = features[:: -(-len(features) // _WARD)]
    labels = AgglomerativeClustering(count).fit_predict(some) if count > 1 else np.zeros(len(some), np.int64)
    precision = []
    for one in range(count):
        mine = some[labels == one]
        spread = np.cov(mine.T).reshape(width, width) if len(mine) > width else np.eye(width)
        precision.append(np.linalg.inv(spread + _LEAST_VARIANCE * np.eye(width)))
    return GaussianMixture(
        count,
        reg_covar=_LEAST_VARIANCE,
        weights_init=np.bincount(labels) / len(labels),
        means_init=np.stack([some[labels == one].mean(axis=0) for one in range(count)]),
        precisions_init=np.stack(precision),
        random_state=0,
    ).fit(features)


def principal(features: Float[np.ndarray, "n f"], components: int) -> NDArray[np.float64]:
    """The directions along which particles differ most."""
    from sklearn.decomposition import PCA

    found: NDArray[np.float64] = PCA(min(components, *features.shape), random_state=0).fit_transform(features)
    return found
