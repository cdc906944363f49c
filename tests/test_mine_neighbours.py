"""Who neighbours whom in a mined cell: what is no structure is no pattern, but leaves its mark on chance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tomotif.core import Particles, Tomogram, Volume
from tomotif.ops.pattern_shape import describe_picture
from tomotif.pipelines.mine import neighbours
from tomotif.tasks.embed import Interaction, InteractionSettings
from tomotif.tasks.patterns import BORDER, NOISE, Group, Members, Pattern, at_border, usually_near

VOXEL, SHAPE, SHELL = 20.0, (128, 150, 200), 240.0
EXTENT = VOXEL * np.array(SHAPE)
SHAPE_OF_NOTHING = describe_picture(np.random.default_rng(0).normal(size=(16, 16, 16)), VOXEL)


def cell() -> Tomogram:
    data = np.broadcast_to(np.float32(0), SHAPE)
    return Tomogram(Volume(data, VOXEL), name="cell", contrast="dark")


def found(
    number: NDArray[np.integer], position: NDArray[np.floating], *groups: Group, contact: float = 250.0
) -> list[Interaction]:
    """Interactions of patterns of these groups."""
    patterns = [
        Pattern(i, group, group, "", SHAPE_OF_NOTHING, Members(int((number == i).sum())))
        for i, group in enumerate(groups, 1)
    ]
    particles = Particles.create("cell", position, columns={"pattern": number})
    return neighbours(particles, patterns, [cell()], InteractionSettings(draws=99, contact=contact), SHELL)


def uniform(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Points of the whole tomogram, and which of them are near its border."""
    position = rng.uniform(0, EXTENT - VOXEL, (count, 3))
    return position, np.minimum(position, EXTENT - position).min(axis=1) < SHELL


@pytest.mark.parametrize("seed", range(3))
def test_a_border_that_is_set_aside_makes_no_interaction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    position, near = uniform(rng, 1500)
    number = np.where(near, 3, rng.integers(1, 3, len(near)))
    pairs = found(number, position, "large globule", "small globule", BORDER)
    assert {(one.pattern, one.neighbour) for one in pairs} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert all(0.85 < one.enrichment < 1.15 for one in pairs)
    assert min(one.p_value for one in pairs) > 0.02
    kept = found(np.where(near, 0, number), position, "large globule", "small globule")
    assert all(one.enrichment > 1.1 for one in kept)  # what chance into the empty border does


def test_noise_takes_up_room() -> None:
    rng = np.random.default_rng(1)
    lattice = np.stack(np.meshgrid(*[np.arange(150, edge, 400.0) for edge in EXTENT], indexing="ij"), -1).reshape(-1, 3)
    position, _ = uniform(rng, 6000)
    free = position[np.linalg.norm(position[:, None] - lattice, axis=2).min(axis=1) > 190][:600]
    number = np.concatenate([np.full(len(lattice), 3), rng.integers(1, 3, len(free))])
    both = np.concatenate([lattice, free])
    pairs = found(number, both, "large globule", "small globule", NOISE, contact=120)
    bare = found(number[len(lattice) :], free, "large globule", "small globule", contact=120)
    chance = {(one.pattern, one.neighbour): one.null_in_contact for one in bare}
    assert len(pairs) == 4
    assert all(one.null_in_contact > 1.03 * chance[one.pattern, one.neighbour] for one in pairs)


def test_nothing_but_noise_has_no_neighbours() -> None:
    position, _ = uniform(np.random.default_rng(2), 50)
    assert found(np.resize([1, 2], 50), position, NOISE, BORDER) == []


def test_where_all_are_near_the_border_none_is_of_it() -> None:
    """The share of all particles is that of the tomograms in which a pattern lies."""
    particles = Particles.concat(
        [Particles.create("thick", np.zeros((8, 3))), Particles.create("thin", np.zeros((4, 3)))]
    )
    near = np.array([True, *[False] * 7, *[True] * 3, False])
    assert usually_near(near, particles, np.arange(8, 12)) == pytest.approx(0.75)
    assert usually_near(near, particles, np.arange(6, 10)) == pytest.approx((2 * 0.125 + 2 * 0.75) / 4)
    assert at_border(0.9, 0.125) and not at_border(0.9, 0.75) and not at_border(1.0, 1.0)
