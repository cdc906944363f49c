"""Training and prediction end to end on two easy classes: accuracy, resume, and the same bytes after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import shell_stack
from tomotif.core import InputError, MissingWedge, Subtomograms, UnknownNameError
from tomotif.data.augment import flip_boxes, wedge_safe_flips
from tomotif.engine.checkpoint import SafeCheckpointIO
from tomotif.engine.model_folder import Known, ModelCard, load_model, save_model
from tomotif.engine.predict import openvino_predictor, predict_boxes, predict_stack, torch_predictor
from tomotif.io.stack import create_stack
from tomotif.models import build_model
from tomotif.ops.calibration import softmax
from tomotif.ops.novelty import ClassGaussians
from tomotif.tasks.classify import (
    ClassifierSettings,
    ClassifySettings,
    FeatureSettings,
    classify,
    logits_of,
    measure_features,
    train_classifier,
)

SETTINGS = ClassifierSettings(epochs=6, batch_size=16, learning_rate=3e-3, device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shells: Subtomograms) -> tuple[Path, ModelCard]:
    folder = tmp_path_factory.mktemp("train")
    card = train_classifier(shells, SETTINGS, folder, progress=False)
    return folder / "model", card


def write_stack(path: Path, subtomograms: Subtomograms) -> Path:
    with create_stack(path, len(subtomograms), subtomograms.box_px, subtomograms.voxel_size) as stack:
        stack[:] = subtomograms.stack
    return path


def test_it_learns_and_names_unseen_particles(trained: tuple[Path, ModelCard], tmp_path: Path) -> None:
    model, card = trained
    assert card.classes == ("ball", "shell")
    unseen = shell_stack(100, seed=9)
    stack = write_stack(tmp_path / "s.mrcs", unseen)
    named = classify(unseen, stack, model, ClassifySettings(shard_size=32), tmp_path / "work")
    accuracy = float((named["class"].to_numpy() == unseen.particles["class"].to_numpy()).mean())
    assert accuracy >= 0.95
    assert named.features is not None and named.features.shape == (100, 2)
    np.testing.assert_array_equal(named.features.argmax(1) == 1, named["class"] == "shell")
    assert ((named["probability"] >= 0.5) & (named["probability"] <= 1)).all()


def test_it_learns_in_bfloat16_as_well(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"precision": "bfloat16"})
    card = train_classifier(shell_stack(128, 32), settings, tmp_path, progress=False)
    unseen = shell_stack(100, 32, seed=9)
    logits = predict_boxes(openvino_predictor(tmp_path / "model", 32), unseen.stack, 32)
    named = np.array(card.classes)[logits.argmax(axis=1)]
    assert float((named == unseen.particles["class"].to_numpy()).mean()) >= 0.95


def test_a_training_that_diverges_says_so(shells: Subtomograms, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss is no number after epoch 1; lower --learning-rate"):
        train_classifier(shells, SETTINGS.model_copy(update={"learning_rate": 1e30}), tmp_path, progress=False)


def test_features_are_what_the_last_layer_is_made_from(trained: tuple[Path, ModelCard], tmp_path: Path) -> None:
    model, unseen = trained[0], shell_stack(60, seed=9)
    stack = write_stack(tmp_path / "s.mrcs", unseen)
    placed = measure_features(unseen, stack, model, FeatureSettings(), tmp_path / "embedding")
    logits = measure_features(unseen, stack, model, FeatureSettings(layer="logits"), tmp_path / "logits")
    assert placed.features is not None and logits.features is not None
    assert placed.features.shape == (60, 192) and len(placed.feature_names) == 192
    assert logits.feature_names == ("ball", "shell")
    last = [module for module in load_model(model)[0].modules() if isinstance(module, torch.nn.Linear)][-1]
    again = torch.nn.functional.linear(torch.from_numpy(placed.features), last.weight, last.bias)
    np.testing.assert_allclose(again.detach().numpy(), logits.features, atol=1e-3)


def test_discriminants_tell_classes_apart_in_units_of_their_spread(
    trained: tuple[Path, ModelCard], tmp_path: Path
) -> None:
    model, unseen = trained[0], shell_stack(60, seed=9)
    stack = write_stack(tmp_path / "s.mrcs", unseen)
    placed = measure_features(unseen, stack, model, FeatureSettings(layer="discriminants"), tmp_path / "work")
    assert placed.features is not None and placed.features.shape == (60, 1)  # two classes differ in one direction
    assert placed.feature_names == ("discriminants0",)
    groups = [placed.features[(unseen.particles["class"] == name).to_numpy(), 0] for name in ("ball", "shell")]
    assert abs(groups[0].mean() - groups[1].mean()) > 4 * max(group.std() for group in groups)


def test_the_model_knows_where_it_places_its_classes(trained: tuple[Path, ModelCard], tmp_path: Path) -> None:
    known = Known.load(trained[0])
    assert known.learned.shape[1] == known.held.shape[1] == 192
    assert set(known.learned_class) == set(known.held_class) == {0, 1}
    gaussians = ClassGaussians.of(known.learned, known.learned_class)
    balls = known.held[known.held_class == 0] - gaussians.means[:, None]
    assert (np.linalg.norm(balls[0], axis=1) < np.linalg.norm(balls[1], axis=1)).mean() > 0.9
    with pytest.raises(InputError, match="the model folder"):
        Known.load(tmp_path)


def test_history_has_a_row_an_epoch(trained: tuple[Path, ModelCard]) -> None:
    table = pd.read_csv(trained[0].parent / "history.csv")
    assert list(table["epoch"]) == list(range(len(table)))
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(table.columns)
    assert table["val_loss"].iloc[-1] < table["val_loss"].iloc[0]


def test_runtimes_agree(trained: tuple[Path, ModelCard]) -> None:
    boxes = shell_stack(20, seed=5).boxes(slice(None))
    slow, fast = (predict_boxes(make(trained[0], 8), boxes, 8) for make in (torch_predictor, openvino_predictor))
    np.testing.assert_allclose(slow, fast, atol=2e-3)


def test_the_mean_over_turns_does_not_depend_on_the_turn(trained: tuple[Path, ModelCard]) -> None:
    boxes, turns = shell_stack(20, seed=5).boxes(slice(None)), wedge_safe_flips(MissingWedge(-60, 60))
    turned = flip_boxes(torch.from_numpy(boxes)[:, None], turns[1])[:, 0].numpy()
    predict = openvino_predictor(trained[0], 8)
    plain, mean = predict_boxes(predict, boxes, 8), predict_boxes(predict, boxes, 8, turns)
    np.testing.assert_allclose(predict_boxes(predict, turned, 8, turns), mean, atol=1e-4)
    assert np.abs(mean - plain).max() > 1e-3


def test_probabilities_are_calibrated_on_the_validation_particles(trained: tuple[Path, ModelCard]) -> None:
    model, card = load_model(trained[0])
    known = Known.load(trained[0])
    logits, rows = logits_of(model, known.held), np.arange(len(known.held))

    def surprise(temperature: float) -> float:
        return float(-np.log(softmax(logits, temperature)[rows, known.held_class]).mean())

    assert (
        surprise(card.temperature) <= min(map(surprise, (1.0, 0.7 * card.temperature, 1.4 * card.temperature))) + 1e-3
    )


def test_a_resumed_training_ends_like_an_unbroken_one(shells: Subtomograms, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3})
    whole = train_classifier(shells, settings, tmp_path / "whole", progress=False)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from tests.conftest import shell_stack\nfrom tests.test_classify import SETTINGS\n"
        "from tomotif.engine import train\nfrom tomotif.tasks.classify import train_classifier\n"
        "end = train.History.on_train_epoch_end\n"
        "def die(self, trainer, module):\n"
        "    end(self, trainer, module)\n"
        "    if trainer.current_epoch == 2: os.kill(os.getpid(), 9)\n"
        "train.History.on_train_epoch_end = die\n"
        "settings = SETTINGS.model_copy(update={'epochs': 3})\n"
        "train_classifier(shell_stack(128), settings, Path(sys.argv[1]), progress=False)\n"
    )
    broken = subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], cwd=Path(__file__).parents[1])
    assert broken.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()
    resumed = train_classifier(shells, settings, tmp_path / "killed", progress=False)
    assert len(pd.read_csv(tmp_path / "killed" / "history.csv")) == 3
    assert resumed.validation_accuracy == pytest.approx(whole.validation_accuracy, abs=0.051)
    weights = [load_model(tmp_path / name / "model")[0].state_dict() for name in ("whole", "killed")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-6)


def test_prediction_killed_half_way_gives_the_same_bytes(trained: tuple[Path, ModelCard], tmp_path: Path) -> None:
    model = trained[0]
    stack = write_stack(tmp_path / "s.mrcs", shell_stack(600, seed=2))
    whole = predict_stack(model, stack, tmp_path / "whole", shard_size=20)
    code = (
        "import sys\nfrom pathlib import Path\nfrom tomotif.engine.predict import predict_stack\n"
        "m, s, w = map(Path, sys.argv[1:])\npredict_stack(m, s, w, shard_size=20)\n"
    )
    work = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(model), str(stack), str(work)])
    deadline = time.monotonic() + 60
    while len(list(work.glob("0*.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = {path.name: path.stat().st_mtime_ns for path in work.glob("0*.npy")}
    assert left
    again = predict_stack(model, stack, work, shard_size=20)
    assert again.tobytes() == whole.tobytes()
    assert {name: (work / name).stat().st_mtime_ns for name in left} == left  # finished shards were not repeated


def test_weights_that_were_changed_are_refused(trained: tuple[Path, ModelCard], tmp_path: Path) -> None:
    save_model(tmp_path, load_model(trained[0])[0], trained[1])
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="changed or damaged"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="found none"):
        load_model(tmp_path)


def test_boxes_the_model_does_not_take_are_refused(trained: tuple[Path, ModelCard]) -> None:
    with pytest.raises(InputError, match="boxes of 16 voxels, got 24"):
        trained[1].check_fits(shell_stack(2, box_px=24))
    other = trained[1].model_copy(update={"voxel_size": 12.0})
    with pytest.raises(InputError, match="voxels of 12 Å, got 10 Å"):
        other.check_fits(shell_stack(2))


def test_a_card_that_does_not_read_is_refused(trained: tuple[Path, ModelCard], tmp_path: Path) -> None:
    save_model(tmp_path, load_model(trained[0])[0], trained[1])
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**card, "surprise": 1}))
    with pytest.raises(InputError, match="model card"):
        load_model(tmp_path)


def test_unknown_network_and_missing_classes(shells: Subtomograms, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="motif3d"):
        train_classifier(shells, SETTINGS.model_copy(update={"model": "motif"}), tmp_path, progress=False)


def test_checkpoints_hold_nested_values_without_pickle(tmp_path: Path) -> None:
    content = {"a": {1: (torch.arange(3), None), "x": [1.5, "text", True]}, "t": torch.eye(2)}
    SafeCheckpointIO().save_checkpoint(content, tmp_path / "c.safetensors")
    back = SafeCheckpointIO().load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(back["a"][1][0], torch.arange(3)) and back["a"][1][1] is None
    assert back["a"]["x"] == [1.5, "text", True]
    (tmp_path / "c.safetensors").write_bytes(b"not one")
    with pytest.raises(InputError, match="expected a checkpoint"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "c.safetensors")


def test_same_seed_builds_same_network() -> None:
    torch.manual_seed(4)
    one = build_model("motif3d", 16, 2).state_dict()
    torch.manual_seed(4)
    two = build_model("motif3d", 16, 2).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_of_a_very_wide_embedding_little_is_kept_and_nothing_compared(
    shells: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomotif.tasks.classify.KNOWN_VALUES", 5 * 96)
    train_classifier(shells, SETTINGS.model_copy(update={"epochs": 1}), tmp_path, progress=False)
    known = Known.load(tmp_path / "model")
    assert (len(known.learned), len(known.held)) == (2, 2)
    monkeypatch.setattr("tomotif.engine.model_folder.WIDEST", 95)
    stack = write_stack(tmp_path / "s.mrcs", shells)
    with pytest.raises(InputError, match="takes at most 95 values to compare particles by them, got 192"):
        measure_features(shells, stack, tmp_path / "model", FeatureSettings(), tmp_path / "work")
    logits = measure_features(shells, stack, tmp_path / "model", FeatureSettings(layer="logits"), tmp_path / "work")
    assert logits.features is not None and logits.features.shape == (len(shells), 2)
