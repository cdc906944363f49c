"""`tomotif models`: which networks there are, how large and how fast."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators
from rich.table import Table

from tomotif.cli.console import console, progress_bar
from tomotif.engine.model_folder import read_card
from tomotif.engine.pretrained import shipped_models
from tomotif.engine.speed import boxes_per_second
from tomotif.models import architecture, architecture_names
from tomotif.models.size import model_size

CODES = 32
"""Length of the code of the autoencoders that are listed."""
Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]


def models(*, box_px: Positive = 32, classes: Positive = 10, speed: bool = True, int8: bool = False) -> None:
    """List the networks that can be trained: size, receptive field, and speed on this machine.

    Parameters
    ----------
    box_px
        Edge of a box in voxels.
    classes
        Number of classes.
    speed
        Also measure how many boxes a second go through each network (OpenVINO, 32-bit floats, all cores).
    int8
        Measure in 8-bit integers as well; takes a minute and needs 'tomotif[compress]'.
    """
    names = [name for name in architecture_names() if architecture(name).takes(box_px)]
    speeds = [*(["boxes/s"] if speed else []), *(["int8 boxes/s"] if int8 else [])]
    table = Table("name", "parameters", "million multiply-adds", "receptive field (voxels)", *speeds, "source")
    with progress_bar("measuring") as progress:
        for number, name in enumerate(names):
            size = model_size(name, box_px, classes)
            row = [name, f"{size.parameters:,}", f"{size.multiply_adds / 1e6:,.0f}", str(size.receptive_field_px)]
            for kind in speeds:
                rate = boxes_per_second(name, box_px, classes, int8=kind.startswith("int8"))
                row.append(f"{rate:,.0f}")
            table.add_row(*row, architecture(name).source)
            progress(number + 1, len(names))
    for name in architecture_names("autoencoder"):
        if architecture(name, "autoencoder").takes(box_px):
            size = model_size(name, box_px, CODES, "autoencoder")
            row = [name, f"{size.parameters:,}", f"{size.multiply_adds / 1e6:,.0f}", str(size.receptive_field_px)]
            table.add_row(*row, *("–" for _ in speeds), f"{architecture(name, 'autoencoder').source}; an autoencoder")
    console.print(table)
    for folder in shipped_models().values():
        card = read_card(folder)
        grid = f"boxes of {card.box_px} voxels of {card.voxel_size:g} Å"
        console.print(f"comes with tomotif: {folder.name} ({card.architecture}), {grid}: {', '.join(card.classes)}")
    others = sorted(set(architecture_names()) - set(names))
    if others:
        console.print(f"these do not take a box of {box_px} voxels: {', '.join(others)}")
