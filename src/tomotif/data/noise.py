"""Noise that is drawn anew every time a box is seen: training data that do not run out of noise.

A reconstruction is linear: signal and noise can be reconstructed apart and added at any ratio. A network that sees the
same noise twice begins to know the boxes by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FreshNoise:
    """Reconstructions of noise alone, beside the noise-free boxes of a training set.

    Attributes
    ----------
    stack
        Boxes (n, D, D, D), as many as there are noise-free ones and in their units.
    group
        Index (n,) of what shares its noise: boxes of one tomogram, which have the same tilts and defocus.
    levels
        Factors of the noise; each time a box is seen it draws one of them.
    """

    stack: NDArray[np.floating]
    group: NDArray[np.int64]
    levels: tuple[float, ...]

    def add(
        self, boxes: Float[np.ndarray, "k d d d"], rows: NDArray[np.integer], rng: np.random.Generator
    ) -> Float[np.ndarray, "k d d d"]:
        """Noise-free boxes with noise of another place in their tomogram, z-scored one by one.

        Parameters
        ----------
        boxes, rows
            Noise-free boxes and their rows.
        rng
            Decides noise and level.
        """
        others = np.array([rng.choice(self._members(int(self.group[row]))) for row in rows])
        level = rng.choice(np.array(self.levels, dtype=np.float32), len(rows))
        noisy = boxes + level[:, None, None, None] * np.asarray(self.stack[others], dtype=np.float32)
        noisy -= noisy.mean(axis=(1, 2, 3), keepdims=True)
        noisy /= noisy.std(axis=(1, 2, 3), keepdims=True)
        return noisy

    def _members(self, group: int) -> NDArray[np.int64]:
        return np.flatnonzero(self.group == group)
