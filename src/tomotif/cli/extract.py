"""`tomotif extract`: cut subtomograms at particles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.cli.options import TomogramOptions, open_tomograms
from tomotif.pipelines.stages import Run, extract_stage
from tomotif.tasks.extract import ExtractSettings


def extract(
    particles: Path,
    *,
    tomograms: list[Path] | None = None,
    output: Annotated[Path, Parameter(alias="-o")] = Path("subtomograms"),
    settings: Annotated[ExtractSettings, Parameter(name="*")] = ExtractSettings(),
    tomogram: Annotated[TomogramOptions, Parameter(name="tomogram")] = TomogramOptions(),
    overwrite: bool = False,
) -> None:
    """Cut subtomograms at particles: a stack of z-scored, bright boxes with its star file.

    Parameters
    ----------
    particles
        Star file of particles (RELION 3.1, 4, 5 or tomotif), or the run folder it lies in.
    tomograms
        The tomograms (.mrc, .rec, or a tomograms.star); by default tomograms.star beside the particles.
    output
        Run folder to write: subtomograms.mrcs, particles.star, tomograms.star.
    settings
        Size of the boxes, resampling, padding.
    tomogram
        What files given with --tomograms do not say themselves.
    overwrite
        Replace an earlier run in the output folder.
    """
    given = None if tomograms is None else open_tomograms(tomograms, tomogram)
    folder = extract_stage(particles, settings, Run(output, overwrite, progress_bar), tomograms=given)
    found = folder.results
    if found["dropped"]:
        console.print(f"left out {found['dropped']} particles too near the border")
    console.print(
        f"wrote {folder / 'subtomograms.mrcs'} ({found['subtomograms']} boxes of {found['box_px']} voxels of "
        f"{found['voxel_size']:g} Å)"
    )
