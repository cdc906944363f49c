"""The whole line in small: every stage leaves its nouns, the second run repeats nothing, a killed one goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tomotif.io.files import read_json
from tomotif.io.star import read_particles
from tomotif.pipelines.demo import DemoSettings, demo
from tomotif.pipelines.stages import Run
from tomotif.tasks.score import score

SMALL = DemoSettings(
    structures=("4v5d", "1bxn"),
    training_particles=120,
    epochs=4,
    occupancy=0.08,
    tomogram_shape=(64, 112, 112),
    real_tomogram_edge=110,
)
STAGES = (
    "training_set",
    "classifier",
    "simulated",
    "simulated_picks",
    "simulated_subtomograms",
    "simulated_classes",
    "simulated_averages",
    "simulated_score",
    "real_mined/picks",
    "real_mined/boxes",
    "real_mined/features",
    "real_mined/patterns",
    "real_mined/embedding",
    "real_classes",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "demo"
    demo(SMALL, Run(output))
    return output


def test_every_stage_finished_and_says_how(folder: Path) -> None:
    for stage in STAGES:
        record = read_json(folder / stage / "run.json")
        assert record["status"] == "finished", stage
        assert record["wall_s"] > 0 and record["peak_memory_mb"] > 10 and record["versions"]["tomotif"]
    assert (folder / "report.html").stat().st_size > 100_000


def test_particles_are_found_and_named_far_better_than_by_chance(folder: Path) -> None:
    truth = read_particles(folder / "simulated" / "particles.star")
    found = score(read_particles(folder / "simulated_picks" / "particles.star"), truth)
    assert found.detection["recall"] >= 0.85
    assert found.detection["false_per_true"] <= 2
    named = read_json(folder / "simulated_score" / "score.json")
    assert named["macro_f1"] >= 0.5  # even after seconds of training; the real demo asks for 0.7
    assert named["macro_f1"] > 5 * named["random"]["macro_f1"]


def test_averages_say_that_their_poses_are_the_true_ones(folder: Path) -> None:
    for entry in read_json(folder / "simulated_averages" / "averages.json"):
        assert "true particles" in entry["poses"]


def test_patterns_of_the_real_cell(folder: Path) -> None:
    patterns = read_json(folder / "real_mined" / "patterns.json")
    assert sum(one["particles"] for one in patterns) == len(
        read_particles(folder / "real_mined/patterns/particles.star")
    )
    assert {"large globule", "surface patch"} & {one["proposed"] for one in patterns}


def test_the_shipped_classifier_names_ribosomes_where_mining_finds_them(folder: Path) -> None:
    """It knows nothing of patterns, and names a ribosome far more often in one of them than in all."""
    pattern = read_particles(folder / "real_mined/patterns/particles.star")["pattern"].astype(int)
    named = (read_particles(folder / "real_classes" / "particles.star")["class"] == "4v5d").to_numpy()
    share = max(named[(pattern == one).to_numpy()].mean() for one in np.unique(pattern))
    assert share >= 0.6 and share >= 2 * named.mean()


def test_a_second_run_repeats_nothing(folder: Path) -> None:
    before = {stage: (folder / stage / "run.json").stat().st_mtime_ns for stage in STAGES}
    again = demo(SMALL, Run(folder))
    assert again.ribosome_like > 50 and again.both > 0.6 * again.ribosome_like
    assert {stage: (folder / stage / "run.json").stat().st_mtime_ns for stage in STAGES} == before
