"""How unlike everything known a particle is, from the features of a classifier: larger is newer.

Three scores, what makes one of several and of neighbours' scores, and a threshold at a false-alarm rate on known
particles that were not learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import logsumexp


def energy(logits: Float[np.ndarray, "n c"], temperature: float = 1.0) -> Float[np.ndarray, " n"]:
    """Energy of the logits: high where no class is felt (Liu et al. 2020, NeurIPS).

    >>> energy(np.array([[9.0, 0.0], [1.0, 1.0]])).round(2).tolist()
    [-9.0, -1.69]
    """
    found: NDArray[np.float64] = -temperature * logsumexp(np.asarray(logits, np.float64) / temperature, axis=1)
    return found


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """One Gaussian a known class, all of one covariance (Lee et al. 2018, NeurIPS).

    Attributes
    ----------
    means
        Shape (c, f).
    whitening
        What takes features to unit covariance, shape (f, f).
    """

    means: NDArray[np.float64]
    whitening: NDArray[np.float64]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n f"], target: Int[np.ndarray, " n"]) -> ClassGaussians:
        """Measure them on known particles, whose covariance is shrunk as Ledoit and Wolf do (2004, J Multivar Anal)."""
        from sklearn.covariance import LedoitWolf

        classes = np.unique(target)
        means = np.array([features[target == one].mean(axis=0) for one in classes], dtype=np.float64)
        inner = features - means[np.searchsorted(classes, target)]
        values, vectors = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(inner).covariance_)
        return cls(means, vectors / np.sqrt(np.maximum(values, 1e-12)))

    def distance(self, features: Float[np.ndarray, "n f"]) -> Float[np.ndarray, " n"]:
        """Mahalanobis distance to the nearest class."""
        white, means = features @ self.whitening, self.means @ self.whitening
        squared = (white**2).sum(1)[:, None] - 2 * white @ means.T + (means**2).sum(1)
        nearest: NDArray[np.float64] = np.sqrt(np.maximum(squared.min(axis=1), 0))
        return nearest

    def discriminants(self, features: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n g"]:
        """Features along the g < c directions in which the classes differ, inner spread 1 (Rao 1948, J R Stat Soc)."""
        means = self.means @ self.whitening
        values, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[1:]
        kept = directions[values > 1e-6 * values[0]]
        placed: NDArray[np.float64] = features @ self.whitening @ kept.T
        return placed


def neighbour_distance(
    known: Float[np.ndarray, "m f"], features: Float[np.ndarray, "n f"], *, neighbours: int = 10
) -> Float[np.ndarray, " n"]:
    """Distance to the k-th nearest known particle, all features on the unit sphere (Sun et al. 2022, ICML)."""
    from sklearn.neighbors import NearestNeighbors

    def unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows, np.float64) / np.maximum(length, 1e-12)

    tree = NearestNeighbors(n_neighbors=min(neighbours, len(known))).fit(unit(known))
    distance: NDArray[np.float64] = tree.kneighbors(unit(features))[0][:, -1]
    return distance


def standardised(novelty: Float[np.ndarray, " n"], known: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Novelty as known particles see it: 0 is their median, 1 what 16 % of them exceed; so scores can be added up.

    >>> standardised(np.array([50.0, 84.0]), np.arange(101.0)).tolist()
    [0.0, 1.0]
    """
    middle, high = np.quantile(known, (0.5, 0.84))
    return np.asarray((novelty - middle) / max(high - middle, 1e-12), np.float64)


def shared(novelty: Float[np.ndarray, " n"], places: Float[np.ndarray, "n f"], count: int) -> Float[np.ndarray, " n"]:
    """Mean novelty of each particle and of those nearest to it: a new structure comes more than once, an odd box alone.

    Parameters
    ----------
    novelty
        Of each particle by itself.
    places
        Where they lie.
    count
        Particles in the mean, at least 1, itself among them.
    """
    from sklearn.neighbors import NearestNeighbors

    tree = NearestNeighbors(n_neighbors=min(count, len(places))).fit(places)
    near: NDArray[np.float64] = novelty[tree.kneighbors(places, return_distance=False)].mean(axis=1)
    return near


def alarm_threshold(known: Float[np.ndarray, " n"], false_alarms: float) -> float:
    """Score above which no more than a fraction of known particles lie; take ones that were not learned from.

    >>> alarm_threshold(np.arange(100.0), 0.05)
    94.0
    """
    return float(np.quantile(known, 1 - false_alarms, method="lower"))
