"""`tomotif demo`: the whole line on a simulated and on a real tomogram."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console, progress_bar
from tomotif.pipelines.demo import DemoSettings
from tomotif.pipelines.demo import demo as run_demo
from tomotif.pipelines.stages import Run


def demo(
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("demo"),
    settings: Annotated[DemoSettings, Parameter(name="*")] = DemoSettings(),
    overwrite: bool = False,
) -> None:
    """Train on simulated complexes, then find and name them in a simulated tomogram and look into a real cell.

    Parameters
    ----------
    output
        Folder to write; the report is report.html in it. A demo that was killed continues.
    settings
        Size of the demo.
    overwrite
        Start anew in the output folder.
    """
    found = run_demo(settings, Run(output, overwrite, progress_bar))
    console.print(f"macro-F1 on the simulated tomogram: {found.macro_f1:.2f} (picking recall {found.recall:.2f})")
    console.print(
        f"the real tomogram: {found.patterns} patterns without labels, {found.ribosome_like} particles in the one that "
        f"looks like a ribosome; {found.named_ribosome} are named ribosome by the classifier that comes with tomotif, "
        f"{found.both} are both"
    )
    console.print(f"The report is at {found.report.resolve()}")
