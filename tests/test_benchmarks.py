"""What benchmarks share: a finished cell is not computed again, and the page shows every number of a result file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    acryo_simulator,
    classify,
    classify_data,
    features,
    harness,
    leave_one_out,
    page,
    sim_ablation,
)
from tomotif.core import Particles, Tomogram, Volume
from tomotif.tasks.simulate import TomogramSettings


def test_a_finished_cell_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    calls = []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"accuracy": 0.5}

    first = harness.cell("study", "snr0.1_seed0", compute)
    again = harness.cell("study", "snr0.1_seed0", compute)
    assert first == again and first["accuracy"] == 0.5 and first["wall_s"] >= 0
    assert len(calls) == 1
    assert (tmp_path / "study.d" / "snr0.1_seed0.json").exists()


def test_a_cell_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    with pytest.raises(ZeroDivisionError):
        harness.cell("study", "broken", lambda: {"ratio": 1 / 0})
    assert not list(tmp_path.rglob("*.json"))


def test_the_page_shows_command_machine_and_numbers() -> None:
    result = {
        "recall": 0.91789,
        "cells": [{"snr": 0.1, "f1": 0.5}],
        "quick": True,
        "command": "python -m benchmarks.pick --quick",
        "date": "2026-01-01",
        "versions": {"tomotif": "0.1", "torch": "2", "openvino": "3"},
        "cpu": "a processor",
        "threads": 2,
        "seeds": [0, 1],
        "wall_s": 12.3,
    }
    text = page.section("pick", result)
    for part in ("python -m benchmarks.pick --quick", "quick run", "2 × a processor", "seeds 0, 1"):
        assert part in text
    assert "| recall | 0.9179 |" in text and "| cells[0].f1 | 0.5 |" in text
    assert "| versions" not in text


def test_every_feature_is_a_setting_that_is_on_in_the_base_and_off_in_its_variant() -> None:
    base = TomogramSettings(**sim_ablation.BASE)
    for name, update in sim_ablation.OFF.items():
        without = TomogramSettings(**{**sim_ablation.BASE, **update})
        assert without != base, name
        assert set(update) <= set(TomogramSettings.model_fields)
    none = TomogramSettings(**sim_ablation.variants(sim_ablation.FULL)["none"])
    assert (none.ctf, none.exposure, none.mtf, none.noise_decay, none.contrast_spread) == (False, 0, 1, 0, 0)
    assert none.distractors == none.membranes == none.filaments == none.gold == ()


def test_randomised_settings_are_valid_and_follow_the_generator() -> None:
    drawn = [
        sim_ablation.settings_of("domain_randomised", sim_ablation.FULL, np.random.default_rng(seed))
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0].shape == TomogramSettings(**sim_ablation.BASE).shape


def test_a_change_of_the_study_makes_new_cells_but_another_seed_does_not() -> None:
    plan = sim_ablation.FULL
    assert sim_ablation.digest("base", plan) == sim_ablation.digest("base", replace(plan, seeds=(5,)))
    assert sim_ablation.digest("base", plan) != sim_ablation.digest("base", replace(plan, boxes=14))
    assert sim_ablation.digest("base", plan) != sim_ablation.digest("no_ctf", plan)


def test_gains_are_points_against_the_base_of_the_same_seed() -> None:
    def cells(*accuracies: tuple[float, float, float]) -> list[dict[str, dict[str, float]]]:
        return [{"accuracy": {"ours": a, "plain 0.1": b, "cell 0.1": c}} for a, b, c in accuracies]

    found = sim_ablation.summary(
        {
            "base": cells((0.9, 0.8, 0.6), (0.9, 0.9, 0.7)),
            "no_ctf": cells((0.9, 0.8, 0.5), (0.9, 0.8, 0.6)),
            "none": cells((0.9, 0.4, 0.2), (0.9, 0.5, 0.3)),
            "domain_randomised": cells((0.85, 0.8, 0.8), (0.85, 0.8, 0.7)),
        },
        ("ctf",),
    )
    ctf, everything = found["features"]
    assert ctf == {"name": "ctf", "gain": 7.5, "sd": 3.54, "gain_plain": 5.0, "gain_cell": 10.0}
    assert everything["name"] == "everything" and everything["gain"] == 40.0
    assert found["gap_before"] == 25.0 and found["gap_after"] == 10.0 and found["gap_after_sd"] == 7.07
    assert sim_ablation.mean_recall(["a", "a", "a", "a", "b"], ["a", "a", "a", "b", "b"]) == 0.875


def test_places_of_background_keep_away_from_the_classes_and_take_distractors() -> None:
    tomogram = Tomogram(Volume(np.zeros((64, 64, 64), np.float32), 12.0), "t")
    where = np.array([[32.0, 32, 32], [32, 22, 32]]) * 12
    truth = Particles.create("t", where, columns={"class": ["1bxn", "distractor"], "radius": [60.0, 60.0]})
    places = sim_ablation.background_places(truth, tomogram, 20, np.random.default_rng(0))
    assert places.shape == (20, 3) and np.array_equal(places[0], where[1])
    assert np.linalg.norm(places - where[0], axis=1).min() > 60 + 2 * 12
    assert places.min() >= 19 * 12 and places.max() <= 45 * 12


def test_balls_do_not_overlap_and_stay_inside() -> None:
    radii = np.array([6.0] * 5 + [3.0] * 20)
    lower, upper = np.array([10.0, 0, 0]), np.array([40.0, 50, 50])
    places = acryo_simulator.place_balls(radii, lower, upper, np.random.default_rng(0))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) - radii - radii[:, None]
    assert apart[np.triu_indices(len(radii), 1)].min() >= 0
    assert np.all(places - radii[:, None] >= lower) and np.all(places + radii[:, None] <= upper)
    with pytest.raises(RuntimeError, match="expected room for 40 balls"):
        acryo_simulator.place_balls(np.full(40, 9.0), lower, upper, np.random.default_rng(0))


@pytest.mark.parametrize("edge", [8, 9])
def test_a_histogram_of_atoms_is_framed_about_its_centre(edge: int) -> None:
    counts = np.zeros((edge, edge, edge))
    counts[0, 2, 3] = counts[-1, -3, -4] = 1.0  # symmetric about the middle
    framed = acryo_simulator._framed(counts)
    assert framed.sum() == pytest.approx(2.0) and len(framed) % 6 == 3
    centre = [float(np.sum(axis * framed) / 2) for axis in np.indices(framed.shape)]
    np.testing.assert_allclose(centre, (len(framed) - 1) / 2, atol=1e-6)


def test_the_spread_ratio_is_one_over_the_distance_of_unit_clouds() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.standard_normal((2000, 3))
    moved = cloud + np.array([20.0, 0, 0])
    ratio = features.spread_ratio(np.concatenate([cloud, moved]), np.repeat(["a", "b"], 2000))
    assert ratio == pytest.approx(np.sqrt(3) / 10, rel=0.03)  # three unit variances over means 10 from their middle


def test_the_cluster_of_a_left_out_complex_is_the_one_that_holds_most_of_it_among_the_pure_ones() -> None:
    truth = np.array(["new"] * 10 + ["old"] * 30)
    cluster = np.array([1] * 4 + [2] * 6 + [2] * 30)
    assert leave_one_out.own_cluster(truth, cluster, "new") == (1, 1.0, 0.4)
    assert leave_one_out.own_cluster(truth, np.ones(40, int), "new") == (1, 0.25, 1.0)


def test_novelty_of_the_left_out_complex_is_scored_with_and_without_background() -> None:
    truth = np.array(["new", "new", "old", "old", "background", "background"])
    novelty = {kind: np.array([3.0, 2.0, 1.0, 0.0, 4.0, 5.0]) for kind in (*leave_one_out.SCORES, leave_one_out.ALONE)}
    scores = leave_one_out.aurocs(truth, "new", novelty)
    assert scores["auroc"] == 1.0 and scores["auroc_background"] == 0.5


def test_a_cell_of_classification_is_named_by_its_network_and_the_layers_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tomotif.models import motif3d_fast, rb3d, registry, spherical_power

    names = {key: classify.digest(method, classify_data.QUICK) for key, method in classify.METHODS.items()}
    assert len(set(names.values())) == len(names)
    code = classify.source_of(motif3d_fast)
    assert "class SphericalPower" in code and "class Residual" in code
    assert "class Residual" not in classify.source_of(rb3d) and classify.source_of(registry) == ""
    monkeypatch.setattr(spherical_power, "__name__", "elsewhere")
    assert "class SphericalPower" not in classify.source_of(motif3d_fast)


def test_boxes_come_back_from_disk_as_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify_data.tempfile, "gettempdir", lambda: str(tmp_path))
    size = classify_data.Size(
        1, 1, 1, boxes=3, shape=(48, 80, 80), classes=("4v5d", "1bxn"), voxel_size=20.0, box_px=16
    )
    made, read = (classify_data.kept_boxes(60, size, "train", 0) for _ in range(2))
    for name in classify_data.ARRAYS:
        np.testing.assert_array_equal(getattr(made, name), getattr(read, name))
    assert made.signal.shape == (len(made), 16, 16, 16) and read.noise_free().voxel_size == 20.0
    assert np.abs(made.noise.astype(np.float32)).std() > 0 and made.at(0.1).stack.std() == pytest.approx(1, abs=0.02)
    drawn = classify_data.alone(made).astype(np.float32)
    inside = made.classes != "background"
    assert not drawn[~inside].any() and drawn[inside].any(axis=(1, 2, 3)).all()
    own = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(drawn[inside], made.signal[inside], strict=True)]
    others = [
        np.corrcoef(a.ravel(), b[::-1].ravel())[0, 1] for a, b in zip(drawn[inside], made.signal[inside], strict=True)
    ]
    assert np.mean(own) > np.mean(others)
