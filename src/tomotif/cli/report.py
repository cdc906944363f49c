"""`tomotif report`: write one HTML page from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tomotif.cli.console import console
from tomotif.report.blocks import Projection
from tomotif.report.page import TITLE, write_report


def report(
    folders: Annotated[list[Path], Parameter(negative=())],
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("report.html"),
    title: str = TITLE,
    projection: Projection = "t-sne",
) -> None:
    """Write one self-contained HTML page about run folders.

    Parameters
    ----------
    folders
        Run folders that other commands wrote; the runs inside them are shown too, in order of time.
    output
        The HTML file to write.
    title
        Heading of the page.
    projection
        How features are mapped: t-sne, or umap, which needs umap-learn (pip install 'tomotif[umap]') and a minute.
    """
    written = write_report(folders, output, title=title, projection=projection)
    console.print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB)")
