"""The classifiers and encoders that come with the package, made by ``tools/pretrain.py`` and ``…_encoders.py``."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Literal

from tomotif.core import Subtomograms
from tomotif.engine.model_folder import read_card


def shipped_models(kind: Literal["models", "encoders"] = "models") -> dict[str, Path]:
    """Model folders of classifiers, or of encoders, by name."""
    root = Path(str(files("tomotif.resources") / kind))
    return {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}


def shipped_encoder_for(voxel_size: float) -> Path:
    """The shipped encoder whose voxel size is nearest, in Å."""
    return nearest(shipped_models("encoders"), voxel_size)


def shipped_model_for(subtomograms: Subtomograms) -> Path:
    """The shipped model whose voxel size is nearest to that of the boxes."""
    return nearest(shipped_models(), subtomograms.voxel_size)


def nearest(folders: dict[str, Path], voxel_size: float) -> Path:
    """The model folder of the nearest voxel size."""
    return min(folders.values(), key=lambda folder: abs(math.log(read_card(folder).voxel_size / voxel_size)))
