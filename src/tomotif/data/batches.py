"""Batches of boxes read straight from the memory-mapped stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tomotif.core.subtomograms import Subtomograms
from tomotif.data.augment import Flip, augment
from tomotif.data.noise import FreshNoise
from tomotif.io.stack import StackRows


@dataclass(frozen=True)
class BatchKey:
    """Which rows make a batch, and the seed of its augmentation."""

    rows: NDArray[np.int64]
    seed: int


class EpochBatches(Sampler[BatchKey]):
    """Batches of one epoch: shuffled by (seed, epoch) alone, so that a resumed run sees what the killed one would have.

    Parameters
    ----------
    rows
        Rows of the stack to draw from.
    batch_size
        Particles a batch.
    seed
        Seed of the shuffle.
    shuffle
        Keep the order when False.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, *, seed: int = 0, shuffle: bool = True) -> None:
        self.rows, self.batch_size, self.seed, self.shuffle, self.epoch = rows, batch_size, seed, shuffle, 0

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Take note of the epoch; the trainer calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchKey]:
        rng = np.random.default_rng((self.seed, self.epoch if self.shuffle else 0))
        order = rng.permutation(self.rows) if self.shuffle else self.rows
        seeds = rng.integers(2**31, size=len(self))
        for part, seed in zip(np.array_split(order, len(self)), seeds, strict=True):
            yield BatchKey(np.sort(part), int(seed))


class BoxBatches(Dataset[tuple[Tensor, ...]]):
    """Boxes and their class indices, a batch at a time.

    Parameters
    ----------
    subtomograms
        The stack.
    targets
        Class index of every row, shape (n,).
    flips
        Wedge-safe flips; none means no augmentation.
    max_shift_px
        Largest random shift in voxels along each axis.
    noise
        Added to the boxes, which are then noise-free.
    density
        Density of the particle alone for every row, shape (n, D, D, D): turned and shifted as its box is.
    """

    def __init__(
        self,
        subtomograms: Subtomograms,
        targets: NDArray[np.int64],
        *,
        flips: list[Flip],
        max_shift_px: int = 0,
        noise: FreshNoise | None = None,
        density: NDArray[np.floating] | StackRows | None = None,
    ) -> None:
        self.subtomograms, self.targets, self.flips, self.max_shift_px = subtomograms, targets, flips, max_shift_px
        self.noise, self.density = noise, density

    def __getitem__(self, key: BatchKey) -> tuple[Tensor, ...]:
        """Boxes (n, 1, d, d, d) float32, class indices (n,), and densities like the boxes when there are any."""
        read = self.subtomograms.boxes(key.rows)
        if self.noise is not None:
            read = self.noise.add(read, key.rows, np.random.default_rng(key.seed))
        boxes, target = self._augmented(torch.from_numpy(read), key.seed), torch.from_numpy(self.targets[key.rows])
        if self.density is None:
            return boxes, target
        density = torch.from_numpy(np.asarray(self.density[key.rows])).float()
        return boxes, target, self._augmented(density, key.seed)

    def _augmented(self, volumes: Tensor, seed: int) -> Tensor:
        """Volumes with a channel, turned and shifted as the seed decides."""
        if not self.flips:
            return volumes[:, None]
        return augment(volumes[:, None], self.flips, self.max_shift_px, torch.Generator().manual_seed(seed))


def loader(dataset: BoxBatches, batches: EpochBatches) -> DataLoader[tuple[Tensor, ...]]:
    """One DataLoader item is one whole batch: the stack is read in this process, which the page cache makes fast."""
    return DataLoader(dataset, sampler=batches, batch_size=None)
