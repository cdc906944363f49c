"""Pictures come back where they belong; neighbours count only beyond what chance and exclusion bring together."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from tests.pattern_pictures import ball, drawn, places
from tomotif.core import InputError, Labels, Particles, Tomogram, UnknownNameError, Volume
from tomotif.core.geometry import random_rotations
from tomotif.io.mrc import open_labels, open_volume
from tomotif.tasks.embed import (
    Interaction,
    InteractionSettings,
    candidate_region,
    embed,
    interactions,
    placement,
    unhindered,
    write_embedding,
)

EDGE = 4000.0


def tomogram(shape: tuple[int, int, int] = (64, 72, 80), voxel_size: float = 20.0, name: str = "t") -> Tomogram:
    """A tomogram of which only the size matters."""
    return Tomogram(Volume(np.broadcast_to(np.float32(0), shape), voxel_size), name)


def hand(
    rotation: Rotation, box_px: int, voxel_size: float, centre: tuple[float, float, float] = (0, 0, 0)
) -> NDArray[np.floating]:
    """Three balls of different sizes at right angles: it looks different from every side and in the mirror."""
    where = places(box_px, voxel_size, rotation, centre)
    parts = [((0, 0, 0), 60), ((110, 0, 0), 70), ((0, 90, 0), 50), ((0, 0, 80), 40)]
    return np.max([ball(where, at, radius, voxel_size) for at, radius in parts], axis=0)


def made(
    pictures: NDArray[np.floating], particles: Particles, where: Tomogram, voxel_size: float = 20.0
) -> tuple[Labels, NDArray[np.float32]]:
    labels, density = np.zeros(where.shape, np.int8), np.zeros(where.shape, np.float32)
    return embed(pictures, particles, where, labels, density, voxel_size=voxel_size), density


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


# -------------------------------------------------------------------------------------------------------- embedding


@pytest.mark.parametrize("seed", range(4))
def test_a_turned_picture_lies_where_it_belongs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn = random_rotations(1, rng)
    position = np.array([600.0, 700.0, 800.0]) + rng.uniform(-10, 10, 3)
    where = tomogram()
    picture = hand(Rotation.identity(), 24, 20.0).astype(np.float32)
    labels, density = made(picture[None], Particles.create("t", [position], turn, {"pattern": [1]}), where)
    from_middle = tuple(position - 20.0 * (80 // 2))
    truth = hand(turn[0], 80, 20.0, from_middle)[:64, :72]
    assert overlap(labels.data == 1, truth > 0.4) > 0.8
    assert np.corrcoef(density[truth > 0], truth[truth > 0])[0, 1] > 0.9
    wrong = hand(turn[0].inv(), 80, 20.0, from_middle)[:64, :72]
    assert overlap(labels.data == 1, wrong > 0.4) < 0.6


def test_position_is_right_to_a_fraction_of_a_voxel() -> None:
    where, picture = tomogram(), drawn("large ball")
    for position in ([600.0, 700.0, 800.0], [607.0, 693.0, 809.0]):
        labels, density = made(picture[None], Particles.create("t", [position], columns={"pattern": [1]}), where)
        weight = density * (labels.data > 0)
        middle = [
            np.average(np.arange(n), weights=weight.sum(axis=rest)) * 20
            for n, rest in zip(where.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
        ]
        assert middle == pytest.approx(position, abs=2.0)


@pytest.mark.parametrize("voxel_size", [13.0, 20.0, 31.0])
def test_pictures_are_resampled_to_the_tomogram(voxel_size: float) -> None:
    where = tomogram((96, 96, 96), voxel_size)
    position = np.array([48.0, 47, 49]) * voxel_size
    turn = random_rotations(1, np.random.default_rng(3))
    picture = hand(Rotation.identity(), 24, 20.0).astype(np.float32)
    labels, _ = made(picture[None], Particles.create("t", [position], turn, {"pattern": [1]}), where)
    truth = hand(turn[0], 96, voxel_size, tuple(position - 48 * voxel_size)) > 0.4
    assert overlap(labels.data == 1, truth) > 0.7
    assert (labels.data > 0).sum() == pytest.approx(truth.sum(), rel=0.25)


def test_noise_and_what_is_below_the_level_is_not_painted() -> None:
    pictures = np.stack([drawn("large ball", noise=0.3) + 5, drawn("noise", noise=0.3)])
    position = [[600.0, 700.0, 400.0], [600.0, 700.0, 1200.0]]
    labels, density = made(pictures, Particles.create("t", position, columns={"pattern": [1, 2]}), tomogram())
    assert set(np.unique(labels.data)) == {0, 1} and (density > 0).sum() == (labels.data > 0).sum()
    assert (labels.data == 1).sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.2)
    assert density.max() < 2.5  # without the offset


def test_the_denser_member_wins_whatever_the_order() -> None:
    pictures = np.stack([drawn("large ball"), 2 * drawn("small ball")])
    position = np.array([[600.0, 700.0, 800.0], [600.0, 700.0, 860.0]])
    for order in ([0, 1], [1, 0]):
        particles = Particles.create("t", position[order], columns={"pattern": np.array([1, 2])[order]})
        labels, density = made(pictures, particles, tomogram())
        assert (labels.data[30, 35, 43], labels.data[30, 35, 37]) == (2, 1)
        assert density[30, 35, 43] > 1.5 > density[30, 35, 37] > 0.8
        assert labels.names == {1: "pattern 1", 2: "pattern 2"}


def test_members_at_the_border_of_none_and_of_other_tomograms() -> None:
    position = [[0.0, 0.0, 0.0], [1260.0, 1420.0, 1580.0], [600.0, 700.0, 800.0], [600.0, 700.0, 800.0]]
    particles = Particles.create(["t", "t", "t", "other"], position, columns={"pattern": [1, 1, 0, 1]})
    labels, _ = made(drawn("large ball")[None], particles, tomogram())
    assert labels.data[0, 0, 0] == labels.data[-1, -1, -1] == 1 and labels.data[30, 35, 40] == 0
    outside = Particles.create("t", [[-5000.0, 0, 0]], columns={"pattern": [1]})
    assert not made(drawn("large ball")[None], outside, tomogram())[0].data.any()


def test_files_hold_labels_names_and_density(tmp_path: Path) -> None:
    pictures = np.stack([drawn("large ball"), drawn("small ball")])
    particles = Particles.create("t", [[600.0, 700.0, 400.0], [600.0, 700.0, 1200.0]], columns={"pattern": [1, 2]})
    done: list[tuple[int, int]] = []
    write_embedding(
        tmp_path,
        pictures,
        particles,
        tomogram(),
        voxel_size=20.0,
        names={1: "ribosome"},
        progress=lambda *count: done.append(count),
    )
    labels, density = open_labels(tmp_path / "labels.mrc"), open_volume(tmp_path / "density.mrc")
    expected, painted = made(pictures, particles, tomogram())
    np.testing.assert_array_equal(labels.data, expected.data)
    np.testing.assert_array_equal(np.asarray(density.data), painted)
    assert labels.names == {1: "ribosome", 2: "pattern 2"} and density.voxel_size == 20.0 and done[-1] == (2, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["density.mrc", "labels.json", "labels.mrc"]


def test_memory_does_not_grow_with_the_tomogram(tmp_path: Path) -> None:
    where = tomogram((128, 256, 256))
    rng = np.random.default_rng(0)
    particles = Particles.create(
        "t", rng.uniform(0, 2500, (200, 3)), random_rotations(200, rng), {"pattern": np.ones(200, np.int64)}
    )
    tracemalloc.start()
    write_embedding(tmp_path, drawn("large ball")[None], particles, where, voxel_size=20.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 < 0.2 * 5 * np.prod(where.shape)


def test_bad_embeddings_are_refused() -> None:
    picture, where = drawn("large ball")[None], tomogram()
    one = Particles.create("t", [[600.0, 700.0, 800.0]], columns={"pattern": [2]})
    with pytest.raises(InputError, match="there are 1 pictures, got 2 to 2"):
        made(picture, one, where)
    with pytest.raises(InputError, match="finite positions"):
        made(picture, Particles.create("t", [[np.nan, 0, 0]], columns={"pattern": [1]}), where)
    labels, density = np.zeros((4, 4, 4), np.int8), np.zeros(where.shape, np.float32)
    with pytest.raises(ValueError, match="tomogram's shape"):
        embed(picture, one, where, labels, density, voxel_size=20.0)
    with pytest.raises(ValueError, match="count to 200"):
        embed(np.repeat(picture, 200, axis=0), one, where, np.zeros(where.shape, np.int8), density, voxel_size=20.0)


# ----------------------------------------------------------------------------------------------------- interactions


def hard_spheres(
    rng: np.random.Generator, count: int, diameter: float, others: NDArray[np.floating] | None = None, apart: float = 0
) -> NDArray[np.float64]:
    """Points at random, none nearer than a diameter to another, nor than ``apart`` to others."""
    kept: list[NDArray[np.float64]] = []
    while len(kept) < count:
        point = rng.uniform(0, EDGE, 3)
        clear = not kept or np.linalg.norm(np.array(kept) - point, axis=1).min() >= diameter
        if clear and (others is None or np.linalg.norm(others - point, axis=1).min() >= apart):
            kept.append(point)
    return np.array(kept)


def patterned(*groups: NDArray[np.floating], name: str = "t") -> Particles:
    number = np.repeat(np.arange(1, len(groups) + 1), [len(group) for group in groups])
    return Particles.create(name, np.concatenate(groups), columns={"pattern": number})


CUBE = tomogram((200, 200, 200))


def pairs(
    particles: Particles, settings: InteractionSettings | None = None, **more: object
) -> dict[tuple[int, int], Interaction]:
    found = interactions(particles, [CUBE], settings or InteractionSettings(draws=199), **more)  # type: ignore[arg-type]
    return {(one.pattern, one.neighbour): one for one in found}


def sheet(rng: np.random.Generator, count: int = 250) -> NDArray[np.float64]:
    return np.column_stack([2000 + rng.normal(0, 20, count), rng.uniform(0, EDGE, (count, 2))])


def test_globules_at_a_sheet_are_found() -> None:
    rng = np.random.default_rng(5)
    membrane = sheet(rng)
    side = rng.choice([-1, 1], 40) * 150.0
    at = np.column_stack([2000 + side + rng.normal(0, 20, 40), rng.uniform(0, EDGE, (40, 2))])
    globules = np.concatenate([at, hard_spheres(rng, 80, 200, membrane, 120)])
    found = pairs(patterned(membrane, globules, hard_spheres(rng, 120, 150, membrane, 100)))
    there = found[2, 1]
    assert there.placed == 2 and there.count == 120
    assert there.in_contact == pytest.approx(0.3, abs=0.06) and there.null_in_contact == pytest.approx(0.1, abs=0.04)
    assert 2.5 < there.enrichment < 6 and there.p_value <= 2 / 200 and there.q_value < 0.05
    assert there.median_distance < there.null_distance
    assert found[1, 2].placed == 2 and found[1, 2].p_value <= 2 / 200  # the sheet stays where it is
    assert found[1, 1].enrichment > 2
    for unrelated in ((2, 3), (3, 2), (3, 1), (1, 3), (3, 3)):
        assert found[unrelated].p_value > 0.01, unrelated
    line = there.evidence({1: "membrane", 2: "ribosome-like", 3: "other"})
    assert line.startswith("ribosome-like at membrane: ") and "within 250 Å, by chance" in line


def test_globules_that_shun_a_sheet_are_found() -> None:
    """Even if none comes near it: that is no exclusion, which would reach farther than the contact distance."""
    rng = np.random.default_rng(6)
    membrane = sheet(rng)
    far = hard_spheres(rng, 150, 100, membrane, 400)
    near = np.array([[2120.0, 2000, 2000]])
    for globules in (far, np.concatenate([far, near])):
        found = pairs(patterned(membrane, globules), InteractionSettings(draws=199, contact=400))
        for pair in ((2, 1), (1, 2)):
            assert found[pair].enrichment < 0.3 and found[pair].p_value <= 2 / 200 and found[pair].q_value < 0.05


def test_one_pair_counts_among_many() -> None:
    """With twelve patterns there are 144 pairs, and 99 draws."""
    rng = np.random.default_rng(7)
    others = [rng.uniform(0, EDGE, (60, 3)) for _ in range(11)]
    at_first = others[0][:40] + rng.normal(0, 60, (40, 3))
    found = pairs(patterned(*others, at_first), InteractionSettings(draws=99))
    sure = {pair for pair, one in found.items() if one.q_value <= 0.05}
    assert {(1, 12), (12, 1)} <= sure and len(sure) <= 4
    assert found[12, 1].p_value < 1e-4


def test_exclusion_alone_is_no_interaction() -> None:
    """Hard spheres that fill a tenth of the volume stand regularly, and closer than points would."""
    p_values = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        large = hard_spheres(rng, 200, 300)
        small = hard_spheres(rng, 150, 200, large, 250)
        found = pairs(patterned(large, small), InteractionSettings(draws=199, contact=400, seed=seed))
        p_values += [one.p_value for one in found.values()]
        assert all(0.6 < one.enrichment < 1.6 for one in found.values())
    assert min(p_values) > 0.005 and np.mean(np.array(p_values) <= 0.05) < 0.12
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_independent_patterns_have_p_values_of_chance() -> None:
    """A sheet, too: it is one thing, so that the pattern beside it is placed anew."""
    p_values: dict[str, list[float]] = {"points": [], "sheet": []}
    for seed in range(25):
        rng = np.random.default_rng(seed)
        settings = InteractionSettings(draws=99, contact=300, seed=seed)
        points = pairs(patterned(rng.uniform(0, EDGE, (100, 3)), rng.uniform(0, EDGE, (80, 3))), settings)
        p_values["points"] += [points[pair].p_value for pair in ((1, 1), (1, 2), (2, 2))]
        beside = pairs(patterned(sheet(rng, 150), rng.uniform(0, EDGE, (100, 3))), settings)
        p_values["sheet"] += [beside[pair].p_value for pair in ((2, 1), (2, 2))]
        assert beside[1, 2].placed == beside[2, 1].placed == 2
    for values in p_values.values():  # counts tie, which only makes p-values larger
        assert kstest(values, "uniform", alternative="greater").pvalue > 0.01 and np.mean(values) < 0.75
        assert np.mean(np.array(values) <= 0.05) < 0.13


def test_few_members_do_not_look_near() -> None:
    """The closest of few pairs says little about exclusion."""
    values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        few = patterned(rng.uniform(0, EDGE, (6, 3)), rng.uniform(0, EDGE, (8, 3)))
        values.append(pairs(few, InteractionSettings(draws=99, contact=1000, seed=seed))[1, 2].p_value)
    assert np.mean(values) > 0.35 and np.mean(np.array(values) <= 0.05) <= 0.1


def test_a_cell_that_fills_half_of_the_tomogram_is_no_interaction_within_its_region() -> None:
    rng = np.random.default_rng(2)
    cell = rng.uniform(0, EDGE, (4000, 3))
    cell = cell[np.linalg.norm(cell - 2000, axis=1) < 1300]
    particles = Particles.create("t", cell, columns={"pattern": rng.integers(0, 3, len(cell))})
    everywhere = pairs(particles)
    region = candidate_region(particles, CUBE, 400)
    inside = pairs(particles, regions={"t": region})
    assert region.mean() == pytest.approx(4 / 3 * np.pi * (1300 / EDGE) ** 3, rel=0.1)
    assert everywhere[1, 2].p_value <= 0.01 < 0.05 < inside[1, 2].p_value
    assert everywhere[1, 2].enrichment > 1.5 > 1.3 > inside[1, 2].enrichment


def test_particles_of_no_pattern_take_up_room() -> None:
    """Two patterns in the gaps between what is none: without these the gaps would seem to be an interaction."""
    rng = np.random.default_rng(4)
    centres = np.stack(np.meshgrid(*[np.arange(250, 4000, 500.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    free = hard_spheres(rng, 240, 0, centres, 300)
    number = np.concatenate([np.zeros(len(centres), np.int64), np.tile([1, 2], 120)])
    particles = Particles.create("t", np.concatenate([centres, free]), columns={"pattern": number})
    with_room = pairs(particles, InteractionSettings(draws=199, contact=200))
    bare = pairs(particles.take(number > 0), InteractionSettings(draws=199, contact=200))
    assert with_room[1, 2].null_in_contact > 1.4 * bare[1, 2].null_in_contact
    assert with_room[1, 2].p_value > 0.02


def test_same_seed_same_table_and_tomograms_add_up() -> None:
    rng = np.random.default_rng(0)
    one = patterned(rng.uniform(0, EDGE, (40, 3)), rng.uniform(0, EDGE, (30, 3)))
    other = patterned(rng.uniform(0, EDGE, (20, 3)), name="u")
    both, where = Particles.concat([one, other]), [CUBE, tomogram((200, 200, 200), name="u")]
    settings = InteractionSettings(draws=49, seed=3)
    found = interactions(both, where, settings)
    assert found == interactions(both, where, settings)
    assert {(i.pattern, i.neighbour): i.count for i in found} == {(1, 1): 60, (1, 2): 40, (2, 1): 30, (2, 2): 30}
    assert [i.p_value for i in found] == sorted(i.p_value for i in found)
    assert all(i.q_value >= i.p_value for i in found)
    assert set(found[0].as_dict()) == set(Interaction.__dataclass_fields__)


def test_few_and_none() -> None:
    assert interactions(Particles.create("t", [[1.0, 2, 3]], columns={"pattern": [0]}), [CUBE]) == []
    single = Particles.create("t", [[1.0, 2, 3], [500.0, 500, 500]], columns={"pattern": [1, 2]})
    assert {(i.pattern, i.neighbour) for i in interactions(single, [CUBE])} == {(1, 2), (2, 1)}
    with pytest.raises(UnknownNameError, match="unknown tomogram 'u'"):
        interactions(Particles.create("u", [[1.0, 2, 3]], columns={"pattern": [1]}), [CUBE])
    with pytest.raises(UnknownNameError, match="pattern"):
        interactions(Particles.create("t", [[1.0, 2, 3]]), [CUBE])
    with pytest.raises(InputError, match="expected finite positions"):
        interactions(Particles.create("t", [[np.nan, 2, 3]], columns={"pattern": [1]}), [CUBE])
    with pytest.raises(InputError, match="got an empty one"):
        interactions(single, [CUBE], regions={"t": np.zeros((4, 4, 4), dtype=bool)})


def test_a_full_region_says_so() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0, 600, 100.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    number = np.ones(len(grid), np.int64)
    number[::2] = 2
    region = np.zeros((40, 40, 40), dtype=bool)
    region[20:, 20:, 20:] = True
    particles = Particles.create("t", np.concatenate([grid, grid + 2200]), columns={"pattern": np.tile(number, 2)})
    placed = interactions(particles, [CUBE], InteractionSettings(draws=39), regions={"t": region})
    assert placed  # there is room elsewhere in the region
    tiny = np.zeros((400, 400, 400), dtype=bool)
    tiny[221, 220, 220] = True  # beside a particle
    with pytest.raises(InputError, match="room for pattern"):
        interactions(particles, [CUBE], InteractionSettings(draws=39), regions={"t": tiny})


def test_sequential_addition_keeps_the_distance() -> None:
    rng = np.random.default_rng(0)
    pool = rng.uniform(0, 1000, (5000, 3))
    rows = placement(pool, 60, 150.0, rng)
    between = np.linalg.norm(pool[rows][:, None] - pool[rows], axis=-1)
    assert len(set(rows.tolist())) == 60 and between[~np.eye(60, dtype=bool)].min() >= 150
    line = np.array([[0.0, 0, 0], [0, 0, 8], [0, 0, 16], [0, 0, 4]])
    assert unhindered(line, 10).tolist() == [True, False, True, False]
    assert len(placement(pool[:5], 9, 0.0, rng)) == 9 and len(placement(pool, 50, 900.0, rng)) == 50
