"""`tomotif average`: average the subtomograms of each class with their given poses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.core import InputError
from tomotif.io.files import read_json, write_json
from tomotif.io.mrc import write_volume
from tomotif.io.run_folder import RECORD, run_folder
from tomotif.io.stack import STACK_NAME, TABLE_NAME, read_subtomograms
from tomotif.tasks.average import AverageSettings, ClassAverage
from tomotif.tasks.average import average as average_subtomograms


def average(
    subtomograms: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("averages"),
    by: Literal["class", "cluster"] = "class",
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
    settings
        Smallest class, halves, mask.
    seed
        Seed of random halves and of the mask correction.
    overwrite
        Replace an earlier run in the output folder.
    """
    table = subtomograms / TABLE_NAME if subtomograms.is_dir() else subtomograms
    stack = find_stack(table)
    found = read_subtomograms(table, stack=stack)
    plain = {**settings.model_dump(mode="json"), "by": by}
    with run_folder(output, "average", plain, inputs=[table, stack], seed=seed, overwrite=overwrite) as run:
        if not run.finished:
            with progress_bar("averaging") as progress:
                result = average_subtomograms(
                    found, settings, by=by, rng=np.random.default_rng(seed), progress=progress
                )
            entries = [write_average(run.path, average) for average in result.averages]
            write_json(run / "averages.json", entries)
            run.record(
                averages={entry["class"]: entry["resolution_A"] for entry in entries},
                skipped={skipped.name: skipped.reason for skipped in result.skipped},
            )
        show(run / "averages.json")
        for name, reason in run.results["skipped"].items():
            console.print(f"skipped {name}: {reason}")
        console.print(f"wrote {run.path}")


def find_stack(table: Path) -> Path:
    """The stack beside a particle table, or beside the table that its run was made from, and so on.

    Raises
    ------
    InputError
        When there is none.
    """
    folder, seen = table.parent, set[Path]()
    while folder not in seen:
        seen.add(folder)
        if (folder / STACK_NAME).exists():
            return folder / STACK_NAME
        record = folder / RECORD
        inputs = read_json(record).get("inputs", []) if record.exists() else []
        for path in (Path(entry["path"]) for entry in inputs):
            home = path if path.is_dir() else path.parent
            if (home / TABLE_NAME).exists():
                folder = home
                break
    raise InputError(
        f"expected {STACK_NAME} beside {table} or in the folder of the run it was made from, found none; "
        "give the folder of an extraction"
    )


def write_average(folder: Path, average: ClassAverage) -> dict[str, object]:
    """Write the maps of one class and give its entry of averages.json."""
    stem = average.name.replace("/", "_")
    write_volume(folder / f"{stem}.mrc", average.volume, average.voxel_size)
    for number, half in enumerate(average.halves, start=1):
        write_volume(folder / f"{stem}_half{number}.mrc", half, average.voxel_size)
    return {**average.as_dict(), "file": f"{stem}.mrc"}


def show(path: Path) -> None:
    """Print what was averaged."""
    entries = read_json(path)
    table = Table("average", "particles", "resolution (Å)")
    for entry in entries:
        table.add_row(entry["class"], str(entry["particles"]), f"{entry['resolution_A']:.1f}")
    console.print(table)
    for poses in sorted({entry["poses"] for entry in entries}):
        console.print(f"Poses: {poses}.")
