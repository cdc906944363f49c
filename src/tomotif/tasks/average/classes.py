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
from tomotif.tasks.average.blind import SURE_HAND, align
from tomotif.tasks.average.checks import Checks, check
from tomotif.tasks.average.given import HALF_SET, ClassAverage, kept_groups, offsets
from tomotif.tasks.average.halves import Aligned, Report
from tomotif.tasks.average.settings import AlignSettings, AverageSettings

_SAME_HANDS = 0.9
"""Correlation with its mirror image from which a map has no hand to speak of."""


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

    def entry(self, made: ClassAverage) -> dict[str, Any]:
        """What is said about one class besides its average, as plain JSON values."""
        aligned, checks = self.classes[made.name], self.checks.get(made.name)
        warnings = [*(checks.warnings if checks else []), *unconfirmed(made, aligned), *undecided(aligned)]
        return {
            "start_resolution_A": round(aligned.start_resolution, 2),
            **aligned.start_record(),
            "symmetry": aligned.symmetry,
            **({"checks": checks.as_dict()} if checks else {}),
            "warnings": warnings,
        }


def unconfirmed(made: ClassAverage, aligned: Aligned) -> list[str]:
    """A line when the halves do not agree beyond the band of the start, which they share.

    In that band they agree whatever the boxes show, so nothing that the map shows has been borne out.
    """
    shell = 1 / (len(made.volume) * made.voxel_size)
    if 1 / made.resolution >= 1 / aligned.start_resolution + shell:
        return []
    return [
        f"the two halves agree up to {made.resolution:.0f} Å and share their start up to "
        f"{aligned.start_resolution:.0f} Å: nothing in this map is confirmed by independent particles"
    ]


def undecided(aligned: Aligned) -> list[str]:
    """A line when a map that differs from its mirror image is hardly likelier than it."""
    if aligned.hand_margin >= SURE_HAND or aligned.hands_alike > _SAME_HANDS:
        return []
    return [
        f"the hand of this map is a guess: its mirror image is less likely by only {aligned.hand_margin:.1f} standard "
        f"errors ({SURE_HAND:g} are expected); more particles would tell"
    ]


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
        report = share_of(progress, number, len(groups))
        rng = np.random.default_rng((seed, number))
        state = work / f"{name.replace('/', '_')}.npz"
        classes[name] = align(
            subtomograms, rows, settings, rng, symmetry=averaging.symmetry, state=state, report=report
        )
        if settings.checks:
            checks[name] = check(subtomograms, rows, settings, np.random.default_rng((seed, number, 1)), report)
    return AlignedClasses(with_poses(subtomograms, list(classes.values())), classes, checks)


def share_of(progress: Progress | None, number: int, total: int) -> Report:
    """Tells the progress of one class of several, in hundredths of a class."""

    def report(what: str, done: int, parts: int) -> None:
        if progress is not None:
            begin, end = _SHARES[what]
            progress(int(100 * (number + begin + (end - begin) * done / max(parts, 1))), 100 * total)

    return report


_SHARES = {
    "starting from random orientations": (0.0, 0.4),
    "searching every box": (0.4, 0.5),
    "refining the halves": (0.5, 0.6),
    "checking the group": (0.6, 1.0),
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
