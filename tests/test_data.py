"""Batches, splits, and augmentation that leaves the missing wedge where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tomotif.core import InputError, MissingWedge, Particles, Subtomograms
from tomotif.data.augment import augment, flip_boxes, wedge_safe_flips
from tomotif.data.batches import BoxBatches, EpochBatches, loader
from tomotif.data.splits import split_by_tomogram


def wedge_filtered_noise(wedge: MissingWedge, box_px: int = 24) -> torch.Tensor:
    noise = np.random.default_rng(0).standard_normal((box_px,) * 3)
    filtered = np.fft.irfftn(np.fft.rfftn(noise) * wedge.mask(noise.shape), s=noise.shape, axes=(0, 1, 2))
    return torch.from_numpy(filtered.astype(np.float32))[None, None]


def power_outside(box: torch.Tensor, wedge: MissingWedge) -> float:
    """Fraction of the power at coefficients that the wedge says were not measured (the Nyquist planes left out)."""
    power = np.abs(np.fft.rfftn(box[0, 0].numpy())) ** 2
    half = box.shape[-1] // 2
    keep = np.ones_like(power, dtype=bool)
    keep[half], keep[:, half], keep[:, :, half] = False, False, False
    return float(power[keep & ~wedge.mask(tuple(box.shape[2:]))].sum() / power[keep].sum())


@pytest.mark.parametrize("wedge", [MissingWedge(-60, 60), MissingWedge(-40, 60), MissingWedge(-50, 30, "x")])
def test_safe_flips_keep_the_measured_region(wedge: MissingWedge) -> None:
    noise = wedge_filtered_noise(wedge)
    safe = wedge_safe_flips(wedge, mirrors=True)
    assert len(safe) >= 4
    for flip in safe:
        assert power_outside(flip_boxes(noise, flip), wedge) < 0.02, flip


def test_an_unsafe_flip_moves_the_wedge() -> None:
    wedge = MissingWedge(-40, 60)
    assert power_outside(flip_boxes(wedge_filtered_noise(wedge), (True, False, False)), wedge) > 0.05


def test_augmentation_is_decided_by_its_seed() -> None:
    boxes = torch.randn(8, 1, 8, 8, 8)
    flips = wedge_safe_flips(MissingWedge())
    one, same, other = (augment(boxes, flips, 2, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.allclose(one.sum((1, 2, 3, 4)), boxes.sum((1, 2, 3, 4)), atol=1e-3)


def test_an_epoch_holds_every_row_once_and_epochs_differ(shells: Subtomograms) -> None:
    batches = EpochBatches(np.arange(100), 16, seed=3)
    first = [key.rows for key in batches]
    assert sorted(np.concatenate(first)) == list(range(100))
    assert len(first) == len(batches) == 7
    batches.set_epoch(1)
    assert not np.array_equal(np.concatenate(first), np.concatenate([key.rows for key in batches]))
    batches.set_epoch(0)
    assert np.array_equal(np.concatenate(first), np.concatenate([key.rows for key in batches]))


def test_loader_gives_boxes_with_their_targets(shells: Subtomograms) -> None:
    target = np.arange(len(shells))
    for boxes, index in loader(BoxBatches(shells, target, flips=[]), EpochBatches(target, 50)):
        np.testing.assert_array_equal(boxes[:, 0].numpy(), shells.boxes(index.numpy()))


def test_split_keeps_tomograms_apart() -> None:
    particles = Particles.create([f"t{i % 7}" for i in range(70)], np.zeros((70, 3)))
    train, held = split_by_tomogram(particles, 0.2, np.random.default_rng(0))
    assert sorted([*train, *held]) == list(range(70))
    assert not set(particles.tomogram[train]) & set(particles.tomogram[held])
    assert len(held) == 10


def test_one_particle_cannot_be_split() -> None:
    with pytest.raises(InputError, match="at least two particles"):
        split_by_tomogram(Particles.create("t", [[0, 0, 0]]), 0.2, np.random.default_rng(0))
