"""Noise that is drawn anew for noise-free boxes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import shell_stack
from tomotif.data.batches import BatchKey, BoxBatches
from tomotif.data.noise import FreshNoise

COUNT, BOX = 40, 16


@pytest.fixture
def noise() -> FreshNoise:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], COUNT // 2)
    stack = rng.standard_normal((COUNT, BOX, BOX, BOX)) + 5.0 * group[:, None, None, None] * np.sign(np.arange(BOX) - 8)
    return FreshNoise(stack.astype(np.float16), group, (1.0, 3.0))


def test_each_time_a_box_is_seen_its_noise_is_another(noise: FreshNoise) -> None:
    shells = shell_stack(COUNT, BOX)
    batches = BoxBatches(shells, np.zeros(COUNT, np.int64), flips=[], noise=noise)
    rows = np.arange(0, COUNT, 4)
    first, again, other = (batches[BatchKey(rows, seed)][0].numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, other, strict=True)]) < 0.9
    np.testing.assert_allclose(first.mean(axis=(1, 2, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(first.std(axis=(1, 2, 3, 4)), 1, atol=1e-4)


def test_noise_comes_from_the_same_tomogram_at_the_levels_asked_for(noise: FreshNoise) -> None:
    """The second tomogram's noise has a step that the first one's has not."""
    rng = np.random.default_rng(1)
    signal = np.zeros((COUNT, BOX, BOX, BOX), np.float32)
    signal[:, 8, 8, 8] = 100.0
    seen = noise.add(signal, np.arange(COUNT), rng)
    step = seen[..., 9:].mean(axis=(1, 2, 3)) - seen[..., :8].mean(axis=(1, 2, 3))
    assert np.abs(step[:20]).max() < 0.2 and step[20:].min() > 1
    ratio = seen[:20, 8, 8, 8] / np.delete(seen[:20].reshape(20, -1), 8 * BOX**2 + 8 * BOX + 8, axis=1).std(axis=1)
    assert set(np.round(np.log(100 / ratio) / np.log(3)).astype(int)) == {0, 1}


def test_subtomograms_without_noise_are_left_alone() -> None:
    shells = shell_stack(8, BOX)
    boxes, _ = BoxBatches(shells, np.zeros(8, np.int64), flips=[])[BatchKey(np.arange(8), 0)]
    np.testing.assert_array_equal(boxes[:, 0].numpy(), shells.boxes(np.arange(8)))
