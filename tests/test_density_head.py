"""Drawing the particle alone beside naming it: a second task in training that leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import shell_stack
from tomotif.data.augment import wedge_safe_flips
from tomotif.data.batches import BatchKey, BoxBatches
from tomotif.engine.model_folder import load_model
from tomotif.models import architecture_names, build_model
from tomotif.models.density_head import DensityHead, feature_maps, unfolded
from tomotif.tasks.classify import ClassifierSettings, train_classifier


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
        p.numel() for p in build_model("motif3d", 16, len(card.classes)).parameters()
    )
    assert all(not module._forward_hooks for module in model.modules())
