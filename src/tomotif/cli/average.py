"""`tomotif average`: average the subtomograms of each class with their given poses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.io.files import read_json
from tomotif.pipelines.stages import Run, average_stage
from tomotif.tasks.average import AverageSettings


def average(
    subtomograms: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("averages"),
    by: Literal["class", "cluster"] = "class",
    truth: Path | None = None,
    settings: Annotated[AverageSettings, Parameter(name="*")] = AverageSettings(),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Average the subtomograms of each class with the orientations in their table; no pose is searched.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, a classification or a clustering, or the particles.star in it.
    output
        Run folder to write: CLASS.mrc, CLASS_half1.mrc, CLASS_half2.mrc and averages.json.
    by
        Average each class or each cluster.
    truth
        Star file of the true particles, or the run folder it lies in: average only particles that match one, with its
        pose. For simulated data.
    settings
        Smallest class, halves, mask.
    seed
        Seed of random halves and of the mask correction.
    overwrite
        Replace an earlier run in the output folder.
    """
    run = Run(output, overwrite, progress_bar)
    folder = average_stage(subtomograms, settings, run, by=by, seed=seed, truth=truth)
    entries = read_json(folder / "averages.json")
    table = Table("average", "particles", "resolution (Å)")
    for entry in entries:
        table.add_row(entry["class"], str(entry["particles"]), f"{entry['resolution_A']:.1f}")
    console.print(table)
    for poses in sorted({entry["poses"] for entry in entries}):
        console.print(f"Poses: {poses}.")
    for name, reason in folder.results["skipped"].items():
        console.print(f"skipped {name}: {reason}")
    console.print(f"wrote {folder.path}")
