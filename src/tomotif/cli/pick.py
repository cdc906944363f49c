"""`tomotif pick`: find particles in tomograms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.cli.options import TomogramOptions, open_tomograms
from tomotif.pipelines.stages import Run, pick_stage
from tomotif.tasks.pick import PickSettings


def pick(
    tomograms: list[Path],
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("picks"),
    options: Annotated[TomogramOptions, Parameter(name="*")] = TomogramOptions(),
    settings: Annotated[PickSettings, Parameter(name="*")] = PickSettings(),
    overwrite: bool = False,
) -> None:
    """Find particles in tomograms, without templates.

    Parameters
    ----------
    tomograms
        Tomograms (.mrc, .rec), or a tomograms.star that names them.
    output
        Run folder to write: particles.star and tomograms.star.
    options
        What the tomograms' files do not say.
    settings
        How particles are found.
    overwrite
        Replace an earlier run in the output folder.
    """
    folder = pick_stage(open_tomograms(tomograms, options), settings, Run(output, overwrite, progress_bar))
    for name, count in folder.results["tomograms"].items():
        console.print(f"{name}: {count} picks")
    console.print(f"wrote {folder / 'particles.star'} ({folder.results['picks']} picks)")
