"""`tomotif fit`: which known structure is in a map, in which hand, and how well it agrees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.core import Contrast
from tomotif.io.files import read_json
from tomotif.pipelines.stages import Run, fit_stage
from tomotif.tasks.fit import FitSettings

SHOWN = 10


def fit(
    map: Path,
    structures: list[str] | None = None,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("fits"),
    voxel_size: float | None = None,
    contrast: Contrast = "bright",
    settings: Annotated[FitSettings, Parameter(name="*")] = FitSettings(),
    overwrite: bool = False,
) -> None:
    """Fit known structures to a map of one particle, such as an average, in both hands; the best comes first.

    Parameters
    ----------
    map
        The map (.mrc), the particle near its middle.
    structures
        Names (`tomotif structures`), or PDB or mmCIF files; by default all that come with the package.
    output
        Run folder to write: fits.json, fits.csv, best_fit.mrc and fit.png.
    voxel_size
        Edge of a voxel in Å, when the header does not say it.
    contrast
        'bright' when dense matter is high, as in averages of tomotif, else 'dark'.
    settings
        Resolution compared, how finely is searched, controls.
    overwrite
        Replace an earlier run in the output folder.
    """
    run = Run(output, overwrite, progress_bar)
    folder = fit_stage(map, structures or [], settings, run, voxel_size=voxel_size, contrast=contrast)
    show(read_json(folder / "fits.json"))
    console.print(f"wrote {folder.path}")


def show(made: Mapping[str, Any]) -> None:
    """Print the best fits and the controls as a table, and what follows from them."""
    table = Table("structure", "correlation", "mirror", "above next", "FSC 0.5 (Å)")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in made["fits"][:SHOWN]:
        table.add_row(*cells(row))
    table.add_section()
    for row in made["controls"]:
        name, *numbers = cells(row)
        table.add_row(f"control: {name.replace('_', ' ')}", *numbers)
    console.print(table)
    left = len(made["fits"]) - SHOWN
    if left > 0:
        console.print(f"{left} more are in fits.csv.")
    if made["skipped"]:
        console.print(f"skipped, because the map's box is too small for them: {', '.join(made['skipped'])}")
    for line in made["findings"]:
        console.print(line)


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table.

    >>> cells({"structure": "1bxn", "correlation": 0.98, "mirror_correlation": 0.9, "fsc05_A": 33.33})
    ['1bxn', '0.980', '0.900', '', '33.3']
    """
    margin = row.get("margin_to_next")
    numbers = [f"{row[key]:.3f}" for key in ("correlation", "mirror_correlation")]
    return [row["structure"], *numbers, "" if margin is None else f"{margin:.3f}", f"{row['fsc05_A']:.1f}"]
