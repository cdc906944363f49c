"""The classifiers that come with the package: small, described, and right about easy boxes without a model argument."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.test_cli import refused, run
from tomotif.engine.model_folder import Known, load_model
from tomotif.engine.pretrained import shipped_model_for, shipped_models
from tomotif.io.files import read_json
from tomotif.io.star import read_particles
from tomotif.io.structure import load_structure
from tomotif.pipelines.stages import Run, TrainingSetSettings, open_subtomograms, training_set_stage

NAMES = ("12A", "20A")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_is_small_and_says_what_it_is(name: str) -> None:
    folder = shipped_models()[name]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3e6
    model, card = load_model(folder)
    assert card.voxel_size == float(name[:-1]) and "background" in card.classes and len(card.classes) == 11
    assert (
        card.about and len(card.limits) >= 2 and 0.4 < max(card.scores.values()) <= 1
    )  # of eleven classes, in crowded boxes
    known = Known.load(folder)
    assert set(known.learned_class) == set(known.held_class) == set(range(len(card.classes)))
    assert not model.training


@pytest.mark.parametrize(("voxel_size", "name"), [(12.0, "12A"), (13.5, "12A"), (18.0, "20A"), (30.0, "20A")])
def test_the_nearest_voxel_size_is_taken(voxel_size: float, name: str, tmp_path: Path) -> None:
    boxes = training_set_stage(
        [load_structure("4v5d")],
        TrainingSetSettings(count=2, background=1, box_px=16, voxel_size=voxel_size),
        Run(tmp_path / "boxes"),
    )
    found, _ = open_subtomograms(boxes.path)
    assert shipped_model_for(found).name == name


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes of three complexes unlike each other, with neighbours, at SNR 0.1."""
    settings = TrainingSetSettings(count=30, background=30)
    names = ("4v5d", "1oel", "2fha")
    folder = tmp_path_factory.mktemp("easy") / "boxes"
    return training_set_stage([load_structure(name) for name in names], settings, Run(folder)).path


def test_classify_names_easy_boxes_at_once(easy: Path, tmp_path: Path) -> None:
    run("classify", easy, "-o", tmp_path / "classes", "--turns")
    named = read_particles(tmp_path / "classes" / "particles.star")["class"].to_numpy()
    true = read_particles(easy / "particles.star")["class"].to_numpy()
    recalls = [np.mean(named[true == name] == name) for name in np.unique(true)]
    assert np.mean(recalls) >= 0.75
    inputs = [str(entry["path"]) for entry in read_json(tmp_path / "classes" / "run.json")["inputs"]]
    assert any(path.endswith("12A/model.json") for path in inputs)


def test_features_of_easy_boxes_lie_together(easy: Path, tmp_path: Path) -> None:
    """The nearest other particle in feature space is of the same complex, far oftener than by chance."""
    run("features", easy, "-o", tmp_path / "features")
    placed = read_particles(tmp_path / "features" / "particles.star")
    assert placed.features is not None
    features = placed.features - placed.features.mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    likeness = features @ features.T
    np.fill_diagonal(likeness, -1)
    true = placed["class"].to_numpy()
    assert np.mean(true[likeness.argmax(axis=1)] == true) >= 0.6


def test_boxes_that_fit_no_shipped_model_are_told_how_to_extract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = training_set_stage(
        [load_structure("4v5d")],
        TrainingSetSettings(count=2, background=1, box_px=16, voxel_size=12.0),
        Run(tmp_path / "boxes"),
    )
    assert "--box-px 32" in refused(capsys, tmp_path / "out", "classify", boxes.path)
