"""Matching, rates, confusion matrices and bootstrap against brute force and closed forms."""

from __future__ import annotations

import time
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomotif.core import InputError
from tomotif.ops.metrics import (
    best_assignment,
    class_rates,
    confusion_matrices,
    detection_rates,
    interval,
    macro_mean,
    match,
    random_positions,
    rates,
    resample,
)


def brute_force(distance: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[int, float]:
    """Largest number of pairs and their least summed distance, by trying every assignment."""
    if distance.shape[0] > distance.shape[1]:
        distance, allowed = distance.T, allowed.T
    best = (0, 0.0)
    for columns in permutations(range(distance.shape[1]), distance.shape[0]):
        pairs = [(i, j) for i, j in enumerate(columns) if allowed[i, j]]
        total = sum(distance[i, j] for i, j in pairs)
        if len(pairs) > best[0] or (len(pairs) == best[0] and total < best[1]):
            best = (len(pairs), float(total))
    return best


clouds = st.tuples(
    st.integers(0, 6), st.integers(0, 6), st.integers(0, 2**32 - 1), st.sampled_from([20.0, 60.0, 200.0])
)


def draw(cloud: tuple[int, int, int, float]) -> tuple[NDArray[np.float64], ...]:
    m, n, seed, size = cloud
    rng = np.random.default_rng(seed)
    return rng.random((m, 3)) * size, rng.random((n, 3)) * size, rng.uniform(20, 120, n)


@settings(max_examples=150, deadline=None)
@given(clouds)
def test_matching_is_one_to_one_and_the_best_there_is(cloud: tuple[int, int, int, float]) -> None:
    picks, truth, radius = draw(cloud)
    pairs = match(picks, truth, radius)
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
    distance = np.linalg.norm(picks[:, None] - truth[None], axis=2)
    allowed = distance <= radius[None] / 2
    assert allowed[pairs[:, 0], pairs[:, 1]].all()
    number, total = brute_force(distance, allowed)
    assert len(pairs) == number
    assert distance[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(total, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(clouds, st.integers(0, 2**32 - 1))
def test_matching_does_not_depend_on_the_order_of_rows(cloud: tuple[int, int, int, float], seed: int) -> None:
    picks, truth, radius = draw(cloud)
    rng = np.random.default_rng(seed)
    p, t = rng.permutation(len(picks)), rng.permutation(len(truth))
    straight = match(picks, truth, radius)
    shuffled = match(picks[p], truth[t], radius[t])
    assert {*map(tuple, straight)} == {(p[i], t[j]) for i, j in shuffled}


@settings(max_examples=60, deadline=None)
@given(clouds)
def test_matching_is_symmetric_when_all_radii_are_equal(cloud: tuple[int, int, int, float]) -> None:
    picks, truth, _ = draw(cloud)
    forth, back = match(picks, truth, 80.0), match(truth, picks, 80.0)
    assert {*map(tuple, forth)} == {(i, j) for j, i in back}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_picks_on_the_truth_match_it_exactly(n: int, seed: int) -> None:
    truth = np.random.default_rng(seed).random((n, 3)) * 500
    order = np.random.default_rng(seed + 1).permutation(n)
    pairs = match(truth[order], truth, 100.0)
    assert (order[pairs[:, 0]] == pairs[:, 1]).all()
    assert len(pairs) == n


def test_two_picks_never_match_one_particle_and_the_chain_is_resolved() -> None:
    # greedy nearest-first would pair the middle pick with the second particle and lose the first
    truth = np.array([[0, 0, 0], [0, 0, 60]])
    picks = np.array([[0, 0, 40], [0, 0, 95]])
    assert match(picks, truth, 100.0).tolist() == [[0, 0], [1, 1]]
    assert match(np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3]]), truth[:1], 100.0).tolist() == [[0, 0]]


def test_the_limit_is_half_the_radius_of_the_true_particle() -> None:
    truth = np.array([[0, 0, 0], [1000, 0, 0]])
    picks = np.array([[0, 0, 50.0], [1000, 0, 50.001]])
    assert match(picks, truth, 100.0).tolist() == [[0, 0]]
    assert len(match(picks, truth, np.array([100.0, 101.0]))) == 2
    assert len(match(picks, truth, 100.0, fraction=0.4)) == 0


def test_assignment_over_many_blocks_equals_the_dense_solver() -> None:
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(3)
    n = 300
    dense = rng.random((n, n))
    edge = rng.random((n, n)) < 1.2 / n
    rows, cols = np.nonzero(edge)
    chosen = best_assignment(rows, cols, dense[rows, cols])
    cost = np.where(edge, dense, 1000.0)
    i, j = linear_sum_assignment(cost)
    real = edge[i, j]
    assert len(chosen) == real.sum()
    assert dense[rows[chosen], cols[chosen]].sum() == pytest.approx(dense[i[real], j[real]].sum())


def test_a_hundred_thousand_picks_take_seconds() -> None:
    rng = np.random.default_rng(0)
    axis = np.arange(37) * 150.0
    truth = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    truth += rng.uniform(-30, 30, truth.shape)
    picks = np.concatenate([truth + rng.normal(0, 25, truth.shape), rng.random((50_000, 3)) * axis.max()])
    begun = time.perf_counter()
    pairs = match(picks, truth, 75.0)
    assert time.perf_counter() - begun < 10
    assert len(picks) > 100_000
    assert 0.3 * len(truth) < len(pairs) < len(truth)


def test_bad_positions_and_radii_are_refused() -> None:
    with pytest.raises(InputError, match="finite positions"):
        match(np.full((1, 3), np.nan), np.zeros((1, 3)), 10.0)
    with pytest.raises(InputError, match="above 0"):
        match(np.zeros((1, 3)), np.zeros((1, 3)), -5.0)
    assert match(np.zeros((0, 3)), np.zeros((0, 3)), 10.0).shape == (0, 2)


counts = st.integers(0, 1000)


@given(counts, counts, counts, st.sampled_from([0.5, 1.0, 4.0]))
def test_f_beta_is_the_weighted_harmonic_mean(hits: int, false: int, missed: int, beta: float) -> None:
    found = rates(hits, false, missed, beta=beta)
    precision, recall = float(found.precision), float(found.recall)
    if hits:
        expected = (1 + beta**2) / (1 / precision + beta**2 / recall)
        assert float(found.f_beta) == pytest.approx(expected)
        assert float(found.f1) == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert precision == recall == float(found.f1) == float(found.f_beta) == 0


@given(counts, counts)
def test_f1_is_symmetric_and_beta_4_leans_to_recall(a: int, b: int) -> None:
    assert float(rates(10, a, b).f1) == float(rates(10, b, a).f1)
    if a < b:
        assert float(rates(10, b, a).f_beta) > float(rates(10, a, b).f_beta)


def example() -> NDArray[np.int64]:
    # true: 0 0 0 1 1; picks: 0 0 1 1 1 1; the third particle is called 1, the last is missed, two picks are false
    pairs = np.array([[0, 0], [1, 1], [2, 2], [3, 3]])
    return confusion_matrices(np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1]), pairs, 2)[0]


def test_confusion_matrix_and_its_rates_by_hand() -> None:
    confusion = example()
    assert confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 2, 0]]
    blind = detection_rates(confusion)
    assert (float(blind.precision), float(blind.recall)) == pytest.approx((4 / 6, 4 / 5))
    by_class = class_rates(confusion)
    assert by_class.precision.tolist() == pytest.approx([1.0, 1 / 4])
    assert by_class.recall.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert by_class.f1.tolist() == pytest.approx([0.8, 1 / 3])
    assert float(macro_mean(by_class.f1, confusion)) == pytest.approx((0.8 + 1 / 3) / 2)


def test_confusion_matrices_of_groups_add_up() -> None:
    pairs = np.array([[0, 0], [1, 1], [2, 2], [3, 3]])
    groups = confusion_matrices(
        np.array([0, 0, 1, 1, 1, 1]),
        np.array([0, 0, 0, 1, 1]),
        pairs,
        2,
        predicted_group=np.array([0, 0, 0, 1, 1, 0]),
        true_group=np.array([0, 0, 0, 1, 1]),
        n_groups=3,
    )
    assert groups.sum(axis=0).tolist() == example().tolist()
    assert groups[1].tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 0]]
    assert groups[2].sum() == 0


def test_macro_mean_leaves_out_classes_without_true_particles() -> None:
    confusion = np.array([[4, 0, 0], [0, 0, 0], [0, 3, 0]])
    assert float(macro_mean(class_rates(confusion).f1, confusion)) == 1.0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_resampling_by_tomogram_draws_whole_tomograms(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confusions = rng.integers(0, 20, (5, classes + 1, classes + 1))
    unit, resampled = resample(confusions, 200, rng)
    assert unit == "tomogram"
    assert resampled.shape == (200, classes + 1, classes + 1)
    assert (resampled >= 5 * confusions.min(axis=0)).all()
    assert (resampled <= 5 * confusions.max(axis=0)).all()


def test_resampling_one_tomogram_draws_single_outcomes_with_the_binomial_width() -> None:
    confusion = np.array([[[700, 300], [0, 0]]])  # recall 0.7 of 1000
    unit, resampled = resample(confusion, 4000, np.random.default_rng(0))
    assert unit == "particle"
    assert (resampled.sum(axis=(1, 2)) == 1000).all()
    low, high = interval(detection_rates(resampled).recall)
    sigma = np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - 1.96 * sigma, 0.7 + 1.96 * sigma), abs=0.003)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        hits = rng.binomial(80, 0.6, size=25)
        confusions = np.zeros((25, 2, 2), dtype=np.int64)
        confusions[:, 0, 0], confusions[:, 0, 1] = hits, 80 - hits
        low, high = interval(detection_rates(resample(confusions, 400, rng)[1]).recall, 0.9)
        covered += low <= 0.6 <= high
    assert 0.82 <= covered / 300 <= 0.96


def test_random_positions_fill_their_own_volumes() -> None:
    extents = np.repeat([[100.0, 200.0, 300.0], [10.0, 10.0, 10.0]], 5000, axis=0)
    placed = random_positions(extents, np.random.default_rng(0))
    assert ((placed >= 0) & (placed < extents)).all()
    assert placed[:5000].mean(axis=0) == pytest.approx([50, 100, 150], rel=0.05)
    assert (placed == random_positions(extents, np.random.default_rng(0))).all()
