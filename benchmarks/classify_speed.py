"""How fast subtomograms are named on this CPU: the networks alone, and stack on disk → logits on disk.

The boxes are noise: speed does not depend on what is in them. Peak memory is measured for two sizes of the stack.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from tomotif.engine.model_folder import ModelCard, save_model
from tomotif.engine.predict import openvino_predictor, predict_stack, torch_predictor
from tomotif.engine.speed import predictor_speed
from tomotif.io.environment import peak_memory
from tomotif.io.stack import create_stack
from tomotif.models import build_model

BOX_PX, CLASSES, BATCH, VOXEL_SIZE = 32, 8, 32, 12.0


def fresh_model(folder: Path, name: str) -> Path:
    """A model folder with weights that nobody trained."""
    torch.manual_seed(0)
    classes = tuple(f"class{i}" for i in range(CLASSES))
    card = ModelCard(architecture=name, classes=classes, box_px=BOX_PX, voxel_size=VOXEL_SIZE)
    save_model(folder, build_model(name, BOX_PX, CLASSES), card)
    return folder


def end_to_end(folder: Path, model: Path, count: int) -> tuple[float, float]:
    """Boxes a second and peak memory in MB of a whole stack, read from a warm disk."""
    path = folder / f"{count}.mrcs"
    rng = np.random.default_rng(0)
    with create_stack(path, count, BOX_PX, VOXEL_SIZE) as stack:
        for start in range(0, count, 1000):
            part = stack[start : start + 1000]
            part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    with peak_memory() as peak:
        begun = time.perf_counter()
        predict_stack(model, path, folder / f"work{count}")
        seconds = time.perf_counter() - begun
    return count / seconds, peak.megabytes


def main(quick: bool) -> dict[str, Any]:
    """Measure both networks and both runtimes."""
    seconds, sizes = (2.0, (4_000, 8_000)) if quick else (10.0, (10_000, 30_000))
    numbers: dict[str, Any] = {"box_px": BOX_PX, "batch_size": BATCH}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = fresh_model(folder / "motif3d", "motif3d")  # first, while nothing else holds memory
        for count in sizes:
            rate, peak = end_to_end(folder, model, count)
            numbers[f"end_to_end_{count}_per_s"], numbers[f"peak_mb_{count}"] = rate, peak
        for architecture in ("motif3d", "dsrf3d"):
            model = fresh_model(folder / f"{architecture}_alone", architecture)
            numbers[f"{architecture}_openvino_per_s"] = predictor_speed(
                openvino_predictor(model, BATCH), BOX_PX, BATCH, seconds
            )
            numbers[f"{architecture}_torch_per_s"] = predictor_speed(
                torch_predictor(model, BATCH), BOX_PX, BATCH, seconds
            )
    return numbers


if __name__ == "__main__":
    harness.run("classify_speed", main)
