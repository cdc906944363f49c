"""Novelty of particles in a feature space of known classes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tomotif.ops.novelty import ClassGaussians, alarm_threshold, energy, neighbour_distance

CLASSES, FEATURES, COUNT = 4, 8, 400


def particles(seed: int, new: bool = False) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Classes along the first axes, spread most along the last; new ones lie in the middle of the classes."""
    rng = np.random.default_rng(seed)
    target = rng.integers(CLASSES, size=COUNT)
    middle = 6 * np.eye(FEATURES)[target] if not new else np.full((COUNT, FEATURES), 1.5) * (np.arange(FEATURES) < 4)
    spread = np.where(np.arange(FEATURES) == FEATURES - 1, 5.0, 1.0)
    return middle + spread * rng.standard_normal((COUNT, FEATURES)), target


def test_new_structures_stand_out_by_all_scores() -> None:
    (learned, target), (known, _), (new, _) = particles(0), particles(1), particles(2, new=True)
    is_new = np.repeat([0, 1], COUNT)
    gaussians = ClassGaussians.of(learned, target)
    scores = {
        "mahalanobis": [gaussians.distance(known), gaussians.distance(new)],
        "energy": [energy(2 * known[:, :CLASSES]), energy(2 * new[:, :CLASSES])],
        "neighbours": [neighbour_distance(learned[:, :CLASSES], part[:, :CLASSES]) for part in (known, new)],
    }
    auroc = {name: roc_auc_score(is_new, np.concatenate(parts)) for name, parts in scores.items()}
    assert min(auroc.values()) > 0.85, auroc


def test_mahalanobis_knows_which_direction_is_noise() -> None:
    learned, target = particles(0)
    gaussians = ClassGaussians.of(learned, target)
    along, across = gaussians.means[:1].copy(), gaussians.means[:1].copy()
    along[0, -1] += 5.0  # one standard deviation of the last feature
    across[0, 5] += 5.0  # five of another
    assert gaussians.distance(along)[0] == pytest.approx(1, rel=0.15)
    assert gaussians.distance(across)[0] == pytest.approx(5, rel=0.15)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_false_alarms_are_as_rare_as_asked_for(rate: float) -> None:
    learned, target = particles(0)
    gaussians = ClassGaussians.of(learned, target)
    held = np.concatenate([gaussians.distance(particles(seed)[0]) for seed in range(3, 13)])
    fresh = np.concatenate([gaussians.distance(particles(seed)[0]) for seed in range(20, 30)])
    assert (fresh > alarm_threshold(held, rate)).mean() == pytest.approx(rate, rel=0.35)
