"""Discovery from boxes to verdicts: a classifier that knows balls and shells meets bars."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import shell_stack
from tomotif.core import InputError, MissingWedge, Particles, Subtomograms
from tomotif.io.stack import create_stack
from tomotif.pipelines.discover import discover_structures, doubted, new_share
from tomotif.pipelines.stages import (
    STACK_NAME,
    TABLE_NAME,
    Run,
    table_of,
    tomogram_of_one_box,
    write_subtomogram_table,
)
from tomotif.tasks.average import AlignSettings, AverageSettings
from tomotif.tasks.classify import ClassifierSettings, PredictSettings, train_classifier
from tomotif.tasks.discover import DiscoverSettings, Verdict

BOX, EACH = 16, 60


def bars(count: int) -> Subtomograms:
    """Bars along z, at the noise of the balls and shells."""
    rng = np.random.default_rng(7)
    boxes = 0.5 * rng.standard_normal((count, BOX, BOX, BOX), dtype=np.float32)
    boxes[:, 2:14, 6:10, 6:10] += 1
    boxes -= boxes.mean(axis=(1, 2, 3), keepdims=True)
    boxes /= boxes.std(axis=(1, 2, 3), keepdims=True)
    names = [f"bars{i % 8}" for i in range(count)]
    particles = Particles.create(names, np.zeros((count, 3)), columns={"class": ["bar"] * count})
    return Subtomograms(particles, boxes.astype(np.float16), 10.0, MissingWedge(-60, 60))


def test_bars_are_a_new_structure(tmp_path: Path) -> None:
    settings = ClassifierSettings(epochs=6, batch_size=16, learning_rate=3e-3, device="cpu")
    train_classifier(shell_stack(192, BOX), settings, tmp_path / "model", progress=False)
    known, new = shell_stack(2 * EACH, BOX, seed=9), bars(EACH)
    truth = np.concatenate([known.particles["class"].astype(str), new.particles["class"].astype(str)])
    (tmp_path / "data").mkdir()
    with create_stack(tmp_path / "data" / STACK_NAME, len(truth), BOX, 10.0) as stack:
        stack[:] = np.concatenate([known.stack, new.stack])
    placed = Particles.create("t", np.full((len(truth), 3), 80.0)).with_columns(stack_index=np.arange(len(truth)))
    whole = Subtomograms(placed, np.concatenate([known.stack, new.stack]), 10.0, MissingWedge(-60, 60))
    write_subtomogram_table(
        tmp_path / "data" / TABLE_NAME,
        placed,
        missing_wedge=whole.missing_wedge,
        voxel_size=10.0,
        tomograms=[tomogram_of_one_box(whole)],
        style="relion3.1",
    )
    how = {
        "network": PredictSettings(),
        "averaging": AverageSettings(),
        "search": AlignSettings(starts=1, rounds=1, checks=False),
    }
    run, three = Run(tmp_path / "found"), DiscoverSettings(clusters=3)
    made = discover_structures(tmp_path / "data", tmp_path / "model", three, run, **how)
    assert [one.kind for one in made].count("new structure") == 1
    assert {one.name for one in made if one.kind == "known class"} == {"ball", "shell"}
    discovered = next(one for one in made if one.kind == "new structure")
    assert abs(discovered.particles - EACH) <= 6 and discovered.new_share > 0.8
    written = json.loads((tmp_path / "found" / "verdicts.json").read_text())
    assert [one["cluster"] for one in written] == [one.cluster for one in made]
    assert discover_structures(tmp_path / "data", tmp_path / "model", three, run, **how) == made


def test_verdicts_are_doubted_when_most_particles_are_new() -> None:
    known = Verdict(1, 40, "known class", "ball", 0.9, 0.1, "90% of its particles are named ball")
    new = Verdict(2, 30, "new structure", "shell", 0.6, 0.9, "90% of its particles are unlike all known classes")
    assert doubted([known, new]) == [known, new]
    many = replace(new, particles=300)
    assert new_share([known, many]) == pytest.approx((4 + 270) / 340)
    first, second = doubted([known, many])
    assert first == known and second.kind == "new structure" and "so are 81% of all" in second.reason


def test_a_stack_stands_for_the_table_beside_it(tmp_path: Path) -> None:
    (tmp_path / STACK_NAME).touch()
    (tmp_path / "mine.mrcs").touch()
    assert table_of(tmp_path / "mine.mrcs") == tmp_path / TABLE_NAME
    assert table_of(tmp_path / STACK_NAME) == table_of(tmp_path) == tmp_path / TABLE_NAME
    with pytest.raises(InputError, match=r"found no .*nowhere"):
        table_of(tmp_path / "nowhere")
