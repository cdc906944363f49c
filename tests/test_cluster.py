"""Shape features tell globules from sheets whatever their orientation, and clusters are ranked by compactness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomotif.core import InputError, MissingWedge, Particles, Subtomograms
from tomotif.core.geometry import random_rotations
from tomotif.ops.shape import compactness, principal_moments, shape_features
from tomotif.tasks.cluster import ClusterSettings, cluster, describe_clusters

BOX = 24


def grid() -> np.ndarray:
    axis = np.arange(BOX) - BOX // 2
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).astype(float)


def ball(radius: float) -> np.ndarray:
    return (np.linalg.norm(grid(), axis=-1) < radius).astype(np.float32)


def sheet(rotation: Rotation) -> np.ndarray:
    normal = rotation.apply([1.0, 0.0, 0.0])
    return (np.abs(grid() @ normal) < 1.5).astype(np.float32)


def rod(rotation: Rotation) -> np.ndarray:
    axis = rotation.apply([1.0, 0.0, 0.0])
    along = grid() @ axis
    return ((np.linalg.norm(grid() - along[..., None] * axis, axis=-1) < 2) & (np.abs(along) < 7)).astype(np.float32)


def noisy_stack(seed: int = 0) -> Subtomograms:
    """40 balls, 60 sheets and 60 boxes of noise, z-scored."""
    rng = np.random.default_rng(seed)
    turns = random_rotations(60, rng)
    clean = [*(ball(5.0) for _ in range(40)), *(sheet(r) for r in turns), *(0 * ball(5.0) for _ in range(60))]
    boxes = np.stack(clean) + rng.normal(0, 1.0, (160, BOX, BOX, BOX))
    boxes = (boxes - boxes.mean((1, 2, 3), keepdims=True)) / boxes.std((1, 2, 3), keepdims=True)
    particles = Particles.create(
        "t", np.zeros((160, 3)), columns={"truth": ["ball"] * 40 + ["sheet"] * 60 + ["noise"] * 60}
    )
    return Subtomograms(particles, boxes.astype(np.float16), 20.0, MissingWedge())


@pytest.mark.parametrize("seed", range(3))
def test_moments_do_not_depend_on_orientation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rods = np.stack([rod(r) for r in random_rotations(6, rng)])
    long, middle, short = principal_moments(rods, radius_px=8).T
    np.testing.assert_allclose(long, 14 / np.sqrt(12), rtol=0.1)  # a rod of length L has L / sqrt(12)
    np.testing.assert_allclose(middle, 1.0, rtol=0.25)  # a disc of radius R has R / 2
    np.testing.assert_allclose(short, middle, rtol=0.25)


def test_a_globule_is_more_compact_than_a_sheet() -> None:
    sheets = np.stack([sheet(r) for r in random_rotations(5, np.random.default_rng(1))])
    globule, flat = compactness(shape_features(ball(5.0)[None])), compactness(shape_features(sheets))
    assert globule[0] > flat.max() + 0.3


def test_balls_become_the_first_cluster() -> None:
    grouped = cluster(noisy_stack(), ClusterSettings(clusters=3))
    truth = noisy_stack().particles["truth"].to_numpy()
    first = grouped["cluster"].to_numpy() == 1
    assert first[truth == "ball"].mean() >= 0.95
    assert (truth[first] == "ball").mean() >= 0.95
    assert set(grouped["group"][first]) == {"ribosome-like"} and set(grouped["group"][~first]) == {""}
    described = describe_clusters(grouped)
    assert [d["cluster"] for d in described] == [1, 2, 3]
    assert sum(int(d["particles"]) for d in described) == 160
    assert grouped.features is not None and grouped.features.shape == (160, 27)


def test_same_seed_same_clusters() -> None:
    one, two = (cluster(noisy_stack(), ClusterSettings(clusters=4, seed=5)) for _ in range(2))
    assert (one["cluster"] == two["cluster"]).all()


def test_fewer_particles_than_clusters_is_refused() -> None:
    with pytest.raises(InputError, match="160 particles for 200 clusters"):
        cluster(noisy_stack(), ClusterSettings(clusters=200))
