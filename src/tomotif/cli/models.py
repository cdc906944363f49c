"""`tomotif models`: which networks there are."""

from __future__ import annotations

from rich.table import Table

from tomotif.cli.console import console
from tomotif.models import architecture, architecture_names, build_model

EXAMPLE_BOX_PX, EXAMPLE_CLASSES = 32, 10


def models() -> None:
    """List the networks that can be trained, with their size at a box of 32 voxels and 10 classes."""
    table = Table("name", "parameters", "box is a multiple of (voxels)", "source")
    for name in architecture_names():
        found = architecture(name)
        model = build_model(name, EXAMPLE_BOX_PX, EXAMPLE_CLASSES)
        parameters = sum(p.numel() for p in model.parameters())
        table.add_row(name, f"{parameters:,}", str(found.box_multiple), found.source)
    console.print(table)
