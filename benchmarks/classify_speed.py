"""How fast subtomograms are named on this CPU: the networks alone, and stack on disk → logits on disk.

Networks run in OpenVINO on all cores, in 32-bit floats and with convolutions in 8-bit integers. The boxes are noise:
speed does not depend on what is in them. Peak memory is measured for two sizes of the stack.
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
from tomotif.engine.predict import predict_stack, torch_predictor
from tomotif.engine.speed import boxes_per_second, predictor_speed
from tomotif.io.environment import peak_memory
from tomotif.io.stack import create_stack
from tomotif.models import build_model
from tomotif.tasks.classify import ClassifierSettings

BOX_PX, CLASSES, BATCH, VOXEL_SIZE = 32, 10, 32, 12.0
DEFAULT = ClassifierSettings().model
MODELS = (DEFAULT, "motif3d_fast", "motif3d", "cb3d_gap", "inception3d", "dsrf3d")


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
    """Measure both boxes, both precisions, and the default network from disk to disk."""
    seconds, sizes = (2.0, (4_000, 8_000)) if quick else (10.0, (10_000, 30_000))
    numbers: dict[str, Any] = {"batch_size": BATCH, "end_to_end_model": DEFAULT, "end_to_end_box_px": BOX_PX}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = fresh_model(folder / "model", DEFAULT)  # first, while nothing else holds memory
        for count in sizes:
            rate, peak = end_to_end(folder, model, count)
            numbers[f"end_to_end_{count}_per_s"], numbers[f"peak_mb_{count}"] = round(rate, 1), round(peak, 1)
        numbers["torch_per_s"] = round(predictor_speed(torch_predictor(model, BATCH), BOX_PX, BATCH, seconds), 1)
    numbers["networks"] = [
        {"model": model, "box_px": box_px, "int8": int8, "per_s": round(rate, 1)}
        for model in MODELS
        for box_px in (32, 40)
        for int8 in (False, True)
        for rate in [boxes_per_second(model, box_px, CLASSES, batch_size=BATCH, seconds=seconds, int8=int8)]
    ]
    return numbers


if __name__ == "__main__":
    harness.run("classify_speed", main)
