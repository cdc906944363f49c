"""Drawing the particle alone beside naming it: a second task in training that leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import shell_stack
from tomotif.core import InputError
from tomotif.data.augment import wedge_safe_flips
from tomotif.data.batches import BatchKey, BoxBatches
from tomotif.engine.model_folder import load_model
from tomotif.io.files import read_json
from tomotif.io.stack import DENSITY_NAME, open_stack
from tomotif.io.structure import load_structure
from tomotif.models import architecture_names, build_model
from tomotif.models.density_head import DensityHead, feature_maps, unfolded
from tomotif.pipelines.stages import (
    Run,
    TrainingSetSettings,
    density_of,
    open_subtomograms,
    train_stage,
    training_set_stage,
)
from tomotif.tasks.classify import ClassifierSettings, train_classifier
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms


def test_the_last_map_of_each_small_edge_is_listened_to() -> None:
    assert feature_maps(build_model("motif3d", 32, 3), 32) == {"3": (48, 8), "5": (96, 4)}
    assert [edge for _, edge in feature_maps(build_model("dsrf3d", 32, 3), 32).values()] == [8]


@pytest.mark.parametrize("name", [name for name in architecture_names() if name not in ("rb3d", "cb3d")])
def test_every_network_can_draw(name: str) -> None:
    """Not the two that are too large to train here."""
    torch.manual_seed(0)
    model = build_model(name, 32, 3)
    head = DensityHead(model, 32)
    model(torch.randn(2, 1, 32, 32, 32))
    loss = head.loss(torch.rand(2, 1, 32, 32, 32))
    loss.backward()
    assert loss.item() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_network_without_small_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller than the box"):
        DensityHead(nn.Sequential(nn.Conv3d(1, 2, 1), nn.Flatten(), nn.Linear(2 * 32**3, 2)), 32)


def test_channels_unfold_into_the_places_they_stand_for() -> None:
    """Pooling what was unfolded gives the mean of the channels of each cell."""
    folded = torch.randn(2, 27, 3, 3, 3)
    whole = unfolded(folded)
    assert whole.shape == (2, 1, 9, 9, 9)
    pooled = torch.nn.functional.avg_pool3d(whole, 3)[:, 0]
    torch.testing.assert_close(pooled, folded.mean(dim=1))


def test_densities_turn_and_shift_with_their_boxes() -> None:
    shells = shell_stack(16, 16)
    flips = wedge_safe_flips(shells.missing_wedge)
    same = BoxBatches(shells, np.zeros(16, np.int64), flips=flips, max_shift_px=2, density=np.asarray(shells.stack))
    boxes, _, density = same[BatchKey(np.arange(16), 3)]
    torch.testing.assert_close(boxes, density)
    assert not torch.equal(boxes[:, 0], torch.from_numpy(shells.boxes(np.arange(16))))


def test_drawing_is_learned_and_leaves_nothing_in_the_model(tmp_path: Path) -> None:
    shells = shell_stack(96, 16)
    labelled = replace(
        shells,
        particles=replace(shells.particles, tomogram=np.repeat(["a", "b", "c", "d"], 24).astype(object)),
    )
    settings = ClassifierSettings(epochs=6, batch_size=16)
    card = train_classifier(labelled, settings, tmp_path, density=np.asarray(shells.stack), progress=False)
    history = np.genfromtxt(tmp_path / "history.csv", delimiter=",", names=True)
    assert history["density_loss"][-1] < 0.9 * history["density_loss"][0] < 1.5
    model, _ = load_model(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in build_model(card.architecture, 16, len(card.classes)).parameters()
    )
    assert all(not module._forward_hooks for module in model.modules())


def test_simulated_training_data_know_the_particle_alone(tmp_path: Path) -> None:
    """Noise-free, without CTF and with all tilts, a box looks like its own density most; background has none."""
    structures = [load_structure("1bxn"), load_structure("1oel")]
    settings = SubtomogramSettings(
        count=3, background=2, ctf=False, snr=None, tilt_range=(-89, 89), tilt_step=2.0, box_px=24
    )
    density = np.empty((8, 24, 24, 24), np.float16)
    made = simulate_subtomograms(structures, settings, np.random.default_rng(0), density=density)
    empty = (made.particles["class"] == "background").to_numpy()
    assert not density[empty].any()
    boxes = made.boxes(~empty).reshape(6, -1)
    drawn = density[~empty].astype(np.float32).reshape(6, -1)
    likeness = np.corrcoef(boxes, drawn)[:6, 6:]
    assert likeness.argmax(axis=1).tolist() == list(range(6)) and np.diag(likeness).min() > 0.85
    crowded = np.empty_like(density)
    simulate_subtomograms(
        structures, settings.model_copy(update={"neighbours": 3}), np.random.default_rng(0), density=crowded
    )
    assert np.count_nonzero(crowded, axis=(1, 2, 3)).max() <= 2 * np.count_nonzero(density, axis=(1, 2, 3)).max()
    with pytest.raises(InputError, match="to fill"):
        simulate_subtomograms(structures, settings, np.random.default_rng(0), density=density[:4])


def test_a_training_set_keeps_densities_and_training_draws_them(tmp_path: Path) -> None:
    """Also when the table is cut down: rows point to their boxes and densities."""
    settings = TrainingSetSettings(count=12, background=12, box_px=16, voxel_size=24.0)
    data = training_set_stage([load_structure("4v5d"), load_structure("1bxn")], settings, Run(tmp_path / "data"))
    found, files = open_subtomograms(data.path)
    density, _ = open_stack(files[1].with_name(DENSITY_NAME))
    assert density.shape == found.stack.shape
    few = found.particles.take(np.arange(0, 36, 2))
    cut = replace(found, particles=few, stack=np.asarray(found.stack)[::2])
    rows = density_of(cut, files[1].with_name(DENSITY_NAME))
    assert rows is not None
    np.testing.assert_array_equal(rows[np.arange(18)], density[::2])
    trained = train_stage(data.path, ClassifierSettings(epochs=1), Run(tmp_path / "trained"))
    history = np.genfromtxt(trained / "history.csv", delimiter=",", names=True)
    assert 0 < float(history["density_loss"]) < 3
    assert any(str(entry["path"]).endswith(DENSITY_NAME) for entry in read_json(trained / "run.json")["inputs"])
