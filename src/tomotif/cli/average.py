"""`tomotif average`: align the subtomograms of each class to each other and average them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.io.files import read_json
from tomotif.pipelines.stages import Run, average_stage, has_orientations
from tomotif.tasks.average import AlignSettings, AverageSettings


def average(
    subtomograms: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("averages"),
    by: Literal["class", "cluster", "group", "pattern"] = "class",
    poses: Literal["auto", "given", "search"] = "auto",
    truth: Path | None = None,
    settings: Annotated[AverageSettings, Parameter(name="*")] = AverageSettings(),
    search: Annotated[AlignSettings, Parameter(name="*")] = AlignSettings(),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Align the subtomograms of each class to each other without a reference, and average them.

    With given poses they are averaged as their table says.

    Parameters
    ----------
    subtomograms
        Folder of an extraction, a classification or a clustering, or the particles.star in it.
    output
        Run folder to write: CLASS.mrc, CLASS_half1.mrc, CLASS_half2.mrc, CLASS.png, fsc.csv, averages.json, and
        particles.star with the poses that were found.
    by
        Average each class, each cluster, each group that a clustering proposed, or each pattern that mining found.
    poses
        Take the orientations of the table (given), find them (search), or take them where there are some (auto).
    truth
        Star file of the true particles, or the run folder it lies in: average only particles that match one, with its
        pose. For simulated data.
    settings
        Smallest class, halves, mask, symmetry.
    search
        How poses are found.
    seed
        Seed of starts, random halves and the mask correction.
    overwrite
        Replace an earlier run in the output folder.
    """
    run = Run(output, overwrite, progress_bar)
    finding = poses == "search" or (poses == "auto" and truth is None and not has_orientations(subtomograms))
    chosen = search if finding else None
    folder = average_stage(subtomograms, settings, run, by=by, seed=seed, truth=truth, search=chosen)
    entries = read_json(folder / "averages.json")
    table = Table("average", "particles", "resolution (Å)")
    for entry in entries:
        table.add_row(entry["class"], str(entry["particles"]), f"{entry['resolution_A']:.1f}")
    console.print(table)
    for poses in sorted({entry["poses"] for entry in entries}):
        console.print(f"Poses: {poses}.")
    for name, lines in folder.results["warnings"].items():
        for line in lines:
            console.print(f"[bold red]warning[/bold red] {name}: {line}")
    for name, reason in folder.results["skipped"].items():
        console.print(f"skipped {name}: {reason}")
    console.print(f"wrote {folder.path}")
