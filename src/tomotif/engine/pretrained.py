"""The classifiers that come with the package, made by ``tools/pretrain.py``."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

from tomotif.core import Subtomograms
from tomotif.engine.model_folder import read_card


def shipped_models() -> dict[str, Path]:
    """Model folders by name."""
    root = Path(str(files("tomotif.resources") / "models"))
    return {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}


def shipped_model_for(subtomograms: Subtomograms) -> Path:
    """The shipped model whose voxel size is nearest to that of the boxes."""

    def distance(folder: Path) -> float:
        return abs(math.log(read_card(folder).voxel_size / subtomograms.voxel_size))

    return min(shipped_models().values(), key=distance)
