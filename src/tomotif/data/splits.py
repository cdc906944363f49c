"""Splits of particles into training and validation parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tomotif.core.errors import InputError
from tomotif.core.particles import Particles


def split_by_tomogram(
    particles: Particles, validation_fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation; a tomogram is never in both.

    With a single tomogram, or particles that were simulated one by one, there is nothing to keep apart and the split
    is by particle.

    Parameters
    ----------
    particles
        At least two.
    validation_fraction
        Fraction of the particles for validation, reached as nearly as whole tomograms allow.
    rng
        Decides which.

    Raises
    ------
    InputError
        When there are fewer than two particles.
    """
    if len(particles) < 2:
        raise InputError(f"expected at least two particles to train on, got {len(particles)}; pick or simulate more")
    names, group = np.unique(particles.tomogram.astype(str), return_inverse=True)
    if len(names) == 1:
        group = np.arange(len(particles))
    sizes = np.bincount(group)
    order = rng.permutation(len(sizes))
    taken = np.cumsum(sizes[order])
    count = int(np.clip(np.searchsorted(taken, validation_fraction * len(particles), side="right"), 1, len(sizes) - 1))
    held = np.isin(group, order[:count])
    return np.flatnonzero(~held), np.flatnonzero(held)
