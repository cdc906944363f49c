"""Picking: what is found, what is left alone, and that neither chunks nor contrast decide it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

import tomotif
from tomotif.core import InputError, Particles, Tomogram, Volume
from tomotif.io.mrc import open_tomogram
from tomotif.io.structure import load_structure
from tomotif.ops.metrics import match
from tomotif.tasks.pick import PickSettings, pick
from tomotif.tasks.simulate import TomogramSettings, simulate_tomogram

SHAPE = (72, 96, 96)
VOXEL = 12.0
RADII = np.array([55.0, 75.0, 100.0])


@lru_cache
def balls() -> tuple[Tomogram, np.ndarray, np.ndarray]:
    """Dark balls of three radii in noise twice as strong as their density: tomogram, positions and radii in Å."""
    rng = np.random.default_rng(0)
    data = rng.normal(0, 2, SHAPE).astype(np.float32)
    grid = np.stack(np.meshgrid(*[np.arange(n) * VOXEL for n in SHAPE], indexing="ij"), axis=-1)
    position, radius = [], []
    while len(position) < 30:
        r = RADII[len(position) % 3]
        where = rng.uniform(r, np.array(SHAPE) * VOXEL - VOXEL - r)
        if all(np.linalg.norm(where - p) > 1.5 * (r + q) for p, q in zip(position, radius, strict=True)):
            data -= np.linalg.norm(grid - where, axis=-1) < r
            position.append(where)
            radius.append(r)
    return Tomogram(Volume(data, VOXEL), "balls"), np.array(position), np.array(radius)


def with_data(tomogram: Tomogram, data: np.ndarray) -> Tomogram:
    return replace(tomogram, volume=replace(tomogram.volume, data=data))


def assert_same(one: Particles, other: Particles) -> None:
    assert len(one) == len(other) > 20
    np.testing.assert_allclose(one.position, other.position, atol=0.01)
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4)


def test_balls_are_found_where_they_are_with_their_radius() -> None:
    tomogram, position, radius = balls()
    picks = pick(tomogram)
    assert (np.diff(picks["score"]) <= 0).all()
    best = picks.take(np.arange(30))
    pairs = match(best.position, position, radius)
    assert len(pairs) >= 29
    assert np.median(np.linalg.norm(best.position[pairs[:, 0]] - position[pairs[:, 1]], axis=1)) < 0.75 * VOXEL
    ratio = best["radius"].to_numpy()[pairs[:, 0]] / radius[pairs[:, 1]]
    assert ratio.min() > 0.8 and ratio.max() < 1.4


def test_real_complexes_at_the_goal_of_recall_and_false_picks() -> None:
    names = ["1bxn", "3cf3", "1qvr", "3j9i", "1oel", "4v8r", "3l5q", "4v5d"]
    settings = TomogramSettings(shape=(80, 160, 160), voxel_size=12.0, occupancy=0.05, snr=0.1)
    truth = simulate_tomogram([load_structure(n) for n in names], settings, np.random.default_rng(11), "cell")
    found = {}
    for method in ("multiscale", "dog"):
        picks = pick(truth.tomogram, PickSettings(method=method))  # type: ignore[arg-type] # both are methods
        pairs = match(picks.position, truth.particles.position, truth.particles["radius"].to_numpy())
        found[method] = len(pairs) / len(truth.particles), (len(picks) - len(pairs)) / len(pairs)
    recall, false_per_true = found["multiscale"]
    assert recall >= 0.85
    assert false_per_true <= 0.6
    assert recall > found["dog"][0] + 0.05


def test_published_dog_is_the_published_one() -> None:
    tomogram, _, _ = balls()
    sigma = 70 / VOXEL

    def blurred(sigma: float) -> np.ndarray:
        bright, there = -tomogram.volume.data.astype(np.float64), np.ones(SHAPE)
        values, weights = (gaussian_filter(a, sigma, truncate=4, mode="constant") for a in (bright, there))
        return values / weights  # the mean of what lies in the tomogram

    response = blurred(sigma) - blurred(1.1 * sigma)
    threshold = response.mean() + 3 * (response.max() - response.mean()) / 20
    index = np.argwhere((maximum_filter(response, 3) == response) & (response >= threshold))
    border = 50 / VOXEL
    index = index[np.all((index >= border) & (index <= np.array(SHAPE) - 1 - border), axis=1)]
    expected: list[np.ndarray] = []
    for place in index[np.argsort(-response[tuple(index.T)])]:
        if all(np.linalg.norm(place - other) >= sigma for other in expected):
            expected.append(place)
    picks = pick(tomogram, PickSettings(method="dog"))
    assert len(expected) > 20
    np.testing.assert_allclose(picks.position / VOXEL, expected, atol=1e-6)
    np.testing.assert_allclose(picks["score"], [response[tuple(e)] for e in expected], rtol=1e-3)
    np.testing.assert_allclose(picks["radius"], 70 * np.sqrt(3))


@pytest.mark.parametrize("method", ["multiscale", "dog"])
def test_chunks_do_not_decide_the_result(method: str) -> None:
    tomogram, _, _ = balls()
    fine = replace(tomogram, volume=Volume(np.repeat(np.repeat(tomogram.volume.data, 2, 1), 2, 2)[:60], VOXEL))
    whole = pick(fine, PickSettings(method=method, chunk_px=160))  # type: ignore[arg-type] # both are methods
    assert_same(whole, pick(fine, PickSettings(method=method, chunk_px=33)))  # type: ignore[arg-type] # as above


def test_chunks_do_not_decide_where_gold_and_fill_are() -> None:
    data = balls()[0].volume.data.copy()
    data[:, :20, 40:] = 0
    data[30:38, 60:68, 30:38] = -60
    tomogram = with_data(balls()[0], data)
    assert_same(pick(tomogram, PickSettings(chunk_px=160)), pick(tomogram, PickSettings(chunk_px=17)))


def test_contrast_is_what_the_tomogram_says() -> None:
    dark, position, radius = balls()
    bright = replace(with_data(dark, -dark.volume.data), contrast="bright")
    assert_same(pick(dark), pick(bright))
    wrong = pick(replace(dark, contrast="bright"))
    best = wrong.take(np.arange(min(30, len(wrong))))
    assert len(match(best.position, position, radius)) <= 3


def test_int8_and_float32_agree() -> None:
    tomogram, _, _ = balls()
    scaled = np.clip(np.round(tomogram.volume.data * 16), -128, 127)
    assert_same(pick(with_data(tomogram, scaled)), pick(with_data(tomogram, scaled.astype(np.int8))))


def test_no_pick_near_the_border() -> None:
    tomogram, _, _ = balls()
    end = (np.array(SHAPE) - 1) * VOXEL
    for border in (0.0, 150.0):
        picks = pick(tomogram, PickSettings(border=border))
        assert np.minimum(picks.position, end - picks.position).min() >= border
    assert len(pick(tomogram, PickSettings(border=0.0))) > len(pick(tomogram, PickSettings(border=150.0)))


def test_filled_corners_give_no_picks_and_change_nothing_elsewhere() -> None:
    tomogram, _, _ = balls()
    data = tomogram.volume.data + np.float32(20)  # the fill is far from the mean, as in turned tomograms
    diagonal = np.add.outer(np.arange(SHAPE[1]), np.arange(SHAPE[2])) < 40
    filled = data.copy()
    filled[:, diagonal] = 0
    before, after = pick(with_data(tomogram, data)), pick(with_data(tomogram, filled))
    distance = (after.position[:, 1:].sum(axis=1) / VOXEL - 40) / np.sqrt(2) * VOXEL
    assert distance.min() > 50 / np.sqrt(2)
    far = before.position[:, 1:].sum(axis=1) / VOXEL > 80
    near = [np.linalg.norm(after.position - p, axis=1).min() < 10 for p in before.position[far]]
    assert np.mean(near) > 0.9


def test_gold_is_not_picked_and_hides_nothing() -> None:
    tomogram, position, radius = balls()
    data, rng = tomogram.volume.data.copy(), np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.arange(n) * VOXEL for n in SHAPE], indexing="ij"), axis=-1)
    beads: list[np.ndarray] = []
    while len(beads) < 5:
        where = rng.uniform(100, np.array(SHAPE) * VOXEL - 100)
        if (np.linalg.norm(position - where, axis=1) > radius + 150).all():
            beads.append(where)
            data[np.linalg.norm(grid - where, axis=-1) < 50] -= 40
    golden = with_data(tomogram, data)

    def at_beads(settings: PickSettings) -> int:
        picks = pick(golden, settings)
        return sum(int((np.linalg.norm(picks.position - b, axis=1) < 75).sum()) for b in beads)

    assert at_beads(PickSettings(gold_contrast=None)) >= 3
    assert at_beads(PickSettings()) == 0
    best = pick(golden).take(np.arange(30))
    assert len(match(best.position, position, radius)) >= 28


def test_the_real_tomogram_gives_ribosomes_first() -> None:
    path = Path(tomotif.__file__).parent / "resources" / "mpneumoniae_20A.mrc"
    tomogram = open_tomogram(path, check=False)
    picks = pick(tomogram)
    assert 1500 < len(picks) < 6000
    best = picks.take(np.arange(250))
    assert np.median(best["radius"]) > 80  # by its radius of gyration a ribosome has 91 Å
    smooth = gaussian_filter(-tomogram.volume.data.astype(np.float32), 2.5)
    height = (smooth - smooth.mean()) / smooth.std()
    at = tuple(np.round(best.position / tomogram.voxel_size).astype(int).T)
    assert np.median(height[at]) > 3


def test_progress_counts_up_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    pick(balls()[0], PickSettings(chunk_px=32), progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, calls[0][1] + 1))


def test_nothing_found_is_an_empty_table() -> None:
    picks = pick(balls()[0], PickSettings(threshold=50.0))
    assert len(picks) == 0 and "score" in picks and "radius" in picks


def test_bad_input_is_refused() -> None:
    tomogram, _, _ = balls()
    for method in ("multiscale", "dog"):
        data = tomogram.volume.data.copy()
        data[40, 50, 61] = np.nan
        with pytest.raises(InputError, match=r"finite values in balls.*\(zyx\)"):
            pick(with_data(tomogram, data), PickSettings(method=method))  # type: ignore[arg-type] # as above
    with pytest.raises(InputError, match="balls is constant"):
        pick(with_data(tomogram, np.zeros(SHAPE, np.int8)))
    with pytest.raises(InputError, match=r"at least 1.2 voxels.*voxels of 40 Å"):
        pick(replace(tomogram, volume=Volume(tomogram.volume.data, 40.0)))
    with pytest.raises(InputError, match="larger than a particle of 80 Å, got balls of 36"):
        pick(with_data(tomogram, tomogram.volume.data[:3]))
    with pytest.raises(ValueError, match="smallest < largest"):
        PickSettings(radius=(100.0, 50.0))


def test_radii_too_far_apart_for_the_memory_are_refused() -> None:
    with pytest.raises(InputError, match=r"largest --radius of at most about 0.*apart"):
        pick(balls()[0], PickSettings(radius=(25.0, 400.0)))
