"""Extraction: boxes of 32³ per second from a warm tomogram of 300×1,000×1,000 voxels, and memory against their number.

Boxes are cut at random places, z-scored and written as float16 into an allocated stack on disk, as ``tomotif extract``
does: 66 kB a box, so that 5,000 a second are 330 MB a second, and very many boxes come no faster than the disk takes
them. Each measurement runs in a process of its own; peak memory is RssAnon + RssShmem of that process's tree.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from tomotif.core import Particles
from tomotif.io.environment import peak_memory
from tomotif.io.mrc import new_header, open_tomogram
from tomotif.io.stack import create_stack
from tomotif.tasks.extract import ExtractSettings, extract, place_boxes

SEED = 0
SHAPE = (300, 1000, 1000)
VOXEL_SIZE = 10.0
DTYPES = ("int8", "float32")


def write_tomogram(path: Path, dtype: str) -> None:
    """White noise, 16 grey values to a standard deviation, plane by plane."""
    rng = np.random.default_rng(SEED)
    with path.open("wb") as file:
        file.write(new_header(SHAPE, dtype, VOXEL_SIZE).tobytes())
        for _ in range(SHAPE[0]):
            plane = 16 * rng.standard_normal(SHAPE[1:], dtype=np.float32)
            file.write(np.clip(np.rint(plane), -127, 127).astype(dtype).tobytes())


def measure(path: Path, count: int) -> dict[str, float]:
    """Extract ``count`` boxes once, after reading the whole tomogram: boxes per second, peak memory in MB."""
    tomogram = open_tomogram(path)  # reads every value: now it is warm
    extent = (np.asarray(SHAPE) - 1) * VOXEL_SIZE
    particles = Particles.create(tomogram.name, np.random.default_rng(SEED).uniform(0, 1, (count, 3)) * extent)
    settings = ExtractSettings(box_px=32)
    warm_up(particles, settings, path)
    placed = place_boxes(particles, [tomogram], settings)
    os.sync()  # what was written before is not this measurement's to wait for
    with (
        peak_memory() as peak,
        create_stack(path.with_suffix(".mrcs"), len(placed), settings.box_px, VOXEL_SIZE) as stack,
    ):
        begun = time.perf_counter()
        extract(placed, [tomogram], settings, stack)
        seconds = time.perf_counter() - begun
    path.with_suffix(".mrcs").unlink()
    return {"boxes": len(placed), "boxes_per_s": len(placed) / seconds, "peak_mb": peak.megabytes}


def disk_rate(folder: Path, megabytes: int) -> float:
    """MB a second that the disk itself takes: a plain file, written and flushed to the end."""
    block = np.random.default_rng(SEED).bytes(10**6)
    os.sync()
    begun = time.perf_counter()
    with (folder / "plain").open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    (folder / "plain").unlink()
    return megabytes / seconds


def warm_up(particles: Particles, settings: ExtractSettings, path: Path) -> None:
    """Load the libraries, which a long extraction does once."""
    tomogram = open_tomogram(path, check=False)
    few = place_boxes(particles.take(np.arange(20)), [tomogram], settings)
    extract(few, [tomogram], settings, np.empty((len(few), *(settings.box_px,) * 3), np.float16))


def main(quick: bool) -> dict[str, Any]:
    """Measure 8- and 32-bit tomograms, and 8-bit again with more particles."""
    count, more = (20_000, 40_000) if quick else (60_000, 120_000)
    spawn = multiprocessing.get_context("spawn")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            path = Path(folder) / f"{dtype}.mrc"
            write_tomogram(path, dtype)
            for boxes in (count, more) if dtype == "int8" else (count,):
                with ProcessPoolExecutor(1, mp_context=spawn) as process:
                    found[dtype, boxes] = process.submit(measure, path, boxes).result()
            path.unlink()
        disk = disk_rate(Path(folder), 500 if quick else 4000)
    first, larger = found["int8", count], found["int8", more]
    return {
        "boxes_per_s": round(min(found[dtype, count]["boxes_per_s"] for dtype in DTYPES)),
        **{f"boxes_per_s_{dtype}": round(found[dtype, count]["boxes_per_s"]) for dtype in DTYPES},
        "boxes": first["boxes"],
        "disk_mb_per_s": round(disk),
        "boxes_per_s_the_disk_takes": round(disk * 1e6 / (2 * 32**3)),
        "peak_mb": round(max(m["peak_mb"] for m in found.values()), 1),
        "boxes_more_particles": larger["boxes"],
        "boxes_per_s_more_particles": round(larger["boxes_per_s"]),
        "peak_mb_more_particles": round(larger["peak_mb"], 1),
        "peak_mb_fewer_particles": round(first["peak_mb"], 1),
        "tomogram_zyx": list(SHAPE),
        "box_px": 32,
    }


if __name__ == "__main__":
    harness.run("extract", main, seeds=(SEED,))
