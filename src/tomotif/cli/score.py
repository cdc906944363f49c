"""`tomotif score`: compare picks and classes with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.box import SIMPLE
from rich.table import Column, Table

from tomotif.cli.console import console, progress_bar
from tomotif.io.files import read_json
from tomotif.pipelines.stages import Run, score_stage
from tomotif.tasks.score import ScoreSettings

RATES = ("precision", "recall", "f1", "f_beta")


def score(
    picks: Path,
    truth: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("score"),
    settings: Annotated[ScoreSettings, Parameter(name="*")] = ScoreSettings(),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Compare picks, and their classes where they have some, with the truth; all scores are fractions.

    Parameters
    ----------
    picks
        Star file of picked or classified particles, or the run folder it lies in.
    truth
        Star file of the true particles with class and radius (Å), or the run folder it lies in.
    output
        Run folder to write; the scores are in its score.json.
    settings
        What counts as a match, and how intervals and baseline are drawn.
    seed
        Seed of the random baseline and of the bootstrap.
    overwrite
        Replace an earlier run in the output folder.
    """
    folder = score_stage(picks, truth, settings, Run(output, overwrite, progress_bar), seed=seed)
    show(read_json(folder / "score.json"))
    console.print(f"wrote {folder / 'score.json'}")


def show(result: Mapping[str, Any]) -> None:
    """Print the scores as tables."""
    intervals, beta = result["intervals"], f"{result['beta']:g}"
    names = ("true", "picks", "match", "precision", "recall", "F1", f"F{beta}")
    headers = [Column(name, no_wrap=True) for name in names]
    table = Table("", *headers, box=SIMPLE, collapse_padding=True)
    counts, detection = result["counts"], result["detection"]
    bounds = intervals["detection"]
    cells = [fraction(detection[key], bounds[key]) for key in RATES]
    table.add_row("any class", str(counts["true"]), str(counts["picks"]), str(detection["matched"]), *cells)
    if result["random"] is not None:
        table.add_row("random", "", "", "", *[fraction(result["random"][key]) for key in RATES])
    if result["macro_f1"] is not None:
        table.add_section()
        for row in result["classes"]:
            cells = [fraction(row[key], intervals["classes"][row["class"]] if key == "f1" else None) for key in RATES]
            table.add_row(row["class"], str(row["true"]), str(row["predicted"]), str(row["correct"]), *cells)
        table.add_section()
        means = [fraction(result[key], intervals[key]) for key in ("macro_f1", "macro_f_beta")]
        table.add_row("macro mean", "", "", "", "", "", *means)
    console.print(table)
    console.print(
        f"Second lines: {100 * intervals['level']:g} % bootstrap intervals, resampled by {intervals['unit']}. 'random' "
        f"is as many picks at random places. {counts['rejected']} picks were rejected as background."
    )


def fraction(value: float | None, bounds: tuple[float, float] | None = None) -> str:
    """A fraction, and its interval on a second line.

    >>> fraction(0.8333, (0.75, 0.9)), fraction(None)
    ('0.833\\n0.75–0.90', '–')
    """
    if value is None:
        return "–"
    return f"{value:.3f}" + (f"\n{bounds[0]:.2f}–{bounds[1]:.2f}" if bounds else "")
