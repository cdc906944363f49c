"""Random assemblies: as dense as protein, as symmetric as they say, no two alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomotif.core import Structure
from tomotif.tasks.simulate.assemblies import MASS_KDA, random_assembly


@pytest.fixture(scope="module")
def made() -> list[Structure]:
    rng = np.random.default_rng(0)
    return [random_assembly(rng, f"assembly{i}") for i in range(40)]


def test_the_same_seed_gives_the_same_assembly() -> None:
    one, two, other = (random_assembly(np.random.default_rng(seed), "a") for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.positions, two.positions)
    assert one.mass_kda == two.mass_kda != other.mass_kda


def test_each_is_centred_and_within_its_limits(made: list[Structure]) -> None:
    for one in made:
        assert np.abs(one.centre_of_mass).max() < 0.01
        assert MASS_KDA[0] <= one.mass_kda <= MASS_KDA[1] and one.radius <= 150
        assert one.weights.sum() == pytest.approx(535 * one.mass_kda, rel=0.01)  # electrons of protein
    assert random_assembly(np.random.default_rng(0), "small", largest_radius=70).radius <= 70


def test_each_has_the_symmetry_that_it_names(made: list[Structure]) -> None:
    """A turn of the group takes every bead to the place of another one."""
    symmetric = 0
    for one in made:
        group = Rotation.create_group(one.title.split("symmetry ")[1].split(",")[0])  # type: ignore[arg-type]
        symmetric += len(group) > 1
        tree = cKDTree(one.positions)
        assert max(tree.query(turn.apply(one.positions))[0].max() for turn in group) < 0.05
    assert 0.4 < symmetric / len(made) < 0.95


def test_domains_do_not_lie_in_each_other(made: list[Structure]) -> None:
    """Beads have the room that protein has: about 1.3 nm³ each, less where domains touch."""
    for one in made:
        side = 12.0
        cells, counts = np.unique(np.floor(one.positions / side), axis=0, return_counts=True)
        assert counts.mean() < 1.5 * side**3 / 1330 and len(cells) * side**3 > 0.5 * 1210 * one.mass_kda


def test_shapes_differ(made: list[Structure]) -> None:
    """From compact to hollow or long: the radius of gyration over that of a ball of the same mass."""
    ball = [(3 / (4 * np.pi) * 1210 * one.mass_kda) ** (1 / 3) * np.sqrt(0.6) for one in made]
    ratio = np.array([one.radius_of_gyration for one in made]) / ball
    assert ratio.min() < 1.25 and ratio.max() > 1.7 and ratio.std() > 0.12
