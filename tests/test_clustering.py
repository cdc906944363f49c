"""Clusters of feature vectors and their number."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from tomotif.ops.clustering import Method, cluster_stability, clusters_of, count_by_bic, count_by_stability

SIZES = (200, 120, 60, 30)


def clouds(seed: int, distance: float = 8.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Four clouds of falling size in six dimensions."""
    rng = np.random.default_rng(seed)
    target = np.repeat(np.arange(len(SIZES)), SIZES)
    return distance * np.eye(6)[target] + rng.standard_normal((len(target), 6)), target


@pytest.mark.parametrize("method", ["kmeans", "gmm", "hdbscan"])
def test_clouds_are_found_and_numbered_by_size(method: Method) -> None:
    features, target = clouds(0)
    found = clusters_of(features, method, len(SIZES))
    inside = found >= 0
    assert inside.mean() > 0.9
    assert adjusted_rand_score(target[inside], found[inside]) > 0.98
    assert [int((found == rank).sum()) for rank in range(4)] == sorted(np.bincount(found[inside]), reverse=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_their_number_is_found(seed: int) -> None:
    features, _ = clouds(seed)
    assert count_by_bic(features, range(1, 8), seed=seed) == len(SIZES)
    assert count_by_stability(features, range(2, 8), seed=seed) == len(SIZES)


def test_one_cloud_is_not_cut_up() -> None:
    features = np.random.default_rng(0).standard_normal((400, 6))
    assert count_by_stability(features, range(2, 8)) == 1
    assert count_by_bic(features, range(1, 6)) == 1


def test_stability_tells_which_cluster_is_not_one() -> None:
    features, _ = clouds(0)
    real, cut = cluster_stability(features, 4), cluster_stability(features, 6)
    assert real.min() > 0.95
    assert np.sum(cut > 0.9) >= 2 and cut.min() < 0.75
