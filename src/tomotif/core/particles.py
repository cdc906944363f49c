"""Particles: a table with one row a particle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from tomotif.core.errors import InputError, UnknownNameError

BACKGROUND = "background"
"""The class of a box without a particle in its middle."""


@dataclass(frozen=True, eq=False)
class Particles:
    """Where particles are, how they are turned and what is known of them.

    Parameters
    ----------
    tomogram
        Name of each particle's tomogram, shape (n,).
    position
        Position in the tomogram, zyx in Å from its corner, shape (n, 3).
    orientation
        Rotation of each particle from the reference frame to the tomogram, acting on zyx vectors.
        Identity when unknown.
    columns
        Everything else, n rows. Ours have plain names (``class``, ``score``, ``radius``, ``probability``,
        ``cluster``, …); columns of other programs keep their full names (``rlnCtfMaxResolution``).
    features
        Wide columns: one vector a particle, shape (n, L), or None.
    feature_names
        What the L columns of ``features`` are.

    Raises
    ------
    InputError
        When the lengths differ.
    """

    tomogram: NDArray[np.object_]
    position: NDArray[np.float64]
    orientation: Rotation
    columns: pd.DataFrame = field(default_factory=pd.DataFrame)
    features: NDArray[np.float32] | None = None
    feature_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.tomogram)
        turned = len(self.orientation)
        if self.position.shape != (n, 3) or turned != n or len(self.columns) != n:
            raise InputError(
                f"expected one row a particle, got {n} tomogram names, positions of shape {self.position.shape}, "
                f"{turned} orientations and {len(self.columns)} rows of columns"
            )
        if self.features is not None and len(self.features) != n:
            raise InputError(f"expected {n} feature vectors, got {len(self.features)}")

    @classmethod
    def create(
        cls,
        tomogram: str | Sequence[str] | NDArray[np.object_],
        position: ArrayLike,
        orientation: Rotation | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Particles:
        """Particles from plain arrays; one tomogram name serves all rows, orientations default to identity.

        >>> p = Particles.create("ts_1", [[10, 20, 30]], columns={"class": ["ribosome"]})
        >>> len(p), p["class"].tolist()
        (1, ['ribosome'])
        """
        where = np.asarray(position, dtype=np.float64).reshape(-1, 3)
        n = len(where)
        names = np.empty(n, dtype=object)
        names[:] = tomogram
        table = pd.DataFrame(dict(columns or {}), index=range(n))
        return cls(names, where, identity_rotations(n) if orientation is None else orientation, table)

    def __len__(self) -> int:
        return len(self.tomogram)

    def __getitem__(self, column: str) -> pd.Series[Any]:
        """One column by name; an unknown one raises UnknownNameError."""
        if column not in self.columns:
            raise UnknownNameError("column", column, map(str, self.columns.columns))
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def take(self, rows: ArrayLike) -> Particles:
        """The rows named by indices or by a mask of booleans, in that order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        return replace(
            self,
            tomogram=self.tomogram[index],
            position=self.position[index],
            orientation=self.orientation[index] if len(index) else identity_rotations(0),
            columns=self.columns.iloc[index].reset_index(drop=True),
            features=None if self.features is None else self.features[index],
        )

    def of_tomogram(self, name: str) -> Particles:
        """The particles of one tomogram."""
        return self.take(self.tomogram == name)

    def with_columns(self, **columns: Any) -> Particles:
        """The same particles with columns added or replaced."""
        return replace(self, columns=self.columns.assign(**columns))

    @staticmethod
    def concat(parts: Sequence[Particles]) -> Particles:
        """Tables one below the other; a column that some lack is filled with missing values there."""
        kept = [p for p in parts if len(p)]
        if not kept:
            return parts[0]
        features = [p.features for p in kept if p.features is not None]
        return Particles(
            tomogram=np.concatenate([p.tomogram for p in kept]),
            position=np.concatenate([p.position for p in kept]),
            orientation=Rotation.concatenate([p.orientation for p in kept]),
            columns=pd.concat([p.columns for p in kept], ignore_index=True),
            features=np.concatenate(features) if len(features) == len(kept) else None,
            feature_names=kept[0].feature_names,
        )


def identity_rotations(count: int) -> Rotation:
    """``count`` rotations by nothing."""
    return Rotation.from_quat(np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)))
