"""Clusters, novelty and verdicts in a feature space with two known classes, background and a new structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from tomotif.core import BACKGROUND, InputError, Particles
from tomotif.engine.model_folder import Known
from tomotif.tasks.discover import DiscoverSettings, discover, verdicts

CLASSES = ("1bxn", "4v5d", BACKGROUND)
CENTRES = 9.0 * np.eye(8)[[0, 1, 2, 4]]  # the last one is new
SPREAD = np.array([1, 1, 1, 1, 1, 1, 1, 12.0])  # the last feature is noise inside every class


def embeddings(kinds: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    noise = SPREAD * np.random.default_rng(seed).standard_normal((len(kinds), 8))
    return (CENTRES[kinds] + noise).astype(np.float32)


def logits(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features[:, :3] - 4


@pytest.fixture(scope="module")
def known() -> Known:
    learned, held = np.repeat(np.arange(3), 200), np.repeat(np.arange(3), 100)
    return Known(embeddings(learned, 1), learned, embeddings(held, 2), held)


@pytest.fixture(scope="module")
def kinds() -> NDArray[np.int64]:
    return np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 3], [150, 120, 80, 60]))


def found(known: Known, kinds: NDArray[np.int64], **settings: Any) -> Particles:
    placed = Particles.create("t", np.zeros((len(kinds), 3)))
    features = embeddings(kinds, 4)
    placed = Particles(placed.tomogram, placed.position, placed.orientation, placed.columns, features)
    chosen = DiscoverSettings.model_validate({"most_clusters": 8, "components": 6, **settings})
    return discover(placed, logits(features), known, logits(known.held), CLASSES, 1.0, chosen)


@pytest.mark.parametrize("method", ["gmm", "kmeans", "hdbscan"])
def test_clusters_are_the_structures_and_the_noisy_direction_is_not_one(
    known: Known, kinds: NDArray[np.int64], method: str
) -> None:
    made = found(known, kinds, method=method)
    number = made["cluster"].to_numpy()
    inside = number > 0
    assert inside.mean() > 0.85 and number.max() == 4
    assert adjusted_rand_score(kinds[inside], number[inside]) > 0.97
    assert (made["group"].to_numpy()[~inside] == "").all()


@pytest.mark.parametrize("novelty", ["combined", "mahalanobis", "energy", "neighbours"])
def test_the_new_structure_is_called_new_and_few_others_are(
    known: Known, kinds: NDArray[np.int64], novelty: str
) -> None:
    is_new = found(known, kinds, novelty=novelty)["is_new"].to_numpy()
    assert is_new[kinds == 3].mean() > 0.8
    assert is_new[kinds != 3].mean() < 0.12
    strict = found(known, kinds, novelty=novelty, false_alarms=0.01)["is_new"].to_numpy()
    assert strict.sum() < is_new.sum()


def test_a_structure_that_comes_often_is_newer_than_its_single_particles(
    known: Known, kinds: NDArray[np.int64]
) -> None:
    """A new structure a little off a known one: neighbours tell it better than any particle by itself."""
    scores = []
    for neighbourhood in (1, 20):
        features = embeddings(np.where(kinds == 3, 0, kinds), 4)
        features[kinds == 3] += (0.2 * (CENTRES[1] - CENTRES[0])).astype(np.float32)
        placed = Particles.create("t", np.zeros((len(kinds), 3)))
        placed = Particles(placed.tomogram, placed.position, placed.orientation, placed.columns, features)
        settings = DiscoverSettings(clusters=4, components=6, neighbourhood=neighbourhood)
        made = discover(placed, logits(features), known, logits(known.held), CLASSES, 1.0, settings)
        scores.append(roc_auc_score(kinds == 3, made["novelty"]))
    assert scores[1] > scores[0] + 0.05 and scores[1] > 0.92


def test_every_cluster_gets_a_verdict(known: Known, kinds: NDArray[np.int64]) -> None:
    made = found(known, kinds)
    good: dict[str, Any] = {"resolution_A": 30.0, "checks": {"is_noise": False, "is_mixture": False}, "warnings": []}
    averages = {f"cluster{n}": good for n in range(1, 5)}
    judged = {tuple(np.unique(kinds[made["cluster"] == one.cluster])): one for one in verdicts(made, averages)}
    assert [judged[(kind,)].kind for kind in range(4)] == ["known class", "known class", "junk", "new structure"]
    assert judged[(0,)].name == "1bxn" and judged[(1,)].name == "4v5d"
    assert judged[(3,)].new_share > 0.8 and judged[(3,)].resolution == judged[(3,)].as_dict()["resolution_A"] == 30
    assert sum(one.particles for one in judged.values()) == len(kinds)


def test_an_average_can_overrule_the_features(known: Known, kinds: NDArray[np.int64]) -> None:
    made = found(known, kinds)
    new = int(made["cluster"].to_numpy()[kinds == 3][0])
    noise = {"resolution_A": 30.0, "checks": {"is_noise": True}}
    two = {"resolution_A": 30.0, "checks": {"is_noise": False, "is_mixture": True}}
    for average, kind in ((noise, "junk"), (two, "mixed"), (None, "mixed")):
        entries = {f"cluster{new}": average} if average else {}
        assert next(one for one in verdicts(made, entries) if one.cluster == new).kind == kind


def test_too_few_particles_are_refused(known: Known) -> None:
    with pytest.raises(InputError, match="at least 8 particles to cluster, got 5"):
        found(known, np.zeros(5, np.int64))
