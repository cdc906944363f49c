"""Random places for masks, against exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from tomotif.ops.packing import Room, overlap

Mask = NDArray[np.bool_]


def ball(radius: float, size: int) -> Mask:
    return np.sum((np.indices((size, size, size)) - size // 2) ** 2, axis=0) <= radius**2


def rod(axis: int, half: int, size: int) -> Mask:
    near = (np.indices((size, size, size)) - size // 2) ** 2
    return (np.delete(near, axis, axis=0).sum(axis=0) <= 4) & (near[axis] <= half**2)


def blob(rng: np.random.Generator, size: int) -> Mask:
    mask = rng.random((size, size, size)) < rng.uniform(0.02, 0.4)
    mask[tuple(rng.integers(size, size=3))] = True
    return mask


def within(mask: Mask, place: tuple[int, int, int]) -> NDArray[np.int64]:
    """The voxels of a mask at a place, (n, 3)."""
    return np.argwhere(mask) - len(mask) // 2 + place


def spread(taken: Mask, gap: int) -> Mask:
    return binary_dilation(taken, iterations=gap) if gap else taken


def everywhere(closed: Mask, mask: Mask) -> set[tuple[int, ...]]:
    """All places where a mask is inside and off what is closed."""
    voxels = np.argwhere(mask) - len(mask) // 2
    low, high = -voxels.min(axis=0), np.array(closed.shape) - voxels.max(axis=0)
    count = np.maximum(high - low, 0)
    hit = np.zeros(count, dtype=bool)
    for first in voxels + low:
        hit |= closed[tuple(slice(f, f + n) for f, n in zip(first, count, strict=True))]
    return {tuple(row) for row in (np.argwhere(~hit) + low).tolist()}


def evenness(places: list[tuple[int, ...]], possible: int) -> float:
    """Chi-square of equally likely places, in standard deviations above what is expected."""
    counts = np.unique(places, axis=0, return_counts=True)[1]
    expected = len(places) / possible
    chi2 = np.sum((counts - expected) ** 2) / expected + (possible - len(counts)) * expected
    return float((chi2 - (possible - 1)) / np.sqrt(2 * (possible - 1)))


@pytest.mark.parametrize("gap", [0, 1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_a_place_is_one_of_all_that_are_free_and_none_only_where_there_is_none(seed: int, gap: int) -> None:
    rng = np.random.default_rng(seed)
    free = rng.random(rng.integers(6, 26, size=3)) < rng.uniform(0.93, 1)
    kept, taken = free.copy(), np.zeros_like(free)
    room = Room(free, gap_px=gap)
    nowhere = 0
    while nowhere < 5:
        mask = blob(rng, int(rng.integers(1, 8)))  # small after large, even and odd, off their centre
        possible = everywhere(~free | spread(taken, gap), mask)
        place = room.find(mask, rng)
        assert (place in possible) if possible else place is None
        nowhere += place is None
        if place is not None:
            assert room.free[tuple(within(mask, place).T)].all()
            taken[tuple(within(mask, place).T)] = True
            room.take(mask, place)
        np.testing.assert_array_equal(room.free, free & ~taken)
    np.testing.assert_array_equal(free, kept)


@pytest.mark.parametrize("gap", [0, 2])
def test_bodies_of_hundreds_of_voxels_never_overlap(gap: int) -> None:
    rng = np.random.default_rng(0)
    inside = ball(15, 32)  # a round cell
    room, taken = Room(inside, gap_px=gap), np.zeros_like(inside)
    masks = [mask for mask in [ball(4.3, 11), rod(0, 6, 13), rod(2, 4, 11)] for _ in range(3)]
    for mask in masks + [ball(2.5, 7)] * 300:
        place = room.find(mask, rng)
        if place is None:
            break
        where = tuple(within(mask, place).T)
        assert inside[where].all() and not spread(taken, gap)[where].any()
        taken[where] = True
        room.take(mask, place)
    assert place is None and len(mask) == 7  # the volume is full
    assert not everywhere(~inside | spread(taken, gap), mask)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_far_parts_of_a_body_do_not_reach_through_the_walls(share: float) -> None:
    rng = np.random.default_rng(0)
    free = rng.random((24, 26, 25)) < share  # by proposals, or by searching
    room = Room(free)
    for size in (5, 15, 23):
        for axis in range(3):
            ends = np.zeros((size, size, size), dtype=bool)
            np.moveaxis(ends, axis, 0)[[0, -1], size // 2, size // 2] = True
            possible = everywhere(~free, ends)
            assert possible
            assert all(room.find(ends, rng) in possible for _ in range(50))


def test_an_empty_volume_is_filled_evenly() -> None:
    rng, room, mask = np.random.default_rng(0), Room(np.ones((8, 9, 10), dtype=bool)), np.ones((5, 5, 5), dtype=bool)
    places = [room.find(mask, rng) for _ in range(6000)]
    assert None not in places
    assert abs(evenness([p for p in places if p is not None], 4 * 5 * 6)) < 4


def test_rare_places_are_equally_likely_too() -> None:
    # so few that random proposals mostly miss them all, and the volume is searched
    free = np.zeros((24, 28, 40), dtype=bool)
    free[2:5, 3:6, 0:3] = free[20:24, 24:28, 37:40] = free[11:13, 13:15, 20:22] = True
    rng, room, mask = np.random.default_rng(0), Room(free), np.ones((2, 2, 2), dtype=bool)
    assert len(everywhere(~free, mask)) == 8 + 18 + 1
    places = [room.find(mask, rng) for _ in range(2700)]
    assert None not in places
    assert abs(evenness([p for p in places if p is not None], 27)) < 4


def test_nothing_fits_where_there_is_no_room() -> None:
    rng = np.random.default_rng(0)
    assert Room(np.ones((8, 8, 4), dtype=bool)).find(ball(2.5, 7), rng) is None  # larger than the volume
    assert Room(np.zeros((8, 8, 8), dtype=bool)).find(ball(1, 3), rng) is None
    assert Room(np.ones((8, 8, 8), dtype=bool)).find(np.zeros((3, 3, 3), dtype=bool), rng) is None
    slab = np.zeros((16, 16, 16), dtype=bool)
    slab[6:11] = True
    assert Room(slab).find(ball(3, 7), rng) is None
    place = Room(slab).find(ball(2, 7), rng)
    assert place is not None and place[0] == 8


def test_the_centre_of_a_lopsided_mask_may_lie_outside() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[7:, 7:, :2] = True
    room = Room(np.ones((2, 2, 2), dtype=bool))
    place = room.find(mask, np.random.default_rng(0))
    assert place == (-3, -3, 4)
    room.take(mask, place)
    assert not room.free.any()


def test_what_sticks_out_is_ignored() -> None:
    room = Room(np.ones((6, 7, 8), dtype=bool), gap_px=1)
    closed, mask = np.zeros((6, 7, 8), dtype=bool), ball(2, 5)
    rng = np.random.default_rng(0)
    point = np.ones((1, 1, 1), dtype=bool)
    for place in [(0, 0, 0), (5, 3, 7), (2, 6, 1)]:
        room.take(mask, place)
        inside, kept = overlap(closed.shape, 5, place)
        closed[inside] |= mask[kept]
        left = everywhere(spread(closed, 1), point)
        # the gap around what sticks out reaches into the volume no farther than that around the rest
        assert all(room.find(point, rng) in left for _ in range(20))
    np.testing.assert_array_equal(room.free, ~closed)


def test_three_tenths_of_a_volume_are_filled() -> None:
    rng, shape = np.random.default_rng(0), (48, 72, 72)
    room, tries = Room(np.ones(shape, dtype=bool)), 0
    kinds = [
        [ball(7, 15)],
        [rod(axis, 9, 19) for axis in range(3)],
        [ball(4, 9)],
        [rod(axis, 5, 11) for axis in range(3)],
    ]
    each = 0.30 * room.free.size / sum(kind[0].sum() for kind in kinds)
    for kind in kinds:
        for _ in range(round(each)):
            for _ in range(8):
                tries += 1
                mask = kind[rng.integers(len(kind))]
                place = room.find(mask, rng)
                if place is not None:
                    room.take(mask, place)
                    break
    assert 1 - room.free.mean() > 0.295
    assert tries < 1.1 * len(kinds) * each  # nearly every orientation finds its place


def test_the_same_generator_finds_the_same_places() -> None:
    def places(seed: int) -> list[tuple[int, int, int] | None]:
        rng, room, found = np.random.default_rng(seed), Room(np.ones((20, 24, 28), dtype=bool), gap_px=1), []
        for mask in [ball(4, 9)] * 8 + [ball(2, 5)] * 80:
            found.append(room.find(mask, rng))
            if found[-1] is not None:
                room.take(mask, found[-1])
        return found

    assert places(3) == places(3) != places(4)
    assert places(3)[0] is not None and places(3)[-1] is None  # by proposals and by searching


def test_free_is_for_looking_only() -> None:
    room = Room(np.ones((4, 4, 4), dtype=bool))
    with pytest.raises(ValueError, match="read-only"):
        room.free[0, 0, 0] = False
