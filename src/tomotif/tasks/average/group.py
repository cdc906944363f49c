"""The boxes of one class made ready to be aligned: how noisy they are, and where in Fourier space to work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tomotif.core import InputError, Subtomograms
from tomotif.ops.align import Band, noise_power
from tomotif.ops.orientations import body_centred_grid
from tomotif.tasks.average.settings import AlignSettings

LOWEST = 4.0
"""Frequency in cycles a box at which a start begins."""
_NOISE_BOXES = 1000
"""Largest number of boxes that the noise's power is measured in."""


@dataclass(frozen=True, eq=False)
class Group:
    """The boxes of one class, how noisy they are, and where to work."""

    subtomograms: Subtomograms
    rows: NDArray[np.int64]
    noise: NDArray[np.float64]
    settings: AlignSettings
    device: str

    @classmethod
    def of(cls, subtomograms: Subtomograms, rows: NDArray[np.int64], settings: AlignSettings) -> Group:
        """The boxes of these rows.

        Raises
        ------
        InputError
            When there are fewer than 8.
        """
        if len(rows) < 8:
            raise InputError(f"expected at least 8 particles to align to each other, got {len(rows)}; extract more")
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _NOISE_BOXES)).astype(np.int64)]
        noise = noise_power(subtomograms.boxes(some), subtomograms.missing_wedge)
        return cls(subtomograms, rows, noise, settings, device_of(settings))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Edge of a box in voxels."""
        return self.subtomograms.box_px

    @property
    def length(self) -> float:
        """Edge of a box in Å."""
        return self.size * self.subtomograms.voxel_size

    @property
    def highest_start(self) -> float:
        """Highest frequency of the starts in cycles a box."""
        return float(np.clip(self.length / self.settings.start_resolution, LOWEST + 1, 0.3 * self.size))

    def band(self, highest: float) -> Band:
        """Measured coefficients up to a frequency, weighted by one over the noise."""
        return Band.measured(self.size, self.subtomograms.missing_wedge, highest, self.noise).to(self.device)

    def boxes(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Boxes by their place in the group."""
        return self.subtomograms.boxes(self.rows[index])


def device_of(settings: AlignSettings) -> str:
    """Where tensors go."""
    wanted = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "gpu" and not wanted:
        raise InputError("expected a GPU for --device gpu, found none; use --device cpu")
    return "cuda" if wanted else "cpu"


def shift_grid(settings: AlignSettings) -> NDArray[np.float64]:
    """Shifts in voxels that are tried."""
    return body_centred_grid(settings.max_shift_px, 2.0) if settings.max_shift_px > 0 else np.zeros((1, 3))


def all_coefficients(group: Group, index: NDArray[np.int64], band: Band) -> Tensor:
    """Coefficients of boxes in a band, read a few at a time."""
    parts = np.array_split(index, -(-len(index) // 64))
    return torch.cat([band.coefficients(torch.from_numpy(group.boxes(part)).to(group.device)) for part in parts])


def tensor(values: NDArray[np.floating], device: str) -> Tensor:
    """Values as a float32 tensor."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device)
