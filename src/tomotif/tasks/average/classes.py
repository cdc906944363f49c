"""Align the particles of every class to each other, and write what was found into the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import RESIDUALS, Particles, Progress, Subtomograms
from tomotif.io.stack import StackRows
from tomotif.tasks.average.blind import Aligned, align
from tomotif.tasks.average.checks import Checks, check
from tomotif.tasks.average.given import HALF_SET, kept_groups, offsets
from tomotif.tasks.average.settings import AlignSettings, AverageSettings


@dataclass(frozen=True, eq=False)
class AlignedClasses:
    """Subtomograms with the poses that were found, and what speaks for and against each class.

    Attributes
    ----------
    subtomograms
        Only those of classes that were aligned: orientation, position, residuals, ``score`` and half-set are new.
    classes
        Alignment of each class by its name.
    checks
        Checks of each class; empty when they were not asked for.
    """

    subtomograms: Subtomograms
    classes: Mapping[str, Aligned]
    checks: Mapping[str, Checks]

    def entry(self, name: str) -> dict[str, Any]:
        """What is said about one class, as plain JSON values."""
        aligned = self.classes[name]
        agreement = aligned.starts.get("agreement", np.nan)
        said: dict[str, Any] = {
            "start_resolution_A": round(aligned.start_resolution, 2),
            "start_likelihoods": [round(float(value), 3) for value in aligned.starts.get("likelihoods", [])],
            "start_agreement": None if np.isnan(agreement) else round(float(agreement), 4),
            "symmetry": aligned.symmetry,
        }
        if name in self.checks:
            said["checks"] = self.checks[name].as_dict()
        return said


def align_classes(
    subtomograms: Subtomograms,
    averaging: AverageSettings,
    settings: AlignSettings,
    *,
    by: str,
    seed: int,
    work: Path,
    progress: Progress | None = None,
) -> AlignedClasses:
    """Align each class that has enough particles.

    Parameters
    ----------
    subtomograms
        Bright boxes with a column that says which belong together.
    averaging, settings
        Which classes, and how they are aligned.
    by
        The column.
    seed
        Decides starts and half-sets; each class draws its own numbers.
    work
        Folder for what a killed run continues from.
    progress
        Called with (hundredths of classes done, of all).

    Raises
    ------
    InputError
        When there is no such column, or no class has enough particles.
    """
    groups, _ = kept_groups(subtomograms.particles, by, averaging)
    work.mkdir(parents=True, exist_ok=True)
    classes: dict[str, Aligned] = {}
    checks: dict[str, Checks] = {}
    for number, (name, rows) in enumerate(groups.items()):

        def report(what: str, done: int, total: int) -> None:
            if progress is not None:
                share = _SHARES[what]
                hundredths = 100 * (share[0] + (share[1] - share[0]) * done / max(total, 1))
                progress(int(100 * number + hundredths), 100 * len(groups))  # noqa: B023

        rng = np.random.default_rng((seed, number))
        state = work / f"{name.replace('/', '_')}.npz"
        classes[name] = align(
            subtomograms, rows, settings, rng, symmetry=averaging.symmetry, state=state, report=report
        )
        if settings.checks:
            checks[name] = check(
                subtomograms, classes[name], settings, np.random.default_rng((seed, number, 1)), report
            )
    return AlignedClasses(with_poses(subtomograms, list(classes.values())), classes, checks)


_SHARES = {
    "starting from random orientations": (0.0, 0.4),
    "searching every box": (0.4, 0.6),
    "refining the halves": (0.6, 0.9),
    "comparing with noise": (0.9, 1.0),
}
"""Which part of the work of a class each step is."""


def with_poses(subtomograms: Subtomograms, classes: list[Aligned]) -> Subtomograms:
    """The aligned boxes, their table telling where and how turned the particles are."""
    rows = np.concatenate([aligned.rows for aligned in classes])
    order = np.argsort(rows, kind="stable")
    particles = subtomograms.particles.take(rows[order])
    turned = Rotation.concatenate([aligned.poses.rotations for aligned in classes])[order]
    found = np.concatenate([aligned.poses.shifts_px for aligned in classes])[order] * subtomograms.voxel_size
    half = np.concatenate([aligned.half for aligned in classes])[order]
    score = np.concatenate([aligned.poses.score for aligned in classes])[order]
    centre = particles.position - offsets(particles)
    moved = replace(particles, orientation=turned, position=centre + found)
    columns: dict[str, NDArray[Any]] = {**dict(zip(RESIDUALS, found.T, strict=True)), HALF_SET: half, "score": score}
    boxes = StackRows(subtomograms.stack, rows[order])
    return replace(subtomograms, particles=_replaced(moved, columns), stack=cast(NDArray[np.float16], boxes))


def _replaced(particles: Particles, columns: Mapping[str, NDArray[Any]]) -> Particles:
    """The same with these columns, and without an offset that is told otherwise."""
    stale = [name for name in ("shift_z", "shift_y", "shift_x") if name in particles]
    return replace(particles, columns=particles.columns.drop(columns=stale)).with_columns(**columns)
