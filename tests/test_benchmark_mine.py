"""Mining's benchmark: scores with known answers, what the data are, and that its competitors can do what is easy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks import disca, harness, mine
from benchmarks import mine_data as data
from benchmarks import mine_methods as methods
from tomotif.core import Labels, MissingWedge, Particles, Subtomograms, Tomogram, Volume
from tomotif.core.geometry import radius_grid
from tomotif.ops.rotate import rotate_volumes
from tomotif.tasks.simulate import SimulatedTomogram

TINY = replace(data.QUICK, complexes=("1bxn", "4v8r"), count=20, junk=0.1, pair=8)


# ---------------------------------------------------------------------------------------------- scores


def test_the_true_groups_score_one_whatever_their_numbers() -> None:
    truth = np.array(["a"] * 6 + ["b"] * 3 + ["junk"] * 2)
    found = mine.scores(truth, np.array([5] * 6 + [0] * 3 + [9] * 2))
    assert found["ari"] == found["v_measure"] == found["junk_f1"] == found["rarest_recall"] == 1.0
    assert (found["groups"], found["true_groups"], found["k_error"]) == (3, 3, 0)


def test_one_group_of_all_says_nothing() -> None:
    truth = np.array(["a"] * 6 + ["b"] * 3 + ["junk"] * 2)
    found = mine.scores(truth, np.zeros(11, np.int64))
    assert found["ari"] == found["v_measure"] == found["junk_f1"] == found["rarest_recall"] == 0.0
    assert found["k_error"] == 2


def test_groups_that_are_mostly_junk_are_called_junk() -> None:
    truth = np.array(["a"] * 4 + ["junk"] * 3 + ["membrane"] * 2)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2])  # called: one a, two junk, two membranes; one junk is missed
    assert mine.junk_f1(truth, labels) == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert mine.junk_f1(np.array(["a", "b"]), np.array([0, 1])) is None
    halves = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert mine.junk_f1(np.array(["a", "junk"]), halves[:2]) == 0.0  # half is not most


def test_a_rare_complex_is_found_in_a_group_that_is_at_least_half_it() -> None:
    truth = np.array(["common"] * 8 + ["rare"] * 4 + ["junk"])
    labels = np.array([0] * 5 + [1] * 3 + [1] * 3 + [0] + [0])
    assert mine.rarest_recall(truth, labels) == 0.75  # three of four, among three others
    labels[12] = 1
    assert mine.rarest_recall(truth, labels) == 0.0  # the group is now three of seven
    assert mine.rarest_recall(np.array(["a", "a", "b", "b", "junk"]), np.arange(5)) is None


def run(method: str, name: str, seed: int = 0, **numbers: Any) -> mine.Run:
    usual = {"ari": 0.5, "v_measure": 0.5, "junk_f1": 0.5, "k_error": 0, "rarest_recall": None, "minutes": 1.0}
    return {"data": name, "method": method, "seed": seed, **usual, **numbers}


def test_the_summary_is_about_the_data_it_says() -> None:
    runs = [run(method, name, seed) for name, seed in mine.planned(mine.QUICK) for method in methods.METHODS]
    runs = [one | {"rarest_recall": 0.4} if one["data"].startswith("unbalanced") else one for one in runs]
    changes: dict[tuple[str, str], dict[str, float]] = {
        ("ours", mine.MIDDLE): {"v_measure": 0.9, "ari": 0.8, "k_error": 1, "minutes": 2.0},
        ("ours", mine.NUISANCE): {"ari": 0.7, "k_error": 7},
        ("ours", "unbalanced_snr0.05"): {"rarest_recall": 0.5, "k_error": 2},
        ("disca_narrow", mine.MIDDLE): {"v_measure": 0.6},
        ("supervised", mine.MIDDLE): {"v_measure": 0.99},
        ("supervised", "pair_1oel_1aon"): {"ari": 1.0},
    }
    found = mine.summary([one | changes.get((one["method"], one["data"]), {}) for one in runs])
    assert (found["v_measure"], found["best_competitor"], found["best_competitor_v"]) == (0.9, "disca_narrow", 0.6)
    assert (found["pair_ari"], found["pair_ceiling"], found["v_ceiling"]) == (0.5, 1.0, 0.99)
    assert (found["contrast_drop"], found["minutes_800"]) == (0.1, 2.0)
    assert (found["k_within_1"], found["rare_found"]) == (0.667, 1.0)  # two of three; contrasts do not count


def test_five_seeds_are_of_the_balanced_data_at_the_middle_ratio_only() -> None:
    cells = list(mine.planned(mine.FULL))
    assert cells[:5] == [("balanced_snr0.05", seed) for seed in range(5)]
    assert sorted(name for name, _ in cells[5:]) == sorted(set(data.CELLS) - {"balanced_snr0.05"})


def test_a_cell_is_named_by_its_method_and_data_but_not_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {method: mine.digest(method, mine.FULL) for method in methods.METHODS}
    assert len(set(names.values())) == len(names)
    assert mine.digest("rif_gmm", replace(mine.FULL, seeds=(7,))) == names["rif_gmm"]
    assert mine.digest("rif_gmm", replace(mine.FULL, size=replace(data.FULL, count=99))) != names["rif_gmm"]
    code = methods.code_of(mine.junk_f1)
    assert "None where there is none" not in code and "rates(" in code
    monkeypatch.setattr(methods, "ours_of", lambda: "other weights")
    assert mine.digest("ours", mine.FULL) != names["ours"]


def test_a_cell_says_what_its_method_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boxes = Subtomograms(Particles.create("b", np.zeros((3, 3))), np.zeros((3, 8, 8, 8)), 12.0, MissingWedge(-60, 60))
    monkeypatch.setattr(data, "cell_data", lambda name, seed, size: (boxes, np.array(["a", "a", "junk"])))
    monkeypatch.setitem(methods.METHODS, "ours", lambda given: np.array([1, 1, 0]) + 0 * given.groups)
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    found = mine.one("pair", "ours", 3, mine.QUICK)
    assert (found["data"], found["method"], found["seed"], found["boxes"]) == ("pair", "ours", 3, 3)
    assert found["ari"] == 1.0 and found["k_error"] == 0 and found["peak_mb"] > 0


# ---------------------------------------------------------------------------------------------- data


def test_abundances_fall_geometrically_twenty_to_one() -> None:
    wanted = data.abundances(8, 100)
    assert wanted[0] == 200 and wanted[-1] == 10
    np.testing.assert_allclose(wanted[:-1] / wanted[1:], 20 ** (1 / 7), rtol=0.06)
    assert data.junk_count(800, 0.05) == 42


def test_unbalanced_boxes_have_those_abundances_and_are_blind() -> None:
    boxes, truth = data.unbalanced(0.1, 0, TINY)
    sizes = dict(zip(*np.unique(truth, return_counts=True), strict=True))
    assert sorted(sizes[name] for name in TINY.complexes) == [2, 40] and sizes["junk"] == round(42 * 0.1 / 0.9)
    assert list(boxes.particles.columns) == ["stack_index"] and len(boxes) == len(truth)
    assert np.ptp(boxes.particles.position, axis=0).max() == 0  # the shifts are not told either
    assert np.allclose(boxes.particles.orientation.magnitude(), 0)


def test_boxes_follow_their_seed_and_training_boxes_are_others() -> None:
    first, again = (data.balanced(0.1, 0, TINY) for _ in range(2))
    np.testing.assert_array_equal(first[0].stack, again[0].stack)
    np.testing.assert_array_equal(first[1], again[1])
    learned = data.training_data("unbalanced_snr0.1", 0, replace(TINY, count=4))
    assert sorted(set(learned.particles["class"])) == ["1bxn", "4v8r", "junk"]
    assert len(learned) == 2 * TINY.train * 4 + 2
    assert not np.array_equal(learned.stack[0], data.balanced(0.1, 0, replace(TINY, count=8))[0].stack[0])


def test_gains_have_the_spread_that_is_asked_for() -> None:
    drawn = data.gains(200_000, np.random.default_rng(0))
    assert drawn.min() >= data.LEAST_GAIN
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.std() / drawn.mean() == pytest.approx(data.GAIN_SPREAD, abs=0.02)


def test_a_gain_scales_the_signal_and_not_the_noise() -> None:
    noisy, clean = (data.simulated(TINY.complexes, 12, 2, snr, data.balanced_rng(0.1, 0)) for snr in (0.1, None))
    rows, gain = slice(None), data.gains(len(noisy), np.random.default_rng(1))
    signal, noise = data.raw(clean, rows), data.raw(noisy, rows) - data.raw(clean, rows)
    across = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(signal, noise, strict=True)]
    assert np.abs(across).max() < 0.06  # the same scene: what is left is noise alone
    found = data.rescaled(noisy, clean, gain).boxes(rows)
    for box, s, e, g in zip(found, signal, noise, gain, strict=True):
        parts = np.linalg.lstsq(np.stack([s.ravel(), e.ravel(), np.ones(s.size)], 1), box.ravel(), rcond=None)[0]
        assert parts[0] / parts[1] == pytest.approx(g, rel=0.02)
        assert box.std() == pytest.approx(1, abs=0.01)


def test_the_nuisance_is_on_the_very_same_particles() -> None:
    (plain, truth), (varied, again) = data.balanced(0.1, 0, TINY), data.contrast(0.1, 0, TINY)
    np.testing.assert_array_equal(truth, again)
    alike = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(plain.boxes(slice(None)), varied.stack, strict=True)
    ]
    assert min(alike) > 0.8 and min(alike) < max(alike) < 1.0001


def test_a_pick_is_the_particle_within_half_its_radius_else_a_membrane_that_is_near_else_junk() -> None:
    voxels = np.zeros((16, 16, 16), np.int16)
    voxels[:, :, 14] = 2
    true = Particles.create("t", [[96.0, 96, 60]], columns={"class": ["1bxn"], "radius": [60.0]})
    simulated = SimulatedTomogram(
        tomogram=Tomogram(Volume(np.zeros((16, 16, 16), np.float32), 12.0), "t"),
        particles=true,
        classes=Labels(voxels, 12.0, {1: "1bxn", 2: "membrane"}),
        instances=Labels(voxels, 12.0),
        defocus_um=3.0,
        density=np.zeros((16, 16, 16), np.float32),
        noise_free=None,
        tilt_series=None,  # type: ignore[arg-type]  # not looked at
        occupancy=0.1,
    )
    picks = np.array([[96.0, 96, 80], [96, 96, 132], [96, 96, 96], [96, 96, 168]])
    assert data.classes_at(picks, simulated).tolist() == ["1bxn", "membrane", "junk", "membrane"]


# ---------------------------------------------------------------------------------------------- methods


def shapes(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Small balls and large shells with some noise."""
    rng = np.random.default_rng(0)
    radius = radius_grid((32, 32, 32))
    pictures = np.stack([radius < 4, (radius > 7) & (radius < 10)]).astype(np.float32)
    kind = rng.permutation(np.arange(count) % 2)
    boxes = 8 * pictures[kind] + rng.standard_normal((count, 32, 32, 32), dtype=np.float32)
    boxes -= boxes.mean(axis=(1, 2, 3), keepdims=True)
    return boxes / boxes.std(axis=(1, 2, 3), keepdims=True), kind


def test_deep_iterative_clustering_tells_balls_from_shells() -> None:
    boxes, kind = shapes(40)
    settings = disca.DiscaSettings(channels=(4, 8), features=8, components=4, counts=(2, 3, 4), rounds=2, batch_size=8)
    labels, again = (disca.disca(boxes, settings) for _ in range(2))
    np.testing.assert_array_equal(labels, again)
    assert mine.scores(kind.astype(str), labels)["ari"] == 1.0


def test_the_criterion_counts_groups_by_their_spread() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [0, 8, 0], [8, 0, 0]])
    points = (np.repeat(centres, 60, axis=0) + rng.standard_normal((180, 3))).astype(np.float32)
    labels = disca.grouped(points, disca.DiscaSettings(components=3, counts=(2, 3, 4, 5, 6)))
    assert mine.scores(np.repeat(["a", "b", "c"], 60), labels)["ari"] > 0.98
    stretched = points * np.array([1, 1, 50], np.float32)  # the criterion has no unit
    assert disca.distortion_index(stretched, labels) == pytest.approx(disca.distortion_index(points, labels), rel=1e-3)
    assert disca.distortion_index(points, np.zeros(180, np.int64)) == np.inf


def test_boxes_are_turned_into_the_frame_of_their_particles() -> None:
    reference = np.zeros((16, 16, 16), np.float32)
    reference[8:11, 7:10, 8:14] = 1
    turns = Rotation.from_rotvec([[90, 0, 0], [0, 0, 180]], degrees=True)
    shifts = np.array([[1.0, 0, -1], [0, 1, 0]])
    seen = rotate_volumes(torch.from_numpy(np.stack([reference] * 2)), turns, shifts).numpy()
    boxes = Subtomograms(Particles.create("b", np.zeros((2, 3))), seen, 12.0, MissingWedge(-60, 60))
    for box in methods.turned_back(boxes, turns, shifts):
        assert np.corrcoef(box.ravel(), reference.ravel())[0, 1] > 0.99


def test_invariant_features_tell_balls_from_shells(tmp_path: Path) -> None:
    stack, kind = shapes(80)
    boxes = Subtomograms(Particles.create("b", np.zeros((80, 3))), stack, 12.0, MissingWedge(-60, 60))
    given = methods.Given(boxes, 2, 0, methods.QUICK, tmp_path, lambda: boxes)
    labels = methods.rif_gmm(given)
    mixed = [len(set(kind[labels == name])) for name in np.unique(labels)]
    assert max(mixed) == 1  # the criterion may split a kind, but no group has both
