"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tomotif.core import Contrast, InputError, MissingWedge, Settings, Tomogram
from tomotif.core.missing_wedge import TiltAxis
from tomotif.io.mrc import open_tomogram
from tomotif.io.star import read_tomograms


class TomogramOptions(Settings):
    """What a tomogram's file does not say; ignored for tomograms named in a tomograms.star, which says it."""

    voxel_size: float | None = None
    """Edge of a voxel in Å, when the header does not say it."""
    tilt_range: tuple[float, float] = (-60.0, 60.0)
    """Measured tilt range in degrees."""
    tilt_axis: TiltAxis = "y"
    """Tilt axis; the beam is z."""
    contrast: Contrast = "dark"
    """'dark' when dense matter is low (raw tomograms), else 'bright'."""


def open_tomograms(paths: Sequence[Path], options: TomogramOptions) -> list[Tomogram]:
    """Open tomogram files (.mrc, .rec) and tables of them (.star), memory-mapped.

    Raises
    ------
    InputError
        When a file cannot be used, or two tomograms have one name.
    """
    wedge = MissingWedge(*options.tilt_range, options.tilt_axis)
    tomograms: list[Tomogram] = []
    for path in paths:
        if path.suffix == ".star":
            tomograms += read_tomograms(path)
        else:
            tomograms.append(
                open_tomogram(path, voxel_size=options.voxel_size, missing_wedge=wedge, contrast=options.contrast)
            )
    names = [t.name for t in tomograms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"expected every tomogram to have its own name, got {twice[0]!r} twice; rename one file")
    return tomograms
