"""Kinds among features: bent ones stay whole, touching ones come apart, many particles are no trouble."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from tomotif.core import InputError
from tomotif.engine.model_folder import Known
from tomotif.ops import kinds
from tomotif.ops.clustering import clusters_of
from tomotif.ops.kinds import kinds_of
from tomotif.tasks.pattern_clusters import PatternClusterSettings, Space, cluster_views, confidence_of, sharpened


def balls(counts: list[int], apart: float, rng: np.random.Generator, width: int = 20) -> NDArray[np.float64]:
    """Round kinds at random places about so far apart."""
    centres = rng.normal(size=(len(counts), width)) * apart / np.sqrt(2 * width)
    return np.concatenate([c + rng.normal(size=(n, width)) for c, n in zip(centres, counts, strict=True)])


def test_kinds_are_counted_also_when_some_are_rare() -> None:
    counts = [200, 120, 60, 30, 12]
    truth = np.repeat(np.arange(5), counts)
    found = kinds_of(balls(counts, 30.0, np.random.default_rng(0)))
    assert adjusted_rand_score(truth, found) > 0.98
    assert np.bincount(found).tolist() == sorted(np.bincount(found), reverse=True)


def test_a_bent_kind_stays_whole() -> None:
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, 4, 200)
    bent = np.zeros((200, 6))
    bent[:, :2] = 25 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = kinds_of(np.concatenate([bent + rng.normal(size=bent.shape), rng.normal(size=(150, 6))]))
    assert np.bincount(found).tolist() == [200, 150]


def test_kinds_that_touch_come_apart() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(450, 6))
    features[150:300, 0] += 5.5
    features[300:, 1] += 40
    assert kinds_of(features).max() == 2


def test_more_particles_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_MOST", 200)
    truth = np.repeat(np.arange(3), 300)
    found = kinds_of(balls([300] * 3, 40.0, np.random.default_rng(3)))
    assert len(found) == 900 and adjusted_rand_score(truth, found) > 0.98


def known(width: int) -> Known:
    """An encoder whose classes differ in all directions."""
    rng = np.random.default_rng(4)
    target = np.repeat(np.arange(width + 1), 20)
    own = np.concatenate([9 * np.eye(width), np.zeros((1, width))])[target] + rng.normal(size=(len(target), width))
    return Known(own.astype(np.float32), target, own.astype(np.float32), target)


def test_views_that_disagree_lower_the_confidence() -> None:
    rng = np.random.default_rng(5)
    centres = np.repeat([[30.0, 0, 0, 0], [0, 0, 0, 30.0]], 40, axis=0)
    views = np.stack([centres + rng.normal(size=centres.shape) for _ in range(4)])
    views[0, :40] = centres[40:] + rng.normal(size=(40, 4))  # in one view of four the first kind looks like the second
    labels = cluster_views(views.astype(np.float32), known(4), PatternClusterSettings()).labels
    assert len(np.unique(labels[:40])) == 1 and labels[0] != labels[40]
    confidence = confidence_of(views.astype(np.float32), known(4), labels)
    assert confidence[:40].mean() == pytest.approx(0.75, abs=0.05) and confidence[40:].mean() > 0.9


def test_a_number_of_patterns_and_too_few_particles() -> None:
    views = np.random.default_rng(6).normal(size=(2, 60, 4)).astype(np.float32)
    assert cluster_views(views, known(4), PatternClusterSettings(patterns=3)).labels.max() == 2
    with pytest.raises(InputError, match="at least 20 particles"):
        cluster_views(views[:, :10], known(4), PatternClusterSettings())


def test_kinds_are_found_though_the_contrast_of_each_particle_varies() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(24, 24)))[0][:4]
    truth = np.repeat(np.arange(5), 80)
    gain = np.maximum(np.exp(0.55 * rng.normal(size=(320, 1)) - 0.15), 0.2)
    features = rng.normal(size=(400, 24)) + Space.of(known(24)).middle
    features[:320] += 14 * gain * directions[truth[:320]]  # the others are noise
    views = features[None].astype(np.float32)
    found = [
        cluster_views(views, known(24), settings)
        for settings in (
            PatternClusterSettings(levelled=False),
            PatternClusterSettings(levelled=True, rounds=0),
            PatternClusterSettings(),
        )
    ]
    plain, levelled, again = (adjusted_rand_score(truth, one.labels) for one in found)
    assert plain < 0.75 and levelled > plain + 0.1 and again > 0.85, (plain, levelled, again)
    assert found[2].levelled and found[2].contrast_spread > 0.3


def test_distances_count_where_contrast_hardly_varies() -> None:
    rng = np.random.default_rng(7)
    direction = np.zeros(8)
    direction[0] = 1
    truth = np.repeat([0, 1], 100)
    features = np.array([20.0, 40.0])[truth, None] * direction + rng.normal(size=(200, 8))  # a light and a heavy one
    found = cluster_views(
        (features + Space.of(known(8)).middle)[None].astype(np.float32), known(8), PatternClusterSettings()
    )
    assert not found.levelled and found.contrast_spread < 0.1
    assert adjusted_rand_score(truth, found.labels) == 1.0


def test_patterns_show_what_differs_inside_them() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1], 150)
    placed = rng.normal(size=(300, 8))
    placed[:, 0] += 8 * truth
    placed[:, 1] *= 12  # something that both kinds have and that is no structure
    rough = np.where(rng.random(300) < 0.03, 1 - truth, truth)
    before, after = (
        adjusted_rand_score(truth, clusters_of(seen, "kmeans", 2)) for seen in (placed, sharpened(placed, rough))
    )
    assert before < 0.1 and after > 0.9, (before, after)
