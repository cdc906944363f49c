"""Clusters of feature vectors, and how many of them there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

if TYPE_CHECKING:  # scikit-learn is imported by who uses it
    from sklearn.mixture import GaussianMixture

Method = Literal["kmeans", "gmm", "hdbscan"]
STABLE = 0.75
"""Mean Jaccard overlap from which a cluster counts as stable (Hennig 2007, Comput Stat Data Anal 52:258)."""


def clusters_of(
    features: Float[np.ndarray, "n f"], method: Method, count: int, *, seed: int = 0, least: int = 8
) -> Int[np.ndarray, " n"]:
    """Cluster of every particle.

    Parameters
    ----------
    features
        One row a particle, of comparable scales.
    method
        k-means; a mixture of Gaussians with variances of their own along each feature; or HDBSCAN (Campello et al.
        2013, PAKDD), which counts for itself and leaves particles out.
    count
        Number of clusters; HDBSCAN does not use it.
    seed
        Of the starts.
    least
        Smallest cluster of HDBSCAN.

    Returns
    -------
    Indices from 0, larger clusters first; -1 for particles of none.
    """
    if method == "kmeans":
        labels = _kmeans(features, count, seed)
    elif method == "gmm":
        labels = mixture(features, count, seed).predict(features)
    else:
        from sklearn.cluster import HDBSCAN

        labels = HDBSCAN(min_cluster_size=least, copy=True).fit_predict(features)
    return by_size(np.asarray(labels, dtype=np.int64))


def by_size(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The same clusters numbered by falling size; -1 stays.

    >>> by_size(np.array([5, 2, 2, -1, 2, 5])).tolist()
    [1, 0, 0, -1, 0, 1]
    """
    names, sizes = np.unique(labels[labels >= 0], return_counts=True)
    order = names[np.argsort(-sizes, kind="stable")]
    ranked = np.full(len(labels), -1, dtype=np.int64)
    for rank, name in enumerate(order):
        ranked[labels == name] = rank
    return ranked


def count_by_bic(features: Float[np.ndarray, "n f"], counts: Sequence[int], *, seed: int = 0) -> int:
    """Number of Gaussians with the least Bayesian information criterion (Schwarz 1978, Ann Stat 6:461)."""
    return int(counts[int(np.argmin([mixture(features, count, seed).bic(features) for count in counts]))])


def count_by_stability(
    features: Float[np.ndarray, "n f"], counts: Sequence[int], *, seed: int = 0, repeats: int = 10
) -> int:
    """Largest number of k-means clusters of which every one comes again when the particles are drawn anew.

    1 when no number of clusters is stable.
    """
    stable = [
        count for count in counts if cluster_stability(features, count, seed=seed, repeats=repeats).min() >= STABLE
    ]
    return max(stable, default=1)


def cluster_stability(
    features: Float[np.ndarray, "n f"], count: int, *, seed: int = 0, repeats: int = 10
) -> Float[np.ndarray, " k"]:
    """How well every cluster of k-means is found again in bootstrap samples.

    Hennig 2007, Comput Stat Data Anal 52:258: the mean over the samples of the largest Jaccard overlap of the cluster
    with one of the sample's clusters.

    Parameters
    ----------
    features
        One row a particle.
    count
        Number of clusters.
    seed
        Of starts and samples.
    repeats
        Bootstrap samples.
    """
    rng = np.random.default_rng(seed)
    labels = _kmeans(features, count, seed)
    overlap = np.zeros((repeats, count))
    for repeat in range(repeats):
        rows = np.unique(rng.integers(len(features), size=len(features)))
        again = _kmeans(features[rows], count, seed + 1 + repeat)
        both = np.zeros((count, count))
        np.add.at(both, (labels[rows], again), 1)
        either = both.sum(1)[:, None] + both.sum(0) - both
        overlap[repeat] = (both / np.maximum(either, 1)).max(axis=1)
    mean: NDArray[np.float64] = overlap.mean(axis=0)
    return mean


def mixture(features: NDArray[np.floating], count: int, seed: int) -> GaussianMixture:
    """A mixture of Gaussians fitted to features, which are taken to be independent inside a cluster.

    With whole covariances the Bayesian criterion finds too few clusters among some hundred particles.
    """
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(count, covariance_type="diag", reg_covar=1e-4, n_init=3, random_state=seed).fit(features)


def _kmeans(features: NDArray[np.floating], count: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(count, n_init=5, random_state=seed).fit_predict(features), dtype=np.int64)
