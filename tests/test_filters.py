"""Filters, peaks and crops against analytic truth and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tomotif.core.geometry import radius_grid
from tomotif.ops.crop import (
    cut_boxes,
    inside_fraction,
    lanczos_matrices,
    resample_boxes,
    source_size,
    standardise,
    to_half,
)
from tomotif.ops.filters import (
    ball_response,
    bin_mean,
    constant_regions,
    difference_of_gaussians,
    gaussian_matrix,
    grow,
    reach,
    robust_level,
    smooth,
)
from tomotif.ops.peaks import keep_best, local_maxima, parabolic_offset


def everything(shape: tuple[int, ...]) -> list[range]:
    return [range(n) for n in shape]


def test_gaussian_agrees_with_scipy_away_from_the_border() -> None:
    volume = np.random.default_rng(0).normal(size=(30, 34, 38)).astype(np.float32)
    ours = smooth(volume, everything(volume.shape), everything(volume.shape), 1.7, truncate=4.0)
    theirs = gaussian_filter(volume, 1.7, truncate=4.0)
    inner = (slice(8, -8),) * 3
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


def test_gaussian_keeps_a_constant_up_to_the_border() -> None:
    volume = np.full((9, 11, 13), 7, np.float32)
    whole = everything(volume.shape)
    np.testing.assert_allclose(smooth(volume, whole, whole, 2.5), 7, rtol=1e-6)
    assert np.abs(difference_of_gaussians(volume, whole, whole, (1.0, 3.0))).max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(start=st.tuples(*[st.integers(0, 12)] * 3), edge=st.integers(1, 8), sigma=st.floats(0.4, 2.0))
def test_a_chunk_gets_the_values_of_the_whole(start: tuple[int, int, int], edge: int, sigma: float) -> None:
    volume = np.random.default_rng(1).normal(size=(20, 20, 20)).astype(np.float32)
    wanted = [range(s, min(s + edge, 20)) for s in start]
    given_ = [range(max(w.start - reach(sigma), 0), min(w.stop + reach(sigma), 20)) for w in wanted]
    chunk = volume[tuple(slice(g.start, g.stop) for g in given_)]
    whole = smooth(volume, everything(volume.shape), everything(volume.shape), sigma)
    expected = whole[tuple(slice(w.start, w.stop) for w in wanted)]
    np.testing.assert_allclose(smooth(chunk, given_, wanted, sigma), expected, atol=2e-6)


def test_matrix_rows_sum_to_one_where_the_volume_ends() -> None:
    np.testing.assert_allclose(gaussian_matrix(range(6), range(9), 1.5).sum(axis=1), 1, rtol=1e-6)


def test_a_solid_ball_answers_best_at_its_own_scale() -> None:
    radius, ratio = 9.0, 1.2
    ball = (radius_grid((48,) * 3) <= radius).astype(np.float32)
    whole, centre = everything(ball.shape), [range(24, 25)] * 3
    responses = {}
    for times in (0.6, 0.8, 1.0, 1.25, 1.6):
        sigma = times * radius / np.sqrt(3)
        pair = (sigma / ratio**0.5, sigma * ratio**0.5)
        responses[times] = float(difference_of_gaussians(ball, whole, centre, pair, truncate=4.0)[0, 0, 0])
    assert max(responses, key=lambda times: responses[times]) == 1.0
    assert responses[1.0] == pytest.approx(ball_response(ratio), rel=0.03)


@settings(max_examples=20, deadline=None)
@given(factor=st.integers(1, 4), shape=st.tuples(*[st.integers(4, 11)] * 3))
def test_bins_hold_the_mean_of_their_voxels(factor: int, shape: tuple[int, int, int]) -> None:
    data = np.random.default_rng(2).integers(-128, 127, shape).astype(np.int8)
    z, y, x = (n // factor for n in shape)
    kept = data[: z * factor, : y * factor, : x * factor].astype(np.float64)
    expected = kept.reshape(z, factor, y, factor, x, factor).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(bin_mean(data, factor), expected, atol=1e-4)


def test_filled_regions_are_found_and_noise_is_not_one() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.normal(scale=2.0, size=(40, 40, 40)).round().astype(np.float32)  # many equal neighbours by chance
    assert not constant_regions(coarse).any()
    coarse[:, :10, :12] = 0
    found = constant_regions(coarse)
    assert found[:, :10, :12].all()
    assert not found[:, 12:].any() and not found[:, :, 14:].any()


def test_grow_reaches_so_many_voxels() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[4, 4, 4] = True
    assert grow(mask, 2).sum() == 5**3
    assert not grow(np.zeros_like(mask), 2).any()


def test_robust_level_ignores_what_is_rare() -> None:
    values = np.random.default_rng(4).normal(10, 3, 200_000)
    values[:2000] = 1e4
    median, deviation = robust_level(values)
    assert median == pytest.approx(10, abs=0.1)
    assert deviation == pytest.approx(3, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(offset=st.tuples(*[st.floats(-0.45, 0.45)] * 3))
def test_the_parabola_finds_the_maximum_between_voxels(offset: tuple[float, float, float]) -> None:
    axes = np.meshgrid(*[np.arange(11) - 5 - o for o in offset], indexing="ij")
    volume = np.exp(-sum(a**2 for a in axes) / (2 * 3.0**2)).astype(np.float32)
    index = local_maxima(volume, 0.5)
    assert index.tolist() == [[5, 5, 5]]
    np.testing.assert_allclose(parabolic_offset(volume, index)[0], offset, atol=0.02)


def test_maxima_need_all_their_neighbours() -> None:
    volume = np.zeros((6, 6, 6), np.float32)
    volume[0, 3, 3] = 5  # at the edge of the chunk: its neighbours beyond are not known
    volume[2, 2, 2], volume[3, 3, 3] = 1, 2
    assert local_maxima(volume, 0.5).tolist() == [[3, 3, 3]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_what_is_kept_is_apart_and_what_is_not_has_a_better_neighbour(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    position, score, distance = rng.uniform(0, 10, (count, 3)), rng.random(count), rng.uniform(1, 4, count)
    kept = keep_best(position, score, distance)
    apart = np.linalg.norm(position[:, None] - position[None], axis=-1)
    needed = np.maximum(distance[:, None], distance[None])
    close = apart < needed
    assert not (close[np.ix_(kept, kept)] & ~np.eye(len(kept), dtype=bool)).any()
    assert (np.diff(score[kept]) <= 0).all()
    for row in set(range(count)) - set(kept.tolist()):
        assert any(close[row, k] and score[k] > score[row] for k in kept)


@settings(max_examples=40, deadline=None)
@given(first=st.tuples(*[st.integers(-12, 14)] * 3))
def test_boxes_are_padded_with_the_mean_of_their_inside(first: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(5).integers(-100, 100, (8, 9, 10)).astype(np.int8)
    padded = np.pad(volume.astype(np.float32), 24, constant_values=np.nan)
    expected = padded[tuple(slice(f + 24, f + 30) for f in first)]
    inside = np.isfinite(expected)
    box = cut_boxes(volume, np.array([first]), 6)[0]
    np.testing.assert_array_equal(box[inside], expected[inside])
    if inside.any():
        np.testing.assert_allclose(box[~inside], expected[inside].mean(), rtol=1e-5)
    assert inside_fraction(np.array([first], float), 1.0, 6, volume.shape)[0] == pytest.approx(inside.mean())


def wave(places: np.ndarray, period: float) -> np.ndarray:
    """A smooth test pattern, a product of waves along the three axes, at these places along each."""
    z, y, x = (1 + np.cos(2 * np.pi * (places + shift) / period) for shift in (0.3, 1.1, 2.0))
    return (z[:, None, None] * y[None, :, None] * x[None, None, :]).astype(np.float32)


@pytest.mark.parametrize("step", [0.7, 1.0, 1.6])
def test_resampling_reproduces_what_the_grid_can_hold(step: float) -> None:
    edge = source_size(16, step)
    first = np.array([[6.3, 5.8, 6.0]])
    fine = np.stack([wave(np.arange(edge), 9.0)])
    sampled = resample_boxes(fine, first, step, 16)[0]
    axes = [f + step * np.arange(16) for f in first[0]]
    expected = [1 + np.cos(2 * np.pi * (a + shift) / 9.0) for a, shift in zip(axes, (0.3, 1.1, 2.0), strict=True)]
    truth = expected[0][:, None, None] * expected[1][None, :, None] * expected[2][None, None, :]
    inner = (slice(None, int((edge - 12) / step)),) * 3
    assert np.abs(sampled - truth)[inner].max() < 0.04 * truth.max()


def test_resampling_removes_what_coarser_voxels_cannot_hold() -> None:
    places = 20 + 2.0 * np.arange(12)
    matrix = lanczos_matrices(places, 64)
    too_fine, coarse = np.cos(2 * np.pi * np.arange(64) / 2.6), np.cos(2 * np.pi * np.arange(64) / 12.0)
    assert np.abs(matrix @ too_fine).max() < 0.03  # would fold back to a period of 8.7 voxels
    np.testing.assert_allclose(matrix @ coarse, np.cos(2 * np.pi * places / 12.0), atol=0.02)


def test_standard_boxes_have_mean_0_and_deviation_1() -> None:
    boxes = np.random.default_rng(6).normal(50, 4, (3, 8, 8, 8)).astype(np.float32)
    boxes[1, :4] = boxes[1, 4:].mean()  # padding
    boxes[2] = 3
    mean, deviation = standardise(boxes, np.array([1.0, 0.5, 1.0]))
    np.testing.assert_allclose(mean[[0, 2]], [50, 3], rtol=0.01)
    np.testing.assert_allclose(deviation, [4, 4, 0], rtol=0.1)
    assert boxes[0].std() == pytest.approx(1, rel=1e-4)
    assert boxes[1, 4:].std() == pytest.approx(1, rel=1e-3)
    assert not boxes[2].any()


def test_boxes_are_rounded_as_numpy_does() -> None:
    boxes = np.random.default_rng(7).normal(size=(2, 4, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(to_half(boxes), boxes.astype(np.float16))
